"""The plan of a run: everything that determines it, fixed before the first node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.log_example_gen.fingerprint import fingerprint_logs
from components.log_example_gen.pseudonyms import read_erasure
from components.log_example_gen.source_files import num_shards_needed
from components.log_example_gen.spec import DatasetPrivacy, DatasetSpec, Window
from components.log_example_gen.window import resolve_window
from models.spec.errors import ConfigError, PolyrankError
from models.spec.pii_key import PiiKey
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
        accounts_uri: What became of its rows.
    """

    run_id: str
    model_uri: str
    statistics_uri: str
    outputs: Mapping[str, str]
    accounts_uri: str


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
        privacy: How people's data are hidden and who is left out, where a column is pii.
    """

    config: Config
    workdir: Workdir
    window: Window
    fingerprint: str
    run_id: str
    baseline: Baseline | None
    privacy: DatasetPrivacy | None

    @property
    def dataset(self) -> DatasetSpec:
        """The specification of the examples."""
        return dataset_of(self.config, self.window, self.privacy)

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
            "privacy": self.privacy_record,
        }

    @property
    def privacy_record(self) -> dict[str, Any] | None:
        """What may be told about people's data: which columns, which key, how many erased."""
        privacy = self.privacy
        if privacy is None:
            return None
        erasure = privacy.erasure
        return {
            "columns": list(self.config.pii_inputs),
            "key_env": privacy.key_env,
            "hash_characters": privacy.hash_characters,
            "key_fingerprint": privacy.key_fingerprint,
            "person": privacy.person,
            "erased": erasure and {"ids": erasure.count, "list_hash": erasure.digest},
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
    privacy_record: None = None


AnyRun = RunPlan | UnplannedRun


def config_hash(config: Config) -> str:
    """Hashes a configuration by content: comments and the place of the logs do not count."""
    return value_hash(config.model_dump(mode="json", exclude={"logs": {"root"}}))


def dataset_privacy(config: Config, erase: Path | None = None) -> DatasetPrivacy | None:
    """Says how a configuration's pii columns are hidden; None without one.

    Args:
        config: The configuration.
        erase: List of people to leave out, one raw id a line.

    Raises:
        ConfigError: The key is missing or too short, or nothing says who a person is.
        DataError: The list cannot be read.
    """
    privacy = config.privacy
    if privacy is None:
        if erase is not None:
            raise ConfigError(
                "--erase needs to know which column identifies a person",
                constraint="`privacy` in the configuration, and `pii: true` on that column",
                remedy=f"declare privacy: {{key_env: ...}} and columns.{config.user}.pii: true",
            )
        return None
    if erase is not None and not config.columns[config.person].pii:
        raise ConfigError(
            f"--erase compares hashes of column {config.person!r}, which is not pii",
            constraint="a pii column that identifies a person",
            remedy=f"set columns.{config.person}.pii: true, or name another in privacy.person",
        )
    key = PiiKey.from_environment(privacy.key_env, privacy.hash_characters)
    return DatasetPrivacy(
        key_env=privacy.key_env,
        hash_characters=privacy.hash_characters,
        key_fingerprint=key.fingerprint,
        person=config.person,
        erasure=read_erasure(erase, key) if erase is not None else None,
    )


def make_dataset(
    config: Config, date: str | None, privacy: DatasetPrivacy | None = None
) -> DatasetSpec:
    """Resolves the window and returns the specification of the examples.

    Args:
        config: The configuration.
        date: Last day (YYYY-MM-DD, UTC) to see, or None for all there is.
        privacy: How people's data are hidden, where a column is pii.

    Raises:
        DataError: The logs cannot be used.
    """
    root = Path(config.logs.root)
    window = resolve_window(config.logs, config.splits, config.ranking, root, date)
    return dataset_of(config, window, privacy)


def dataset_of(config: Config, window: Window, privacy: DatasetPrivacy | None) -> DatasetSpec:
    """Returns the specification of the examples of a window."""
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
        privacy=privacy,
    )


def make_plan(
    config: Config, workdir: Workdir, date: str | None, erase: Path | None = None
) -> RunPlan:
    """Resolves the window, fingerprints the logs and finds the baseline.

    Args:
        config: The configuration.
        workdir: Where the run will live.
        date: Last day (YYYY-MM-DD, UTC) that the run may see, or None for all there is.
        erase: List of people to leave out, one raw id a line.

    Raises:
        ConfigError: The key for people's data is missing.
        DataError: The logs or the list cannot be used.
    """
    privacy = dataset_privacy(config, erase)
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
    if privacy is not None:
        # Of the list its content counts, not where it lies.
        erased = privacy.erasure and privacy.erasure.digest
        identity["privacy"] = {"key": privacy.key_fingerprint, "erased": erased}
    return RunPlan(
        config=config,
        workdir=workdir,
        window=window,
        fingerprint=fingerprint,
        run_id=f"{config.name}-{value_hash(identity)}",
        baseline=_find_baseline(config, workdir, window),
        privacy=privacy,
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
        accounts_uri=record["accounts_uri"],
    )
