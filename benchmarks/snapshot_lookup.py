"""How fast as-of features are looked up: the run's file against a Parquet file read into a table.

    python -m benchmarks.snapshot_lookup [--entities 1000000]

Prints seconds to open, memory afterwards, and microseconds a batch; everything in one process
after the other, so that ratios hold whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NUM_FEATURES = 10
BATCH = 500
REPEATS = 50

_MEASURE = """
import json, sys, time
import numpy as np
path, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
keys = [[f"item{i}" for i in np.random.default_rng(r).integers(0, count, 500)] for r in range(50)]
if kind == "lookup":
    from serving.snapshot import FeatureSnapshot
else:
    import polars as pl
start = time.process_time()
if kind == "lookup":
    opened = FeatureSnapshot.open(path)
    ask = lambda batch: opened.look_up(list(opened.features), {"item_id": batch}).values
else:
    table = pl.read_parquet(path)
    ask = lambda batch: pl.DataFrame({"item_id": batch}).join(table, on="item_id", how="left")
open_seconds = time.process_time() - start
ask(keys[0])
start = time.process_time()
for batch in keys:
    ask(batch)
batch_seconds = (time.process_time() - start) / len(keys)
# Not getrusage: its peak is inherited from the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "open_ms": 1e3 * open_seconds, "batch_us": 1e6 * batch_seconds,
    "peak_mib": int(peak.split()[1]) / 1024,
}))
"""


def write(folder: Path, count: int) -> dict[str, Path]:
    """Writes the same entities in both forms."""
    import polars as pl

    from serving.snapshot_format import EntitySet, Numbers, Texts, write_snapshot

    rng = np.random.default_rng(0)
    names = [f"feature_{i}" for i in range(NUM_FEATURES)]
    values = {name: rng.poisson(5, count).astype(np.float64) for name in names}
    keys = [f"item{i}" for i in range(count)]
    frame = pl.DataFrame({"item_id": keys, **values})
    frame.write_parquet(folder / "items.parquet")
    start = time.process_time()
    items = EntitySet(
        ("item_id",),
        Texts.of([key.encode() for key in keys]),
        tuple(Numbers(name, name, values[name], 0.0, False) for name in names),
    )
    write_snapshot(folder / "snapshot.lookup", 0, [items], [])
    print(f"written in {time.process_time() - start:.1f} CPU seconds")
    return {"lookup": folder / "snapshot.lookup", "parquet": folder / "items.parquet"}


def main() -> None:
    """Measures both and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=1_000_000)
    count = parser.parse_args().entities
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), count)
        found = {}
        for kind, path in paths.items():
            command = [sys.executable, "-c", _MEASURE, str(path), kind, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[kind] = json.loads(done.stdout) | {"mib": path.stat().st_size / 2**20}
    print(f"{count:,} entities, {NUM_FEATURES} features, batches of {BATCH}, CPU time")
    for kind, row in found.items():
        print(
            f"{kind:8} {row['mib']:7.1f} MiB  open {row['open_ms']:9.2f} ms  "
            f"batch {row['batch_us']:9.0f} us  peak memory {row['peak_mib']:6.0f} MiB"
        )
    for name in ("open_ms", "batch_us", "peak_mib"):
        print(f"{name}: parquet / lookup = {found['parquet'][name] / found['lookup'][name]:.1f}")


if __name__ == "__main__":
    main()
