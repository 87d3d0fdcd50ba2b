"""What a run was made from, kept beside its summary so that it can be explained later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.log_example_gen.spec import DatasetPrivacy, DatasetSpec, Window
from models.spec.errors import ConfigError, unknown
from pipeline.config import Config
from pipeline.plan import RunPlan, dataset_of
from pipeline.workdir import Workdir, write_atomically

INPUTS_FILE = "inputs.json"


def write_inputs(plan: RunPlan) -> None:
    """Writes `inputs.json`: configuration, window, hash of the logs; no key and no list."""
    privacy = plan.privacy
    record = {
        "config": plan.config.model_dump(mode="json"),
        "window": plan.window.model_dump(),
        "privacy": privacy and privacy.model_dump(exclude={"erasure"}),
        "data_hash": plan.fingerprint,
    }
    write_atomically(plan.workdir.run(plan.run_id) / INPUTS_FILE, json.dumps(record, indent=1))


@dataclass(frozen=True)
class StoredRun:
    """A run of the past.

    Attributes:
        run_id: Its id.
        folder: Its folder.
        config: Its configuration, with the folder of the logs as it is now.
        window: Its times.
        privacy: How its people's data are hidden, without the erasure list.
        data_hash: Hash of its logs.
        summary: Its summary.
    """

    run_id: str
    folder: Path
    config: Config
    window: Window
    privacy: DatasetPrivacy | None
    data_hash: str
    summary: dict[str, Any]

    @classmethod
    def open(cls, workdir: Workdir, run_id: str | None, logs_root: Path | None) -> StoredRun:
        """Reads a finished run.

        Args:
            workdir: The work directory.
            run_id: The run; the one that finished last if None.
            logs_root: Where its logs are now; where they were if None.

        Raises:
            ConfigError: There is no such run, or it left no `inputs.json`.
        """
        finished = {
            path.parent.name: path
            for path in workdir.root.glob("runs/*/summary.json")
            if (path.parent / INPUTS_FILE).exists()
        }
        if not finished:
            raise ConfigError(
                f"no run in {workdir.root} can be explained",
                constraint=f"a run that ended, with its {INPUTS_FILE}",
                remedy="give the --workdir of such a run",
            )
        if run_id is None:
            run_id = max(finished, key=lambda each: finished[each].stat().st_mtime_ns)
        if run_id not in finished:
            raise ConfigError(unknown("run", run_id, finished), remedy="see `polyrank status`")
        folder = workdir.run(run_id)
        record = json.loads((folder / INPUTS_FILE).read_text())
        if logs_root is not None:
            record["config"]["logs"]["root"] = str(logs_root)
        privacy = record["privacy"]
        return cls(
            run_id=run_id,
            folder=folder,
            config=Config.model_validate_json(json.dumps(record["config"])),
            window=Window.model_validate(record["window"]),
            privacy=DatasetPrivacy.model_validate(privacy) if privacy is not None else None,
            data_hash=record["data_hash"],
            summary=json.loads(finished[run_id].read_text()),
        )

    @property
    def dataset(self) -> DatasetSpec:
        """The specification of its examples; nobody is erased in it."""
        return dataset_of(self.config, self.window, self.privacy)
