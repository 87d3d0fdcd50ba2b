"""Runs a pipeline in this process, node by node, under a run id that makes it resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils

from components.verdict import Verdict, read_verdict
from models.spec.errors import PolyrankError, Refused

_log = logging.getLogger(__name__)


@dataclass
class NodeResult:
    """What became of one node.

    Attributes:
        name: Node id.
        state: ``complete``, ``cached``, ``failed`` or ``not_run``.
        seconds: Wall time; for a node that an earlier attempt of this run finished, its own.
        cpu_seconds: CPU time of this process and its children meanwhile.
        peak_rss_bytes: Peak resident memory of this process meanwhile.
        outputs: Artifact URIs by output key.
    """

    name: str
    state: str = "not_run"
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    outputs: dict[str, list[str]] = field(default_factory=dict)


class NodeFailed(PolyrankError):
    """A node raised, or vanished without an execution."""


def run_pipeline(
    pipeline: tfx_pipeline.Pipeline,
    run_id: str,
    *,
    stopping_gates: frozenset[str],
    on_change: Callable[[NodeResult], None] = lambda result: None,
    results: dict[str, NodeResult],
) -> None:
    """Runs every node in order; an interrupted run continues where it stopped.

    Args:
        pipeline: The pipeline; its metadata store must be SQLite (a single writer).
        run_id: Deterministic id: nodes that already succeeded under it are not run again.
        stopping_gates: Ids of gate nodes whose refusal ends the run.
        on_change: Called with a result whenever its state changes (`running` included).
        results: Filled with one result per node, in order, also when this raises.

    Raises:
        Refused: A stopping gate did not bless.
        NodeFailed: A node failed, or was skipped because an input was missing.
    """
    ir = compiler.Compiler().compile(pipeline)
    runtime_parameter_utils.substitute_runtime_parameter(
        ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
    )
    deployment = runner_utils.extract_local_deployment_config(ir)
    connection = getattr(
        deployment.metadata_connection_config,
        deployment.metadata_connection_config.WhichOneof("connection_config"),
    )
    nodes = [node.pipeline_node for node in ir.nodes]
    for node in nodes:
        results[node.node_info.id] = NodeResult(node.node_info.id)
    for node in nodes:
        name = node.node_info.id
        result = results[name]
        result.state = "running"
        on_change(result)
        meter = _Meter()
        started_ms = time.time() * 1000
        try:
            launcher.Launcher(
                pipeline_node=node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=ir.pipeline_info,
                pipeline_runtime_spec=ir.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, name),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
            ).launch()
        except Exception as error:
            result.state = "failed"
            meter.fill(result)
            on_change(result)
            fault = _user_fault(error)
            if fault is not None:
                raise fault from error
            raise NodeFailed(
                f"{name} failed: {type(error).__name__}: {_one_line(error)}",
                remedy="the traceback is in the run's log; fix the cause and run the command again",
            ) from error
        meter.fill(result)
        with metadata.Metadata(connection) as store:
            _read_execution(store.store, ir.pipeline_info.id, run_id, result, started_ms)
        on_change(result)
        if result.state not in ("complete", "cached"):
            raise NodeFailed(
                f"{name} did not run",
                constraint="an execution that is complete or cached",
                received=result.state,
                remedy="an input was missing: see the run's log for the node before it",
            )
        if name in stopping_gates:
            verdict = node_verdict(result)
            if not verdict.passed:
                raise Refused(f"{name} refused: {'; '.join(verdict.reasons)}")


def node_verdict(result: NodeResult) -> Verdict:
    """Reads the verdict that a gate node wrote.

    Raises:
        Refused: There is none: a gate that did not run counts as refused.
    """
    for uri in result.outputs.get("blessing", []):
        try:
            return read_verdict(uri)
        except FileNotFoundError:
            break
    raise Refused(f"{result.name} left no verdict: a gate that did not run counts as refused")


def _user_fault(error: BaseException) -> PolyrankError | None:
    """Finds a fault of ours in a chain of causes: Beam wraps what its workers raise."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        if isinstance(current, PolyrankError):
            return current
        seen.append(current)
        current = current.__cause__ or current.__context__
    return None


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else ""


def _read_execution(
    store: Any, pipeline_id: str, run_id: str, result: NodeResult, started_ms: float
) -> None:
    """Fills in state, outputs and, for what an earlier attempt finished, the time it took then."""
    context = store.get_context_by_type_and_name("node", f"{pipeline_id}.{result.name}")
    run_context = store.get_context_by_type_and_name("pipeline_run", run_id)
    if context is None or run_context is None:
        result.state = "not_run"
        return
    ids = {e.id for e in store.get_executions_by_context(run_context.id)}
    executions = [e for e in store.get_executions_by_context(context.id) if e.id in ids]
    if not executions:
        result.state = "not_run"
        return
    execution = max(executions, key=lambda e: e.id)
    if execution.last_update_time_since_epoch < started_ms:
        lasted_ms = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        result.seconds = round(lasted_ms / 1000, 3)
    states = metadata_store_pb2.Execution
    result.state = {states.COMPLETE: "complete", states.CACHED: "cached"}.get(
        execution.last_known_state, "failed"
    )
    for key, artifact in _outputs(store, execution.id):
        result.outputs.setdefault(key, []).append(artifact.uri)


def _outputs(store: Any, execution_id: int) -> Iterator[tuple[str, Any]]:
    events = [
        event
        for event in store.get_events_by_execution_ids([execution_id])
        if event.type in (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
    ]
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    for event in events:
        key = next((s.key for s in event.path.steps if s.key), "")
        yield key, artifacts[event.artifact_id]


class _Meter:
    """Wall time, CPU time and peak memory of this process tree between two points."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = time.monotonic()
        self._cpu = self._cpu_seconds()
        try:
            # Resets the kernel's high-water mark, so that the peak is this node's own.
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            _log.debug("the peak memory of nodes is that of the process: no /proc/self/clear_refs")

    def fill(self, result: NodeResult) -> None:
        result.seconds = round(time.monotonic() - self._start, 3)
        result.cpu_seconds = round(self._cpu_seconds() - self._cpu, 3)
        result.peak_rss_bytes = self._peak_bytes()

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def _peak_bytes(self) -> int:
        try:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        return int(self._process.memory_info().rss)
