"""What the declaration of the score alone tells."""

from __future__ import annotations

from models.spec.ranking import RankingSpec


def score_warnings(ranking: RankingSpec) -> list[str]:
    """Names a score that adds outputs of different kinds and that nobody has weighed.

    Seconds beside probabilities decide alone: 20 seconds more outweigh any click.
    """
    kinds = {name: ranking.tasks[name].kind for name in ranking.served_tasks}
    if ranking.score.weights or ranking.score.kind != "weighted_sum":
        return []
    if len(set(kinds.values())) < 2:
        return []
    told = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    return [
        f"score: adds {told} with a weight of 1 each, though their units differ, so that the "
        "largest numbers decide the order; declare score.weights"
    ]
