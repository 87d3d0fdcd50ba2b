"""The declared score from the outputs of one candidate, without a framework."""

from __future__ import annotations

import math
from collections.abc import Mapping

from models.spec.ranking import RankingSpec

LEAST_DIVISOR = 1e-6
"""Under a negative power values are held above this."""


def fused(ranking: RankingSpec, outputs: Mapping[str, float]) -> float:
    """Computes the score as the exported graph does (`models.fusion.fused_score`), in float64.

    Args:
        ranking: Declares the score.
        outputs: Value by output name, in natural units.
    """
    terms = []
    for name, weight in sorted(ranking.score_weights.items()):
        value = outputs[name]
        if name in ranking.score.log:
            value = math.log1p(max(value, 0.0))
        if ranking.score.kind == "weighted_sum":
            terms.append(weight * value)
        else:
            terms.append(max(value, LEAST_DIVISOR if weight < 0 else 0.0) ** weight)
    return sum(terms) if ranking.score.kind == "weighted_sum" else math.prod(terms)
