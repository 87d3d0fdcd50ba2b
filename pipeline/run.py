"""One pipeline run from plan to summary: no-op when done, resumed when killed."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from components.log_example_gen.accounts import UselessData
from models.spec.errors import ConfigError, DataError, PolyrankError, Refused
from pipeline.config import Config
from pipeline.plan import PLAN_FILE, AnyRun, RunPlan, make_plan, unplanned
from pipeline.stored_run import write_inputs
from pipeline.workdir import Workdir, write_atomically

_STDERR = 2


def run(
    config: Config,
    workdir: Workdir,
    *,
    date: str | None = None,
    erase: Path | None = None,
    on_plan: Callable[[RunPlan], None] = lambda plan: None,
    on_change: Callable[[Any], None] = lambda result: None,
) -> tuple[dict[str, Any], bool]:
    """Runs a pipeline.

    Args:
        config: The configuration.
        workdir: Where runs, metadata and models live.
        date: Last day (YYYY-MM-DD, UTC) that the run may see; all there is if None.
        erase: List of people to leave out, one raw id a line.
        on_plan: Called once the run is determined, unless there is nothing to do.
        on_change: Called with a node's result whenever its state changes.

    Returns:
        The summary (its `exit_code` is the command's), and whether the run had been finished
        before (nothing was done).

    Raises:
        ConfigError: Another run holds the work directory, `date` is not a date, or the key for
            people's data is missing.
    """
    try:
        plan = make_plan(config, workdir, date, erase)
    except DataError as fault:
        attempt = unplanned(config, workdir, date, fault)
        with _log_file(workdir.run(attempt.run_id)):
            return _report_fault(attempt, fault), False
    finished = workdir.read_summary(plan.run_id)
    if finished is not None and finished["state"] != "failed":
        return finished, True
    on_plan(plan)
    with _only_run(workdir), _log_file(workdir.run(plan.run_id)):
        write_inputs(plan)
        return _execute(plan, on_change), False


def _execute(plan: RunPlan, on_change: Callable[[Any], None]) -> dict[str, Any]:
    # TFX takes half a minute to import: only a run that has something to do pays for it.
    from pipeline.create import STOPPING_GATES, create_pipeline
    from pipeline.runners.local import NodeResult, run_pipeline
    from pipeline.summary import build_summary

    results: dict[str, NodeResult] = {}
    state = "failed"
    error: str | None = "interrupted"
    exit_code = PolyrankError.exit_code
    accounts: dict[str, Any] = {}
    try:
        run_pipeline(
            create_pipeline(plan),
            plan.run_id,
            stopping_gates=STOPPING_GATES,
            on_change=on_change,
            results=results,
        )
        state, error, exit_code = "succeeded", None, 0
    except Refused as refusal:
        state, error, exit_code = "refused", str(refusal), refusal.exit_code
    except PolyrankError as raised:
        state, error, exit_code = "failed", str(raised), raised.exit_code
        accounts = raised.accounts if isinstance(raised, UselessData) else {}
        logging.getLogger(__name__).exception("the run failed")
    finally:
        summary = build_summary(plan, results, state, error, accounts) | {"exit_code": exit_code}
        _finish(plan, results, summary)
    return summary


def _report_fault(attempt: AnyRun, fault: DataError) -> dict[str, Any]:
    """Writes the summary and the report of logs that no pipeline can be planned on."""
    from pipeline.summary import build_summary

    summary = build_summary(attempt, {}, "failed", str(fault)) | {"exit_code": fault.exit_code}
    _finish(attempt, {}, summary)
    return summary


def _finish(plan: AnyRun, results: dict[str, Any], summary: dict[str, Any]) -> None:
    """Writes what a run leaves outside the DAG; the summary last, as the mark of completion."""
    from pipeline.reporting import write_report
    from pipeline.sample_request import write_sample_request

    folder = plan.workdir.run(plan.run_id)
    _keep_outputs(folder, results)
    write_report(plan, results, summary)
    if isinstance(plan, RunPlan) and summary["state"] == "succeeded" and summary["pushed"]:
        examples = results["LogExampleGen"].outputs["examples"][0]
        write_sample_request(
            Path(examples, "Split-test"),
            plan.config.ranking,
            plan.privacy_record,
            folder / "request.json",
        )
        record = {
            "run_id": plan.run_id,
            "model_name": plan.config.model_name,
            "test_end": plan.window.test_end,
            "version": summary["pushed"]["version"],
            "outputs": {output.name: output.kind for output in plan.config.ranking.outputs},
            "model_uri": results[f"Trainer.{summary['champion']}"].outputs["model"][0],
            "statistics_uri": results["StatisticsGen"].outputs["statistics"][0],
            "accounts_uri": results["LogExampleGen"].outputs["accounts"][0],
        }
        write_atomically(folder / PLAN_FILE, json.dumps(record, indent=1))
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False))


def _keep_outputs(folder: Path, results: dict[str, Any]) -> None:
    """Copies predictions and the as-of snapshot to their contract paths."""
    for name, result in results.items():
        if name.startswith("Scorer.") and result.outputs.get("predictions"):
            target = folder / "predictions" / f"{name.removeprefix('Scorer.')}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(result.outputs["predictions"][0], "predictions.parquet"), target)
    accounts = results.get("LogExampleGen")
    if accounts is not None and accounts.outputs.get("accounts"):
        source = Path(accounts.outputs["accounts"][0])
        if (source / "features").is_dir():
            shutil.copytree(source / "features", folder / "features", dirs_exist_ok=True)
        for file in source.glob("dead_letters*"):
            shutil.copyfile(file, folder / file.name)


@contextmanager
def _only_run(workdir: Workdir) -> Iterator[None]:
    """Holds the work directory: the SQLite metadata store has a single writer.

    The lock belongs to the process and goes with it, so a killed run leaves none behind.
    """
    with (workdir.root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run is using the work directory {workdir.root}",
                constraint="one run at a time, because the metadata store has a single writer",
                remedy="wait for it, or use another --workdir",
            ) from error
        yield


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Sends what the frameworks say to the run's log file; the terminal keeps the progress.

    Log records and Python's warnings go there, and so does what native code and child processes
    write to the standard error of the process, which Python cannot filter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    previous, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with _native_output(path):
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = previous
        root.setLevel(level)
        handler.close()


@contextmanager
def _native_output(path: Path) -> Iterator[None]:
    """Appends to a file what is written to file descriptor 2; `sys.stderr` stays where it was."""
    before = sys.stderr
    before.flush()
    terminal = os.dup(_STDERR)
    with path.open("ab") as log, os.fdopen(terminal, "w", buffering=1) as stderr:
        os.dup2(log.fileno(), _STDERR)
        if _is_native(before):
            sys.stderr = stderr
        try:
            yield
        finally:
            sys.stderr = before
            stderr.flush()
            os.dup2(terminal, _STDERR)


def _is_native(stream: TextIO) -> bool:
    """Whether a stream writes to file descriptor 2; others (a captured one) stay in place."""
    try:
        return stream.fileno() == _STDERR
    except (OSError, ValueError):
        return False
