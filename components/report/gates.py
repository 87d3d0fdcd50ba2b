"""Gate rows of the summary, in words: which bound, and by how much it was missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from components.report.formatting import ABSENT, metric_label, number, signed, threshold
from components.report.inputs import Json, ReportInputs
from models.spec.metric import METRICS
from models.spec.ranking import RankingSpec

Side = Literal["at least", "at most"]

_SIDES: dict[str, Side] = {"lower": "at least", "upper": "at most"}


@dataclass(frozen=True)
class GateRow:
    """One bound on one metric of one candidate.

    Attributes:
        candidate: The candidate.
        output: The output it is measured on.
        metric: The metric.
        kind: `value`, or `change` against the model pushed for the newest earlier window.
        threshold: The bound; for a change, the signed difference that is still allowed.
        value: What was measured; for a change, the difference (candidate minus that model).
        passed: What the gate decided.
        side: On which side of the threshold the value has to be.
    """

    candidate: str
    output: str
    metric: str
    kind: str
    threshold: float | None
    value: float | None
    passed: bool
    side: Side

    @property
    def bound(self) -> str:
        """The bound in words, such as ``at least .65``."""
        if self.threshold is None:
            return ABSENT
        if self.kind == "change":
            sign = "+" if self.threshold > 0 else ""
            return f"change {self.side} {sign}{threshold(self.threshold)}"
        return f"{self.side} {threshold(self.threshold)}"

    @property
    def measured(self) -> str:
        """The value, or why there is none."""
        if self.value is None:
            return "no baseline" if self.kind == "change" and self.passed else "not measured"
        return signed(self.value) if self.kind == "change" else number(self.value)

    @property
    def miss(self) -> float | None:
        """By how much the value lies on the wrong side; None where it does not."""
        if self.value is None or self.threshold is None:
            return None
        short = (
            self.threshold - self.value if self.side == "at least" else self.value - self.threshold
        )
        return short if short > 0 else None

    @property
    def sentence(self) -> str:
        """The refusal in words; only meaningful where the gate did not pass."""
        what = f"{self.output} {metric_label(self.metric)}"
        if self.value is None:
            return f"{what} was not measured ({self.bound} is required)"
        missed = f", missed by {number(self.miss)}" if self.miss is not None else ""
        if self.kind == "change":
            return (
                f"{what} changed by {self.measured} against the previous window's model "
                f"({self.bound} is allowed{missed})"
            )
        return f"{what} is {self.measured}, required is {self.bound}{missed}"


def gate_rows(inputs: ReportInputs, candidate: str) -> list[GateRow]:
    """Returns the gate rows of a candidate, in the summary's order."""
    return [
        _row(candidate, raw, inputs.ranking)
        for raw in inputs.candidate(candidate).get("gates") or []
    ]


def value_bounds(rows: Sequence[GateRow], output: str, metric: str) -> list[GateRow]:
    """Returns the value gates on one metric of one output, without repeats."""
    found = {
        (row.side, row.threshold): row
        for row in rows
        if (row.output, row.metric, row.kind) == (output, metric, "value")
    }
    return list(found.values())


def _row(candidate: str, raw: Json, ranking: RankingSpec) -> GateRow:
    output, metric = str(raw.get("task")), str(raw.get("metric"))
    kind, threshold = str(raw.get("kind")), _number(raw.get("threshold"))
    side = _SIDES.get(str(raw.get("bound"))) or _side(output, metric, kind, threshold, ranking)
    if kind == "change" and threshold is not None:
        # Written as a size or as a signed bound: a drop is below 0, an increase above.
        threshold = abs(threshold) * (1 if side == "at most" else -1)
    return GateRow(
        candidate=candidate,
        output=output,
        metric=metric,
        kind=kind,
        threshold=threshold,
        value=_number(raw.get("value")),
        passed=bool(raw.get("passed")),
        side=side,
    )


def _side(
    output: str, metric: str, kind: str, threshold: float | None, ranking: RankingSpec
) -> Side:
    """Works out the side of a row that does not name it, from the declared gate and the metric."""
    task = ranking.tasks.get(output)
    gate = task.gates.get(metric) if task else None
    if kind == "value" and gate is not None and threshold is not None:
        if gate.max is not None and abs(gate.max - threshold) < 1e-9:
            return "at most"
        if gate.min is not None and abs(gate.min - threshold) < 1e-9:
            return "at least"
    definition = METRICS.get(metric)
    lower = definition is not None and definition.higher_is_better is False
    return "at most" if lower else "at least"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None
