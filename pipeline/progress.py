"""Live progress of a run on the terminal; plain lines where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from pipeline.plan import RunPlan
    from pipeline.runners.local import NodeResult

_MARKS = {"complete": "[green]done[/]", "cached": "[cyan]cached[/]", "failed": "[red]failed[/]"}


class Progress:
    """Shows one line per component, on standard error: standard output stays for results.

    Args:
        enabled: False shows nothing.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._console = Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:<28}"),
            TextColumn("{task.fields[state]:<18}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[memory]}"),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._start = time.monotonic()

    def __enter__(self) -> Progress:
        """Starts the display."""
        if self._enabled and self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops the display."""
        if self._bars.live.is_started:
            self._bars.stop()

    def plan(self, plan: RunPlan) -> None:
        """Announces the run."""
        if self._enabled:
            self._console.print(f"run {plan.run_id} (loading TFX takes half a minute)")

    def change(self, result: NodeResult) -> None:
        """Shows that a component started or ended."""
        if not self._enabled:
            return
        memory = f"{result.peak_rss_bytes / 2**30:.1f} GiB" if result.peak_rss_bytes else ""
        if not self._console.is_terminal:
            if result.state != "running":
                seconds = f"{result.seconds:7.1f} s"
                print(f"{result.name:<28} {result.state:<9} {seconds}  {memory}", file=sys.stderr)
            return
        if result.name not in self._tasks:
            self._tasks[result.name] = self._bars.add_task(
                result.name, total=1, state="running", memory=""
            )
        if result.state != "running":
            self._bars.update(
                self._tasks[result.name],
                completed=1,
                state=_MARKS.get(result.state, result.state),
                memory=memory,
            )
