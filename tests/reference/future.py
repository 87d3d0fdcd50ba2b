"""Rewrites everything that happens from a moment on: the raw logs of a different future.

    python -m tests.reference.future --impressions 1000000

runs LogExampleGen on hard logs and on the same logs with another future, looking at the world at
that moment, and compares every byte of every example.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from components.log_example_gen.spec import DatasetSpec
from tests.reference.exactness import SPLITS, digest, hard_dataset, make_logs, run_measured
from tests.reference.hard_logs import Layout, write_shuffled
from tests.reference.small_logs import Row

DAY_MS = 86_400_000


def other_future_of_rows(
    logs: Mapping[str, list[Row]], at: int, seed: int, *, last: int
) -> dict[str, list[Row]]:
    """Changes small logs from a moment on.

    Rows at or after it get other times and values, some vanish, some come twice, events join other
    impressions. So does what is known of earlier impressions only then: `rated`, after 3 ms.

    Args:
        logs: Rows by stream.
        at: The moment.
        seed: Of the draw.
        last: No changed row comes after this time.
    """
    draw = random.Random(seed)
    changed: dict[str, list[Row]] = {}
    for name, rows in logs.items():
        changed[name] = [dict(row) for row in rows if row["time"] is None or row["time"] < at]
        for row in rows:
            if row["time"] is None or row["time"] < at:
                continue
            for _ in range(draw.choice([0, 1, 1, 2])):
                other = dict(row) | {"time": draw.randint(at, max(at, last))}
                for column in ("seconds", "amount", "rating", "price", "rated"):
                    if column in other:
                        other[column] = draw.choice([99, 0, None])
                for key in ("item_id", "user_id"):
                    if key in other and draw.random() < 0.5:
                        other[key] = draw.choice(rows)[key]
                changed[name].append(other)
    for row in changed["impressions"]:
        if "rated" in row and row["time"] is not None and row["time"] < at < row["time"] + 3:
            row["rated"] = 2
    return changed


def other_future(logs: Mapping[str, pl.DataFrame], at: int, seed: int) -> dict[str, pl.DataFrame]:
    """Changes large logs from a moment on: half of the rows vanish, the others change all over.

    Args:
        logs: Rows by stream.
        at: The moment, in milliseconds.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    changed = {}
    for name, frame in logs.items():
        is_after = (frame["timestamp"] >= at).fill_null(False)
        after = frame.filter(is_after)
        kept = after[rng.permutation(len(after))[: len(after) // 2]]
        # Keys are dealt anew, so that events belong to other impressions, also earlier ones.
        donors = frame.drop_nulls(["request_id"])
        keys = [key for key in ("request_id", "item_id") if key in frame.columns]
        dealt = donors[rng.integers(0, len(donors), len(kept))].select(keys)
        floats = [n for n, dtype in frame.schema.items() if dtype == pl.Float64]
        other = kept.with_columns(
            *dealt.get_columns(),
            *(pl.Series(n, rng.uniform(-5, 500, len(kept))) for n in floats),
            pl.Series("timestamp", at + rng.integers(0, 3 * DAY_MS, len(kept))),
        )
        changed[name] = pl.concat([frame.filter(~is_after), other])
    return changed


def seen_at(spec: DatasetSpec, at: int) -> DatasetSpec:
    """Lets a dataset look at the world at a moment: nothing later exists."""
    ends = {"test_end": at, "train_cutoff": min(spec.window.train_cutoff, at), "cutoff": at}
    return spec.model_copy(update={"window": spec.window.model_copy(update=ends)})


def main() -> None:
    """Compares two futures at any size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--impressions", type=int, default=1_000_000)
    parser.add_argument("--hot-events", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="future-") as name:
        folder = Path(name)
        logs = make_logs(folder / "simulated", arguments.impressions, arguments.hot_events)
        found = []
        for number in range(2):
            root, out = folder / f"logs-{number}", folder / f"out-{number}"
            write_shuffled(logs, root, Layout(num_files=5, seed=number))
            spec = hard_dataset(root, 4)
            if number == 0:
                window = spec.window
                at = window.test_start + DAY_MS // 2
                logs = other_future(logs, at, seed=1)
            spec = seen_at(spec.model_copy(update={"window": window}), at)
            run_measured(spec, out)
            found.append({split: digest(out)[split] for split in SPLITS})
        assert found[0] == found[1], found
        rows = sum(count for count, _ in found[0].values())
        print(f"{rows} examples before the moment, all of them byte-identical")


if __name__ == "__main__":
    main()
