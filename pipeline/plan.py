"""The plan of a run: everything that determines it, fixed before the first node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.log_example_gen.fingerprint import fingerprint_logs
from components.log_example_gen.source_files import num_shards_needed
from components.log_example_gen.spec import DatasetSpec, Window
from components.log_example_gen.window import resolve_window
from models.spec.errors import PolyrankError
from pipeline.code_hash import code_hash, lock_hash, value_hash
from pipeline.config import Config
from pipeline.workdir import Workdir

PLAN_FILE = "plan.json"
CODE = ("models", "components", "serving", "pipeline")


@dataclass(frozen=True)
class Baseline:
    """The model that change gates compare with: the one pushed for the newest earlier window.

    Attributes:
        run_id: The run that pushed it.
        model_uri: Its Trainer's Model artifact.
        statistics_uri: The statistics of that run's examples.
        outputs: Kind of task by output; a config that changed since may have others.
    """

    run_id: str
    model_uri: str
    statistics_uri: str
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class RunPlan:
    """One run, determined.

    Attributes:
        config: The configuration.
        workdir: Where it runs.
        window: Its times.
        fingerprint: Hash of the contents of the logs.
        run_id: Deterministic id.
        baseline: What change gates compare with, if there is an earlier pushed window.
    """

    config: Config
    workdir: Workdir
    window: Window
    fingerprint: str
    run_id: str
    baseline: Baseline | None

    @property
    def dataset(self) -> DatasetSpec:
        """The specification of the examples."""
        return _dataset(self.config, self.window)

    @property
    def baseline_outputs(self) -> tuple[str, ...]:
        """The outputs that the baseline has too, of the same kind; none without a baseline."""
        known = self.baseline.outputs if self.baseline else {}
        return tuple(o.name for o in self.config.ranking.outputs if known.get(o.name) == o.kind)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where a model of this run comes from; goes into its manifest."""
        return {
            "pipeline": self.config.name,
            "config_hash": config_hash(self.config),
            "code_hash": code_hash(*CODE),
            "lock_hash": lock_hash(),
            "data_hash": self.fingerprint,
            "window": self.window.model_dump(),
        }


@dataclass(frozen=True)
class UnplannedRun:
    """A run whose logs could not even be dated: enough to say so in a summary and a report.

    Attributes:
        config: The configuration.
        workdir: Where the summary goes.
        run_id: Deterministic id: the same fault in the same logs has the same one.
    """

    config: Config
    workdir: Workdir
    run_id: str
    window: None = None
    baseline: None = None


AnyRun = RunPlan | UnplannedRun


def config_hash(config: Config) -> str:
    """Hashes a configuration by content: comments and the place of the logs do not count."""
    return value_hash(config.model_dump(mode="json", exclude={"logs": {"root"}}))


def make_dataset(config: Config, date: str | None) -> DatasetSpec:
    """Resolves the window and returns the specification of the examples.

    Args:
        config: The configuration.
        date: Last day (YYYY-MM-DD, UTC) to see, or None for all there is.

    Raises:
        DataError: The logs cannot be used.
    """
    root = Path(config.logs.root)
    return _dataset(config, resolve_window(config.logs, config.splits, config.ranking, root, date))


def _dataset(config: Config, window: Window) -> DatasetSpec:
    slices = dict.fromkeys(c for names in config.evaluation.slices for c in names)
    root = Path(config.logs.root)
    return DatasetSpec(
        root=root,
        logs=config.logs,
        splits=config.splits,
        ranking=config.ranking.examples_view,
        window=window,
        slice_columns=tuple(slices),
        num_shards=max(config.beam.num_shards, num_shards_needed(config.logs, root)),
    )


def make_plan(config: Config, workdir: Workdir, date: str | None) -> RunPlan:
    """Resolves the window, fingerprints the logs and finds the baseline.

    Args:
        config: The configuration.
        workdir: Where the run will live.
        date: Last day (YYYY-MM-DD, UTC) that the run may see, or None for all there is.

    Raises:
        DataError: The logs cannot be used.
    """
    root = Path(config.logs.root)
    fingerprint = fingerprint_logs(config.logs, root)
    window = resolve_window(config.logs, config.splits, config.ranking, root, date)
    identity = {
        "pipeline": config.name,
        "window": window.model_dump(),
        "config": config_hash(config),
        "code": code_hash(*CODE),
        "data": fingerprint,
    }
    return RunPlan(
        config=config,
        workdir=workdir,
        window=window,
        fingerprint=fingerprint,
        run_id=f"{config.name}-{value_hash(identity)}",
        baseline=_find_baseline(config, workdir, window),
    )


def unplanned(
    config: Config, workdir: Workdir, date: str | None, fault: PolyrankError
) -> UnplannedRun:
    """Names a run that `make_plan` could not plan.

    Args:
        config: The configuration.
        workdir: Where the summary goes.
        date: As for `make_plan`.
        fault: What it raised.
    """
    identity = {"config": config_hash(config), "date": date, "fault": str(fault)}
    return UnplannedRun(config, workdir, f"{config.name}-{value_hash(identity)}")


def _find_baseline(config: Config, workdir: Workdir, window: Window) -> Baseline | None:
    """Finds the newest window strictly before this one whose model was pushed."""
    records = [
        json.loads(path.read_text()) for path in (workdir.root / "runs").glob(f"*/{PLAN_FILE}")
    ]
    earlier = [
        record
        for record in records
        if record["model_name"] == config.model_name and record["test_end"] < window.test_end
    ]
    if not earlier:
        return None
    # Of several pushes for one window the last one counts: versions increase strictly.
    record = max(earlier, key=lambda record: (record["test_end"], record["version"]))
    return Baseline(
        run_id=record["run_id"],
        model_uri=record["model_uri"],
        statistics_uri=record["statistics_uri"],
        outputs=record["outputs"],
    )
