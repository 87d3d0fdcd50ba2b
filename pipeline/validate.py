"""`polyrank validate`: the logs a configuration names, checked without running anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from components.data_gate.accounts import account_reasons, impossible_label_warnings
from components.data_gate.score import score_warnings
from components.log_example_gen.accounts import dead_text, refuse_useless
from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.reader import Limits, ReadResult, scan_times
from components.log_example_gen.row_names import time_column
from components.log_example_gen.source_files import list_files
from components.log_example_gen.spec import Source
from models.spec.errors import DataError
from models.spec.feature import HashEncoding, QuantileEncoding, VocabularyEncoding
from models.spec.ranking import IMPRESSIONS
from pipeline.config import Config
from pipeline.plan import dataset_privacy, make_dataset

_WHOLE_BYTES = 400_000_000
"""Logs up to this size are read whole, in seconds; of larger ones only the times are."""
_MAX_SHOWN = 300
_BYTES_PER_WEIGHT = 4
_OPTIMIZER_COPIES = 3
"""Adam keeps two moments beside each weight."""


def check_logs(config: Config) -> Iterator[str]:
    """Reads the logs of a configuration and describes them.

    Args:
        config: A valid configuration.

    Yields:
        Lines for people: rows and dead letters, days covered, label rates, embedding tables, and
        what the DataGate of a run would refuse by counting.

    Raises:
        ConfigError: The key for people's data is missing.
        DataError: Files are missing or no time is valid; of logs that are read whole, also columns
            are missing, types are wrong, too many rows are dead, a split is empty or a gated task
            has no mature train row.
    """
    privacy = dataset_privacy(config)
    root = Path(config.logs.root)
    sources: dict[str, Source] = {IMPRESSIONS: config.logs.impressions, **config.logs.streams}
    num_bytes = sum(
        Path(file.path).stat().st_size
        for name, source in sources.items()
        for file in list_files(root, source, stream_name=name)
    )
    yield f"logs        {num_bytes / 1e6:.1f} MB under {root}"
    if num_bytes > _WHOLE_BYTES:
        yield (
            f"            larger than {_WHOLE_BYTES / 1e6:.0f} MB: times are checked, other "
            "columns, label rates and tables are not"
        )
        private = config.logs.private_streams(config.ranking)
        for name, source in sources.items():
            times = scan_times(
                root,
                source,
                stream_name=name,
                limits=Limits.of(config.logs),
                withheld=name in private,
            )
            yield _coverage(name, np.asarray(times))
        return
    dataset = make_dataset(config, date=None, privacy=privacy)
    logs = read_logs(dataset)
    yield from _streams(config, logs)
    built = build_examples(dataset, logs)
    yield from _joined(built, logs)
    refuse_useless(built.accounts)
    yield from _labels(config, built)
    warnings = impossible_label_warnings(config.ranking, built.accounts)
    for text in [*score_warnings(config.ranking), *warnings]:
        yield f"WARNING     {text}"
    yield from _tables(config, built)
    reasons = account_reasons(config.ranking, built.accounts, config.data_limits)
    # No fault of the logs: a sample of them, to try a configuration on, has too little of much.
    for reason in reasons:
        yield f"WARNING     the DataGate would refuse a run on these logs: {reason}"
    if untrained := _untrained(config, built):
        raise DataError("\n".join(untrained))


def _streams(config: Config, logs: Mapping[str, ReadResult]) -> Iterator[str]:
    for name, result in logs.items():
        dead = result.dead.num_rows
        yield f"{name:<11} {result.num_read} rows, {dead} dead letters, {len(result.files)} files"
        if dead:
            reasons = dead_text(Counter(result.dead["reason"].to_pylist()), result.misfits)
            yield f"            dead: {reasons}"
        if dead > config.data_checks.max_dead_rate * max(result.num_read, 1):
            raise DataError(
                f"{dead} of {result.num_read} rows of {name!r} are dead letters ({reasons})",
                constraint=f"at most {config.data_checks.max_dead_rate:.1%} of a stream "
                "(data_checks.max_dead_rate)",
                received=_example(result),
                remedy="look at the declared types and time_unit of this stream, and whether its "
                "text is UTF-8",
            )
        yield _coverage(name, np.asarray(result.table[time_column(name)]))


def _example(log: ReadResult) -> str:
    """Shows the first dead letter; people's data are hashes there."""
    first = log.dead.slice(0, 1).to_pylist()[0]
    shown = first["raw"]
    shown = shown[: _MAX_SHOWN - 3] + "..." if len(shown) > _MAX_SHOWN else shown
    return f"for example row {first['row']} of {first['file']}, {first['reason']}: {shown}"


def _joined(built: BuiltExamples, logs: Mapping[str, ReadResult]) -> Iterator[str]:
    """Says what became of rows that could be read, of logs where not all were used."""
    for name, rows in built.accounts["rows"].items():
        unreadable = Counter(logs[name].dead["reason"].to_pylist())
        dead = Counter(rows["dead"]) - unreadable
        if dead or rows["duplicates"]:
            told = f", dead: {dead_text(dead, {})}" if dead else ""
            yield f"{name:<11} {rows['used']} used, {rows['duplicates']} duplicates{told}"


def _coverage(name: str, times_ms: Any) -> str:
    """Says which days a stream covers, and which are missing between the first and the last."""
    if len(times_ms) == 0:
        return f"{name:<11} no valid row"
    days = np.unique(times_ms.astype(np.int64) // 86_400_000)
    missing = sorted(set(range(days[0], days[-1] + 1)) - set(days.tolist()))
    text = f"            {_day(days[0])} to {_day(days[-1])}"
    if missing:
        shown = ", ".join(_day(d) for d in missing[:5]) + (", ..." if len(missing) > 5 else "")
        text += f"; WARNING: {len(missing)} days without a row: {shown}"
    return text


def _day(number: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(days=int(number))
    return moment.date().isoformat()


def _labels(config: Config, built: BuiltExamples) -> Iterator[str]:
    counts = built.accounts["examples"]
    yield (
        f"examples    train {counts['train']}, validation {counts['validation']}, "
        f"test {counts['test']}, outside {counts['outside']}"
    )
    for output in config.ranking.all_outputs:
        by_split = built.accounts["labels"][output.name]["by_split"]
        parts = []
        for split, label in by_split.items():
            mean = label["sum"] / label["mature"] if label["mature"] else float("nan")
            parts.append(f"{split} {mean:.4g} of {label['mature']} rows")
        yield f"label mean  {output.name}: {', '.join(parts)}"


def _untrained(config: Config, built: BuiltExamples) -> list[str]:
    """Names gated tasks that have nothing to learn from."""
    reasons = []
    for output in config.ranking.outputs:
        counts = built.accounts["labels"][output.name]["by_split"]["train"]
        if output.gates and not counts["mature"]:
            mask = config.ranking.tasks[output.task].mask
            reasons.append(
                f"task {output.task}: none of the {counts['rows']} train rows"
                f"{f' with {mask} true' if mask else ''} has a mature label; remedy: check the "
                "target's source or join, or declare a longer splits.label_cutoff or a shorter "
                "window"
            )
    return reasons


def _tables(config: Config, built: BuiltExamples) -> Iterator[str]:
    train = built.examples["train"]
    for feature in config.ranking.training_features:
        encoding = feature.encoding
        if isinstance(encoding, VocabularyEncoding) and feature.name in train.columns:
            counts = train[feature.name].explode().value_counts()["count"]
            kept = int((counts >= encoding.min_count).sum())
            num_rows = min(kept, encoding.max_size) + encoding.oov_buckets + 1
        elif isinstance(encoding, HashEncoding | QuantileEncoding):
            num_rows = encoding.buckets + 1
        else:
            continue
        size = num_rows * encoding.dimension * _BYTES_PER_WEIGHT * _OPTIMIZER_COPIES
        yield (
            f"table       {feature.name}: {num_rows} x {encoding.dimension}, "
            f"{size / 1e6:.1f} MB while training"
        )
