"""`polyrank trace`: one request from raw rows to features, labels, predictions and score."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from components.log_example_gen.build import read_logs
from components.log_example_gen.fingerprint import fingerprint_logs
from components.log_example_gen.reader import ReadResult
from components.log_example_gen.row_names import SOURCE_FILE, SOURCE_ROW
from components.log_example_gen.trace import Tracer
from components.log_example_gen.window import as_text
from models.spec.errors import DataError
from models.spec.fusion import fused
from models.spec.pii_key import PiiKey
from models.spec.ranking import RankingSpec
from pipeline.stored_run import StoredRun

SCHEMA_VERSION = 1
_NUM_NEAREST = 3
_NUM_COMPARED = 200
_WIDTH = 160

Json = dict[str, Any]


def trace(run: StoredRun, request_id: str) -> Json:
    """Explains one request of a run, from what the run stored and from its raw logs.

    Args:
        run: The run.
        request_id: Value of the slate column (of the first key without slates): as logged, or
            its hash where the column is pii.

    Returns:
        The JSON of `polyrank trace --json`; see `docs/operations.md`.

    Raises:
        ConfigError: The key for people's data is missing.
        DataError: The logs are gone or damaged, or have no such request.
    """
    root = Path(run.config.logs.root)
    if not root.is_dir():
        raise DataError(
            f"the logs of run {run.run_id} are no longer at {root}",
            constraint="the raw logs of the run",
            remedy="give the folder they are in now with --logs",
        )
    dead_letters = _dead_letters(run.folder)
    logs = _without_erased(read_logs(run.dataset), dead_letters)
    tracer = Tracer(run.dataset, logs)
    stored_id = _stored_id(run, tracer.request_column, request_id)
    found = tracer.trace(stored_id)
    if not found.rows and not found.events:
        raise _no_request(run, tracer, request_id)
    ranking = run.config.ranking
    scored = _predictions(run.folder, found.candidates)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "state": run.summary["state"],
        "champion": run.summary["champion"],
        "request": {"column": tracer.request_column, "id": stored_id},
        "window": run.summary["window"],
        "logs_unchanged": fingerprint_logs(run.config.logs, root) == run.data_hash,
        "impressions": found.rows,
        "events": found.events,
        "candidates": [_with_predictions(c, scored, ranking) for c in found.candidates],
    }


def _dead_letters(folder: Path) -> pl.DataFrame:
    path = folder / "dead_letters.parquet"
    if not path.exists():
        schema = {"stream": pl.String, "file": pl.String, "row": pl.Int64, "reason": pl.String}
        return pl.DataFrame(schema=schema)
    return pl.read_parquet(path, columns=["stream", "file", "row", "reason"])


def _without_erased(
    logs: dict[str, ReadResult], dead_letters: pl.DataFrame
) -> dict[str, ReadResult]:
    """Leaves out the rows of people whom the run had erased; their list is not kept."""
    erased = dead_letters.filter(pl.col("reason") == "erased")
    found = {}
    for name, log in logs.items():
        places = erased.filter(pl.col("stream") == name)
        numbers = pl.DataFrame(
            {SOURCE_FILE: range(len(log.files)), "file": log.files},
            schema={SOURCE_FILE: pl.Int32, "file": pl.String},
        )
        gone = places.join(numbers, on="file").select(SOURCE_FILE, pl.col("row").alias(SOURCE_ROW))
        kept = pl.DataFrame(log.table).join(
            gone, on=[SOURCE_FILE, SOURCE_ROW], how="anti", maintain_order="left"
        )
        found[name] = replace(log, table=kept.to_arrow()) if len(gone) else log
    return found


def _stored_id(run: StoredRun, column: str, request_id: str) -> str:
    if run.privacy is None or not run.config.columns[column].pii:
        return request_id
    key = PiiKey.from_environment(run.privacy.key_env, run.privacy.hash_characters)
    is_hash = len(request_id) == key.characters and not set(request_id) - set("0123456789abcdef")
    return request_id if is_hash else key.hash(request_id)


def _no_request(run: StoredRun, tracer: Tracer, request_id: str) -> DataError:
    column = tracer.request_column
    near = (
        []
        if run.config.columns[column].pii
        else nearest_ids(request_id, tracer.request_ids().to_list())
    )
    return DataError(
        f"no row of run {run.run_id} has {column} {request_id!r}",
        constraint="an id in the impressions' log that no erasure list took out",
        received=f"nearest: {', '.join(near)}" if near else "",
        remedy="give another --request-id, or another run with --run",
    )


def nearest_ids(wanted: str, ids: list[str]) -> list[str]:
    """Returns the ids most like one; among many, those that begin alike are compared."""
    alike = sorted(ids, key=lambda each: (-_num_alike(wanted, each), each))
    return difflib.get_close_matches(wanted, alike[:_NUM_COMPARED], n=_NUM_NEAREST, cutoff=0.0)


def _num_alike(left: str, right: str) -> int:
    """Length of the common beginning."""
    pairs = zip(left, right, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _predictions(folder: Path, candidates: list[Json]) -> dict[str, pl.DataFrame]:
    """Reads what each model said of rows with the keys of some impressions.

    By their keys, since predictions need not carry the column that names a request.
    """
    keys = pl.LazyFrame([candidate["keys"] for candidate in candidates])
    return {
        path.stem: pl.scan_parquet(path)
        .join(keys, on=list(candidates[0]["keys"]), how="semi")
        .collect()
        for path in sorted((folder / "predictions").glob("*.parquet"))
        if candidates
    }


def _with_predictions(
    candidate: Json, scored: dict[str, pl.DataFrame], ranking: RankingSpec
) -> Json:
    """Adds what each model said of one impression; train rows are not scored."""
    predictions: Json = {}
    differing: list[str] = []
    for name, frame in scored.items():
        for row in frame.iter_rows(named=True):
            own = {key: row[key] for key in candidate["keys"]}
            if own != candidate["keys"] or as_text(row["timestamp"]) != candidate["time"]:
                continue
            outputs = {o.name: row[f"{o.name}__prediction"] for o in ranking.outputs}
            predictions[name] = outputs | {"score": fused(ranking, outputs)}
            for output, label in candidate["labels"].items():
                mask = row.get(f"{output}__mask")
                same = mask is None or (
                    mask == label["mask"]
                    and row[f"{output}__label"] == (label["label"] if label["mask"] else 0.0)
                )
                if not same and output not in differing:
                    differing.append(output)
    return candidate | {"predictions": predictions, "labels_differ_from_stored": differing}


# For people -------------------------------------------------------------------------------------


def render(found: Json) -> str:
    """Formats a trace as tables."""
    console = Console(width=_WIDTH, highlight=False)
    request = found["request"]
    parts: list[Any] = [
        Text(f"{request['column']} {request['id']} in run {found['run_id']} ({found['state']})")
    ]
    if not found["logs_unchanged"]:
        parts.append(Text("the logs are not those of the run (another content hash)", "yellow"))
    parts.append(_row_table("Rows of the impressions' log", found["impressions"]))
    parts.append(_row_table("Rows of the streams with its keys", found["events"]))
    for candidate in found["candidates"]:
        keys = ", ".join(f"{key} {value}" for key, value in candidate["keys"].items())
        parts.append(Text(f"\n{keys}"))
        parts.append(Text(f"at {candidate['time']}, split {candidate['split'] or 'none'}"))
        parts += [_feature_table(candidate), _label_table(candidate)]
        if candidate["labels_differ_from_stored"]:
            names = ", ".join(candidate["labels_differ_from_stored"])
            parts.append(Text(f"labels differ from the stored ones: {names}", "red"))
    with console.capture() as captured:
        console.print(Group(*parts))
    return captured.get().rstrip()


def _row_table(title: str, rows: list[Json]) -> Table:
    table = _table(title, "log", "file", "row", "time", "status", "what")
    for row in rows:
        status = row["status"]
        if row.get("seconds_after_impression") is not None:
            status += f", {row['seconds_after_impression']:g} s after the impression"
        values = [f"{key} {value}" for key, value in row["values"].items() if value is not None]
        told = [f"{column}: {how}" for column, how in row.get("columns", {}).items()]
        if status.startswith("joined_other_request"):
            told += [str(key) for key in row["impressions"]]
        table.add_row(
            row["stream"], row["file"], str(row["row"]), row["time"] or "", status,
            "; ".join([", ".join(values), *told]),
        )  # fmt: skip
    return table


def _feature_table(candidate: Json) -> Table:
    table = _table("Features", "feature", "value", "made of")
    for name, feature in candidate["features"].items():
        table.add_row(name, _shown(feature["value"]), _made_of(feature))
    return table


def _made_of(feature: Json) -> str:
    if feature["origin"] == "as_of":
        entity = ", ".join(f"{key} {value}" for key, value in feature["entity"].items())
        since = f"from {feature['from']} " if feature["from"] else ""
        return (
            f"{feature['aggregate']} of {feature['num_events']} {feature['events']} of {entity} "
            f"{since}before {feature['before']}"
        )
    if feature["origin"] == "rate":
        return f"{feature['numerator']} / {feature['denominator']}, smoothed"
    if feature["origin"] == "slate":
        return f"{feature['relation']} of {feature['of']} within the slate"
    return "the request" if feature["origin"] == "column" else "logged by the request"


def _label_table(candidate: Json) -> Table:
    models = list(candidate["predictions"])
    table = _table("Labels and predictions", "output", "label", "counts", "weight", *models)
    for output, label in candidate["labels"].items():
        table.add_row(
            output, _shown(label["label"]), label["masked_because"] or "yes",
            _shown(label["weight"]),
            *(_shown(candidate["predictions"][model].get(output)) for model in models),
        )  # fmt: skip
    if models:
        scores = (_shown(candidate["predictions"][model]["score"]) for model in models)
        table.add_row("score", "", "", "", *scores)
    elif candidate["split"] == "train":
        table.caption = "train rows are not scored"
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "" if value is None else str(value)
