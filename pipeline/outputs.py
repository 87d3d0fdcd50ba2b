"""The served outputs of a ranking problem as the evaluation needs them."""

from __future__ import annotations

from models.spec.keys import key_feature
from models.spec.ranking import RankingSpec
from models.spec.task import Gate as TaskGate
from pipeline.evaluation import EvalOutput, Gate


def eval_outputs(ranking: RankingSpec) -> tuple[EvalOutput, ...]:
    """Derives the evaluation's outputs and gates from the task list.

    Args:
        ranking: What is ranked.

    Returns:
        One entry per served output, auxiliary tasks left out.
    """
    return tuple(
        EvalOutput(
            name=output.name,
            label_key=output.label_key,
            weight_key=output.weight_key,
            group_key=key_feature(ranking.group_column),
            cluster_key=key_feature(ranking.user),
            metrics=output.metrics,
            gates=tuple(g for metric, gate in output.gates for g in _gates(metric, gate)),
        )
        for output in ranking.outputs
    )


def _gates(metric: str, gate: TaskGate) -> list[Gate]:
    gates = []
    if gate.min is not None or gate.max is not None:
        gates.append(Gate(metric, lower_bound=gate.min, upper_bound=gate.max))
    for worsening in (gate.max_drop, gate.max_increase):
        if worsening is not None:
            gates.append(Gate(metric, max_worsening=worsening))
    return gates
