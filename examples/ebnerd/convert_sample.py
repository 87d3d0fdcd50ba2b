"""Cuts the flat EB-NeRD sample (one week) into the two-folder layout of the data set.

    python examples/ebnerd/convert_sample.py --sample FOLDER --out FOLDER [--days 2]

The sample has one behaviors.parquet and one history.parquet. Impressions of the last `--days` days
go to validation/, earlier ones to train/; both get the whole history, as in the data set, where the
two histories overlap too (polyrank drops exact duplicates and joins histories as of each
impression).
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq


def convert(sample: Path, out: Path, days: float) -> dict[str, int]:
    """Writes `out/train` and `out/validation`.

    Args:
        sample: Folder with behaviors.parquet and history.parquet.
        out: Folder to write.
        days: Length of the validation part.

    Returns:
        Number of slates by part.
    """
    behaviors = pq.read_table(sample / "behaviors.parquet")
    history = pq.read_table(sample / "history.parquet")
    times = behaviors["impression_time"]
    cut = pc.max(times).as_py() - datetime.timedelta(days=days)
    in_validation = pc.greater(times, cut)
    counts = {}
    for part, mask in (("train", pc.invert(in_validation)), ("validation", in_validation)):
        folder = out / part
        folder.mkdir(parents=True, exist_ok=True)
        rows = behaviors.filter(mask)
        pq.write_table(rows, folder / "behaviors.parquet")
        pq.write_table(history, folder / "history.parquet")
        counts[part] = rows.num_rows
    return counts


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path, required=True, help="folder of the flat sample")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--days", type=float, default=2.0, help="validation part (default 2)")
    options = parser.parse_args()
    for part, count in convert(options.sample, options.out, options.days).items():
        print(f"{part}: {count} slates")


if __name__ == "__main__":
    main()
