"""Gates and outputs as declared, and their verdicts from plain numbers."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from models.spec.errors import ConfigError
from pipeline.evaluation import EvalOutput, Gate, GateRow, OutputMetrics, gate_rows


def output_with(*gates: Gate) -> EvalOutput:
    return EvalOutput(
        name="click",
        label_key="click__label",
        weight_key="click__weight",
        group_key="request__key",
        cluster_key="user__key",
        metrics=("auc", "log_loss", "calibration"),
        gates=gates,
    )


def measured(**values: float) -> OutputMetrics:
    return {"click": {m: {"value": v, "low": None, "high": None} for m, v in values.items()}}


def verdict(
    gate: Gate, metrics: OutputMetrics, changes: OutputMetrics | None = None
) -> list[tuple[float, str]]:
    rows = gate_rows(metrics, [output_with(gate)], changes)
    return [(row.threshold, row.outcome) for row in rows]


def test_both_bounds_are_decided_apart_and_hold_at_equality() -> None:
    gate = Gate("calibration", lower_bound=0.9, upper_bound=1.1)
    assert verdict(gate, measured(calibration=0.9)) == [(0.9, "passed"), (1.1, "passed")]
    assert verdict(gate, measured(calibration=1.2)) == [(0.9, "passed"), (1.1, "refused")]


@pytest.mark.parametrize(
    ("metric", "change", "row"),
    [
        ("auc", -0.01, (-0.01, "passed")),
        ("auc", -0.02, (-0.01, "refused")),
        ("auc", 0.5, (-0.01, "passed")),
        ("log_loss", 0.01, (0.01, "passed")),
        ("log_loss", 0.02, (0.01, "refused")),
        ("log_loss", -0.5, (0.01, "passed")),
    ],
)
def test_a_change_gate_looks_in_the_worse_direction(
    metric: str, change: float, row: tuple[float, str]
) -> None:
    gate = Gate(metric, max_worsening=0.01)
    assert verdict(gate, measured(**{metric: 0.5}), measured(**{metric: change})) == [row]


def test_without_a_baseline_a_defined_metric_passes_as_no_baseline() -> None:
    (row,) = gate_rows(measured(auc=0.7), [output_with(Gate("auc", max_worsening=0.01))])
    assert row == GateRow("click", "auc", "change", "lower", -0.01, None, "no_baseline")
    assert row.passed


@pytest.mark.parametrize("changes", [None, measured(auc=math.nan), {}])
def test_an_undefined_metric_passes_no_change_gate(changes: OutputMetrics | None) -> None:
    gate = Gate("auc", max_worsening=0.01)
    assert verdict(gate, measured(auc=math.nan), changes) == [(-0.01, "refused")]


@pytest.mark.parametrize("metrics", [measured(auc=math.nan), measured(log_loss=0.5), {}])
def test_an_undefined_or_missing_metric_passes_no_value_gate(metrics: OutputMetrics) -> None:
    (row,) = gate_rows(metrics, [output_with(Gate("auc", lower_bound=0.0))])
    assert (row.outcome, row.passed, row.value) == ("refused", False, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "has no bound"),
        ({"lower_bound": 0.5, "max_worsening": 0.1}, "has both kinds"),
        ({"max_worsening": -0.1}, "demands an improvement"),
        ({"max_worsening": math.nan}, "demands an improvement"),
    ],
)
def test_a_gate_is_of_one_kind(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Gate("auc", **arguments)


@pytest.mark.parametrize("metric", ["calibration", "num_rows", "nonsense"])
def test_a_change_gate_needs_a_better_direction(metric: str) -> None:
    with pytest.raises(ConfigError, match="cannot tell better from worse"):
        Gate(metric, max_worsening=0.1)


def test_a_gate_on_an_unreported_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not report, did you mean 'auc'"):
        output_with(Gate("gauc", lower_bound=0.5))


def test_counts_can_be_gated() -> None:
    assert output_with(Gate("num_rows", lower_bound=500)).gates[0].kind == "value"


def test_importing_the_module_imports_no_tensorflow() -> None:
    code = "import pipeline.evaluation, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
