"""Compares LogExampleGen with the SQL of `duckdb_reference`, row for row, at any size.

    python -m tests.reference.exactness --impressions 4000000 --shards 1 7 64

Each number of shards gets files of its own (another order of rows, another number of files) and a
process of its own, whose memory and processor time are measured. All must give the same examples.
The smaller runs of `--sizes` show how time grows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from components.log_example_gen.source_files import num_shards_needed
from components.log_example_gen.spec import DatasetSpec
from models.spec.ranking import RankingSpec
from pipeline.load import load_config
from pipeline.plan import make_dataset
from simulator.simulate import SimulationConfig, simulate
from tests.reference.duckdb_reference import EXTRA, KEYS, ROUNDED, write_expected
from tests.reference.hard_logs import Layout, hard_logs, write_shuffled

CONFIG = Path(__file__).parents[2] / "examples" / "simulated" / "config.yaml"
SPLITS = ("train", "validation", "test")
_MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """What one run of the component took.

    Attributes:
        wall_seconds: From start to end of its process, imports included.
        cpu_seconds: Of the process and its children.
        peak_mib: Most resident memory of the process tree at one moment, sampled.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def hard_dataset(root: Path, num_shards: int) -> DatasetSpec:
    """Describes hard logs, as the simulated example with `EXTRA` features.

    The last two days are cut off, so that some events come too late and labels are immature.
    There are as many shards as asked for, also where a run would take more for its memory's sake.
    """
    config = load_config(CONFIG, [f"logs.root={root}", f"beam.num_shards={num_shards}", *EXTRA])
    whole = make_dataset(config, None, None)
    start = whole.window.train_start
    day = 86_400_000
    window = whole.window.model_copy(
        update={
            "train_start": start + day // 2,
            "validation_start": start + 4 * day,
            "test_start": start + 5 * day,
            "test_end": start + 6 * day,
            "train_cutoff": start + 4 * day + day // 4,
            "cutoff": start + 6 * day + day // 2,
        }
    )
    return whole.model_copy(update={"window": window, "num_shards": num_shards})


def make_logs(folder: Path, impressions: int, hot_events: int) -> dict[str, pl.DataFrame]:
    """Simulates hard logs of 7 days."""
    simulate(SimulationConfig(impressions=impressions, seed=3), folder)
    return hard_logs(folder, hot_events=hot_events)


def run_measured(spec: DatasetSpec, out: Path, arguments: tuple[str, ...] = ()) -> Measured:
    """Runs the component in a process of its own."""
    import psutil

    out.mkdir(parents=True)
    (out / "spec.json").write_text(spec.model_dump_json())
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.reference.generate", str(out), *arguments],
        stdout=subprocess.DEVNULL,
    )
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(watched))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"LogExampleGen failed with exit code {process.returncode}")
    cpu_seconds = json.loads((out / "cpu.json").read_text())
    return Measured(time.monotonic() - started, cpu_seconds, peak / _MIB)


def _resident(process: Any) -> int:
    import psutil

    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


# Comparison ------------------------------------------------------------------------------------


def example_frames(out: Path, ranking: RankingSpec) -> Iterator[tuple[str, pl.DataFrame]]:
    """Decodes the written examples file by file, with TensorFlow's own reader and tfx-bsl's coder.

    Yields:
        Split and columns; sequences as lists.
    """
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    lengths = {f.name: f.length for f in [*ranking.rank_inputs, *ranking.training_features]}
    decoder = example_coder.ExamplesToRecordBatchDecoder()
    for split in SPLITS:
        for path in sorted((out / "examples" / f"Split-{split}").glob("*.gz")):
            dataset = tf.data.TFRecordDataset(str(path), compression_type="GZIP").batch(65_536)
            parts = [
                pl.DataFrame(decoder.DecodeBatch(batch)) for batch in dataset.as_numpy_iterator()
            ]
            frame = pl.concat(parts, how="diagonal_relaxed")
            texts = [n for n, t in frame.schema.items() if t == pl.List(pl.Binary)]
            frame = frame.with_columns(pl.col(name).cast(pl.List(pl.String)) for name in texts)
            scalars = [name for name in frame.columns if not lengths.get(name)]
            yield split, frame.with_columns(pl.col(name).list.first() for name in scalars)


def compare(out: Path, expected_path: Path, ranking: RankingSpec) -> dict[str, int]:
    """Compares every column of every row.

    Returns:
        Rows compared, by split.

    Raises:
        AssertionError: The first column that differs, with some rows.
    """
    expected = pl.scan_parquet(expected_path)
    counts = dict.fromkeys(SPLITS, 0)
    names = set(expected.collect_schema()) - {"split"}
    keys = [f"{key}__key" for key in KEYS]
    for split, found in example_frames(out, ranking):
        assert set(found.columns) == names, set(found.columns) ^ names
        wanted = expected.filter(pl.col("split") == split).join(
            found.lazy().select(keys), on=keys, how="semi"
        )
        pairs = found.join(wanted.collect(), on=keys, how="left", suffix="__wanted", validate="1:1")
        assert pairs["split"].null_count() == 0, f"rows that the reference has not, in {split}"
        for name in sorted(names - set(keys)):
            _assert_same(pairs, name, split)
        counts[split] += len(found)
    per_split = expected.group_by("split").len().collect()
    assert counts == dict(per_split.iter_rows()), (counts, per_split)
    return counts


def _assert_same(pairs: pl.DataFrame, name: str, split: str) -> None:
    found, wanted = pairs[name], pairs[f"{name}__wanted"]
    same = found.eq_missing(wanted)
    if name in ROUNDED:
        numbers, others = found.cast(pl.Float64), wanted.cast(pl.Float64)
        close = (numbers - others).abs() <= 1e-9 + 5e-7 * others.abs()
        same = same | close.fill_null(False)
    if not same.all():
        shown = pairs.filter(~same).select("request_id__key", "item_id__key", name, wanted.name)
        raise AssertionError(f"{split} {name}: {(~same).sum()} rows differ\n{shown.head(5)}")


def digest(out: Path) -> dict[str, Any]:
    """Condenses everything a run wrote, in a form that the order of rows and files cannot change.

    Returns:
        For each split the number of examples and the sum of their hashes; the accounts; the hash
        of every snapshot; the dead letters without their place.
    """
    import tensorflow as tf

    found: dict[str, Any] = {}
    for split in SPLITS:
        total, count = 0, 0
        for path in sorted((out / "examples" / f"Split-{split}").glob("*.gz")):
            dataset = tf.data.TFRecordDataset(str(path), compression_type="GZIP").batch(4096)
            for batch in dataset.as_numpy_iterator():
                for record in batch:
                    total += int.from_bytes(hashlib.blake2b(record, digest_size=16).digest())
                count += len(batch)
        found[split] = (count, total % 2**128)
    accounts = out / "accounts"
    found["accounts"] = json.loads((accounts / "accounts.json").read_text())
    found["features"] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((accounts / "features").iterdir())
    }
    dead = pl.read_parquet(accounts / "dead_letters.parquet").drop("file", "row")
    found["dead"] = hashlib.sha256(repr(sorted(dead.rows())).encode()).hexdigest()
    return found


def assert_accounts(out: Path, expected: dict[str, dict[str, int]]) -> None:
    """Compares the fate of every row, by stream and reason."""
    rows = json.loads((out / "accounts" / "accounts.json").read_text())["rows"]
    found = {
        name: {k: n for k, n in counts.items() if k != "dead"} | counts["dead"]
        for name, counts in rows.items()
    }
    assert found == expected, (found, expected)


# Command ---------------------------------------------------------------------------------------


def main() -> None:
    """Runs the comparison and prints a line per run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--impressions", type=int, default=4_000_000)
    parser.add_argument("--hot-events", type=int, default=100_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[7, 1, 64])
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument(
        "--max-mib",
        type=float,
        default=4096,
        help="refuse more memory, with as many shards as a run takes or more (default 4096)",
    )
    arguments = parser.parse_args()
    for size in [*arguments.sizes, arguments.impressions]:
        shards = arguments.shards if size == arguments.impressions else arguments.shards[:1]
        with tempfile.TemporaryDirectory(prefix="exactness-") as folder:
            _compare_size(Path(folder), size, shards, arguments)


def _compare_size(
    folder: Path, impressions: int, shards: list[int], arguments: argparse.Namespace
) -> None:
    logs = make_logs(folder / "simulated", impressions, arguments.hot_events)
    digests = []
    for number, num_shards in enumerate(shards):
        root, out = folder / f"logs-{number}", folder / f"out-{number}"
        write_shuffled(logs, root, Layout(num_files=7 + 6 * number, seed=number))
        spec = hard_dataset(root, num_shards)
        if number == 0:
            (folder / "reference").mkdir()
            expected = write_expected(root, spec.window.model_dump(), folder / "reference")
        workers = (
            ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
            if number % 2
            else ()
        )
        measured = run_measured(spec, out, workers)
        counts = compare(out, folder / "reference" / "examples.parquet", spec.ranking)
        assert_accounts(out, expected)
        digests.append(digest(out))
        assert digests[-1] == digests[0], "other bytes for another order, split or sharding"
        print(
            f"{impressions} impressions, {num_shards} shards, {7 + 6 * number} files: "
            f"{sum(counts.values())} rows equal; cpu {measured.cpu_seconds:.1f} s, "
            f"wall {measured.wall_seconds:.1f} s, peak {measured.peak_mib:.0f} MiB",
            flush=True,
        )
        is_bounded = num_shards >= num_shards_needed(spec.logs, root)
        if is_bounded and measured.peak_mib > arguments.max_mib:
            raise SystemExit(f"peak memory above {arguments.max_mib:.0f} MiB")


if __name__ == "__main__":
    main()
