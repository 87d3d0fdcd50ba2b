"""Sends raw request features of test rows to a server process and compares its answers.

The server is a process of its own that imports no modelling code: what it answers comes from the
exported graph alone. One process serves all candidates, because each costs an import of
TensorFlow.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from components.model_pusher.export_gate import export_problems
from components.model_pusher.requests import sequence_lengths, synthetic_requests
from components.scorer.executor import FILE_NAME as PREDICTIONS_FILE
from components.serving_check.unusual_rows import (
    num_with_missing,
    serialized,
    unusual_rows,
)
from components.verdict import Verdict, write_verdict
from models.spec.feature import Feature
from models.spec.keys import TIMESTAMP, key_feature
from models.spec.ranking import RankingSpec
from serving.client import RankingClient
from serving.warmup import write_warmup

PROBABILITY_TOLERANCE = 1e-5
VALUE_TOLERANCE = 1e-4
"""Relative tolerances: probabilities, and natural units such as seconds."""
_START_SECONDS = 120.0
_BATCH_ROWS = 256

Columns = dict[str, np.ndarray[Any, Any]]


class Executor(base_executor.BaseExecutor):
    """Starts a real server on the exported models that can be pushed and compares its answers."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Checks every candidate; the verdict's details list refusals per candidate."""
        ranking = RankingSpec.model_validate_json(exec_properties["ranking_json"])
        names = json.loads(exec_properties["candidates_json"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        folder = artifact_utils.get_split_uri([examples], "test")
        rows = read_rows(folder, ranking, int(exec_properties["num_rows"]))
        models = {
            name: Path(
                path_utils.serving_model_path(
                    artifact_utils.get_single_uri(input_dict[f"model_{name}"])
                )
            )
            for name in names
        }
        unusual = unusual_rows(ranking, rows, num_rows=len(rows[TIMESTAMP]) // 4)
        memory_bytes = json.loads(exec_properties["memory_bytes"])
        refusals = {n: export_problems(d, memory_bytes=memory_bytes) for n, d in models.items()}
        # A server refuses what the export gate refuses: it would be waited for in vain.
        loadable = {name: models[name] for name in names if not refusals[name]}
        num_compared = 0
        with served(loadable, ranking) if loadable else nullcontext("") as target:
            for name in loadable:
                predictions = Path(
                    artifact_utils.get_single_uri(input_dict[f"predictions_{name}"]),
                    PREDICTIONS_FILE,
                )
                compared, stored = stored_predictions(predictions, ranking, rows)
                num_compared = len(compared[TIMESTAMP])
                with RankingClient(target, name, timeout_seconds=30.0) as client:
                    refusals[name] = [
                        *check(client, ranking, compared, stored),
                        *check_unusual(client, ranking, unusual),
                    ]
        passed = not any(refusals.values())
        artifact = artifact_utils.get_single_instance(output_dict["blessing"])
        artifact.set_int_custom_property("blessed", int(passed))
        write_verdict(
            artifact.uri,
            Verdict(
                "serving_check",
                passed,
                tuple(f"{n}: {'; '.join(r)}" for n, r in refusals.items() if r),
                {
                    "candidates": refusals,
                    "num_rows": num_compared,
                    "num_rows_with_missing": num_with_missing(ranking, rows),
                    "num_unusual_rows": len(next(iter(unusual.values()))),
                },
            ),
        )


def read_rows(folder: str, ranking: RankingSpec, num_rows: int) -> Columns:
    """Reads test rows, as they are.

    Args:
        folder: Examples of the test split.
        ranking: What is ranked.
        num_rows: How many rows to take, spread evenly over the split.

    Returns:
        Request features, key columns and time by example feature name; missing values are the
        empty string or NaN.
    """
    spec: dict[str, Any] = {f.name: _parser(f) for f in ranking.request_features}
    spec |= {
        key_feature(c): tf.io.FixedLenFeature([], tf.string, default_value="")
        for c in ranking.key_columns
    }
    spec[TIMESTAMP] = tf.io.FixedLenFeature([], tf.int64)
    files = sorted(str(file) for file in Path(folder).iterdir())
    records = np.array(
        list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()),
        dtype=object,
    )
    chosen = np.unique(np.linspace(0, len(records) - 1, num=num_rows).round().astype(int))
    parsed = tf.io.parse_example(tf.constant(records[chosen]), spec)
    return {name: values.numpy() for name, values in parsed.items()}


def _parser(feature: Feature) -> Any:
    shape = [] if feature.length is None else [feature.length]
    kind, missing = (tf.string, "") if feature.dtype == "string" else (tf.float32, float("nan"))
    size = feature.length or 1
    return tf.io.FixedLenFeature(shape, kind, default_value=[missing] * size if shape else missing)


def stored_predictions(path: Path, ranking: RankingSpec, rows: Columns) -> tuple[Columns, Columns]:
    """Looks the rows up in a candidate's predictions by time and keys.

    Returns:
        The rows without those that share time and keys with another one of the test split, whose
        predictions nothing tells apart; and predictions by output in the order of these rows, NaN
        for a row that is not there.
    """
    times = pa.array(np.unique(rows[TIMESTAMP]))
    table = pq.read_table(
        path, filters=(pc.field("split") == "test") & pc.field("timestamp").isin(times)
    )
    keys = zip(
        table["timestamp"].to_pylist(),
        *(table[c].to_pylist() for c in ranking.key_columns),
        strict=True,
    )
    positions: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        positions.setdefault(key, []).append(index)
    wanted = zip(
        rows[TIMESTAMP].tolist(),
        *([v.decode() for v in rows[key_feature(c)]] for c in ranking.key_columns),
        strict=True,
    )
    found = [positions.get(key, [-1]) for key in wanted]
    is_single = np.array([len(each) == 1 for each in found])
    indices = np.array([each[0] for each in found if len(each) == 1], dtype=np.int64)
    stored = {}
    for output in ranking.outputs:
        values = table[f"{output.name}__prediction"].to_numpy()
        stored[output.name] = np.where(indices >= 0, values[indices], np.nan)
    return {name: values[is_single] for name, values in rows.items()}, stored


def check(
    client: RankingClient, ranking: RankingSpec, rows: Columns, stored: Columns
) -> Iterator[str]:
    """Compares a served candidate with its stored predictions.

    Yields:
        One sentence per output whose answers differ.
    """
    if not len(rows[TIMESTAMP]):
        yield (
            "no test row was compared: each has the time and keys of another one; give a column "
            "that tells them apart the role key"
        )
        return
    answers = _predicted(client, ranking, rows)
    yield from _differences(ranking, answers, stored, "served values", "the evaluated ones")


def check_unusual(client: RankingClient, ranking: RankingSpec, rows: Columns) -> Iterator[str]:
    """Compares answers to rows with missing and never-seen values, sent in both forms.

    The Evaluator reads tf.Examples; a service sends tensors. Both must mean the same.

    Yields:
        One sentence per output whose answers differ or are not finite.
    """
    tensors = _predicted(client, ranking, rows)
    examples = client.predict_examples(serialized(ranking, rows))
    what = "answers to tensors with missing and never-seen values"
    yield from _differences(ranking, tensors, examples, what, "those to tf.Examples")


def _predicted(client: RankingClient, ranking: RankingSpec, rows: Columns) -> Columns:
    num_rows = len(next(iter(rows.values())))
    batches = [
        client.predict(_inputs(ranking, rows, slice(start, start + _BATCH_ROWS)))
        for start in range(0, num_rows, _BATCH_ROWS)
    ]
    return {o.name: np.concatenate([b[o.name] for b in batches]) for o in ranking.outputs}


def _differences(
    ranking: RankingSpec, found: Columns, expected: Columns, what: str, reference: str
) -> Iterator[str]:
    for each in ranking.outputs:
        got, wanted = (side[each.name].astype(np.float64) for side in (found, expected))
        tolerance = PROBABILITY_TOLERANCE if each.kind == "binary" else VALUE_TOLERANCE
        error = np.abs(got - wanted) / np.maximum(np.abs(wanted), 1e-6)
        wrong = ~(error <= tolerance)
        if wrong.any():
            worst = int(np.nanargmax(np.where(np.isfinite(error), error, np.inf)))
            yield (
                f"{each.name}: {int(wrong.sum())} of {len(got)} {what} differ from {reference} by "
                f"more than {tolerance:g} (worst: {got[worst]:.8g} for {wanted[worst]:.8g})"
            )


def _inputs(ranking: RankingSpec, rows: Columns, chosen: slice) -> Columns:
    inputs = {}
    for feature in ranking.request_features:
        values = rows[feature.name][chosen]
        inputs[feature.name] = values
        inputs |= sequence_lengths(feature, len(values))
    return inputs


@contextmanager
def served(models: Mapping[str, Path], ranking: RankingSpec) -> Iterator[str]:
    """Serves SavedModels from a fresh process on a free loopback port.

    Args:
        models: SavedModel directory by model name.
        ranking: What they rank; warm-up requests are made from it.

    Yields:
        HOST:PORT.

    Raises:
        RuntimeError: The server did not become ready; its last output is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="polyrank-serving-check-") as folder:
        root = Path(folder)
        requests = synthetic_requests(ranking)
        arguments = []
        for name, directory in models.items():
            version = root / name / "1"
            version.parent.mkdir()
            shutil.copytree(directory, version)
            write_warmup(version, requests)
            arguments += ["--model", f"{name}={version.parent}"]
        port_file, log = root / "port", root / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.server", *arguments,
                 "--port", "0", "--port-file", str(port_file), "--until-input-ends"],
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends
                stdout=output, stderr=subprocess.STDOUT,
                cwd=Path(__file__).resolve().parents[2],
            )  # fmt: skip
        try:
            target = f"127.0.0.1:{_wait_for_port(process, port_file, log)}"
            for name in models:
                with RankingClient(target, name) as client:
                    client.wait_until_available(timeout_seconds=_START_SECONDS)
            yield target
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if port_file.exists() and (text := port_file.read_text().strip()):
            return int(text)
        if process.poll() is not None:
            break
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the server for the check did not start: {tail}")
