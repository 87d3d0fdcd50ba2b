"""Compares LogExampleGen with TFX's stock path and with the floor; ratios of one run.

    python -m benchmarks.ingestion.measure --impressions 1000000 --rounds 3
    python -m benchmarks.ingestion.measure --contestants ours --pii
    python -m benchmarks.ingestion.measure --scaling 1000000 16000000

Contestants take turns, so that whatever else the machine does meets all of them; each round gives
a ratio of processor times (and of wall times, which other work on the machine disturbs), and the
median of the rounds is reported. Imports are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.spec import DatasetSpec
from pipeline.load import load_config
from pipeline.plan import dataset_privacy, make_dataset
from simulator.simulate import SimulationConfig, simulate

CONFIG = Path(__file__).parents[2] / "examples" / "simulated" / "config.yaml"


_KEY_ENV = "POLYRANK_BENCHMARK_PII_KEY"
_PII = (
    f"privacy={{key_env: {_KEY_ENV}}}",
    *(f"{columns}.user_id.pii=true" for columns in (
        "columns", "logs.streams.clicks.columns", "logs.streams.conversions.columns",
    )),
)  # fmt: skip


def dataset(root: Path, *, plain: bool, pii: bool = False) -> DatasetSpec:
    """The simulated example.

    Args:
        root: Its logs.
        plain: Without features computed from the logs.
        pii: With keyed hashes in the place of user ids, in impressions, clicks and conversions.
    """
    changes = [*(["features={}"] if plain else []), *(_PII if pii else [])]
    config = load_config(CONFIG, [f"logs.root={root}", *changes])
    return make_dataset(config, None, dataset_privacy(config))


def write_joined(spec: DatasetSpec) -> None:
    """Writes the finished table that the stock path is given."""
    for split, frame in build_examples(spec, read_logs(spec)).examples.items():
        folder = spec.root / "joined" / split
        folder.mkdir(parents=True)
        for number, part in enumerate(frame.iter_slices(len(frame) // 4 + 1)):
            part.write_parquet(folder / f"part-{number}.parquet")


def run(name: str, spec: DatasetSpec, cores: int) -> dict[str, float]:
    """Runs a contestant on some cores of its own choice among the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "dataset.json").write_text(spec.model_dump_json())
        finished = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.ingestion.contestants"),
                *(name, str(out / "dataset.json"), folder),
            ],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, range(cores)),
        )
        found: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
        return found


def compare(entries: Mapping[str, tuple[str, DatasetSpec]], rounds: int, cores: int) -> None:
    """Prints times and the ratio of each entry, a contestant on a dataset, to `ours`."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, (contestant, spec) in entries.items():
            times[name].append(run(contestant, spec, cores))
    for name in entries:
        shown = []
        for kind in ("cpu_seconds", "wall_seconds"):
            own = [t[kind] for t in times[name]]
            ratios = [t[kind] / o[kind] for t, o in zip(times[name], times["ours"], strict=True)]
            shown.append(f"{kind} {statistics.median(own):.1f} ({statistics.median(ratios):.2f} x)")
        print(f"{cores} core(s) {name}: {', '.join(shown)}", flush=True)


def main() -> None:
    """Runs the comparison, or the scaling."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--impressions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--contestants", nargs="+", default=["ours", "stock", "floor"])
    parser.add_argument("--features", action="store_true", help="as-of and slate features too")
    parser.add_argument("--pii", action="store_true", help="ours with user ids hashed too")
    parser.add_argument("--scaling", type=int, nargs=2, metavar=("SMALL", "LARGE"))
    arguments = parser.parse_args()
    if arguments.scaling:
        _scaling(*arguments.scaling)
        return
    with tempfile.TemporaryDirectory(prefix="ingestion-") as folder:
        root = Path(folder)
        simulate(SimulationConfig(impressions=arguments.impressions, seed=1), root)
        plain = not arguments.features
        spec = dataset(root, plain=plain)
        if "stock" in arguments.contestants:
            write_joined(spec)
        entries = {name: (name, spec) for name in arguments.contestants}
        if arguments.pii:
            os.environ.setdefault(_KEY_ENV, "a key of this benchmark, hiding nobody")
            entries["ours, user ids hashed"] = ("ours", dataset(root, plain=plain, pii=True))
        for cores in arguments.cores:
            compare(entries, arguments.rounds, cores)


def _scaling(small: int, large: int) -> None:
    found = []
    for impressions in (small, large):
        with tempfile.TemporaryDirectory(prefix="ingestion-") as folder:
            simulate(SimulationConfig(impressions=impressions, seed=1), Path(folder))
            spec = dataset(Path(folder), plain=False)
            found.append(run("ours", spec, 1))
        print(f"{impressions}: {found[-1]}", flush=True)
    ratio = found[1]["cpu_seconds"] / found[0]["cpu_seconds"]
    print(f"{large / small:.0f} x the impressions take {ratio:.1f} x the processor time")


if __name__ == "__main__":
    main()
