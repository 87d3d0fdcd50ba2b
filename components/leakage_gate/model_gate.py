"""The decision about exported models, free of TFX."""

from __future__ import annotations

from collections.abc import Mapping

from components.leakage_gate.model_lock import model_reasons
from components.leakage_gate.saved_model import read_exported_graph
from components.verdict import Verdict
from models.spec.errors import PolyrankError
from models.spec.ranking import RankingSpec

NAME = "model_leakage_gate"


def judge_models(ranking: RankingSpec, models: Mapping[str, str]) -> Verdict:
    """Decides whether exported models see request features only.

    Args:
        ranking: The allow-lists.
        models: SavedModel folder by candidate name.

    Returns:
        A verdict that passes when every candidate does; `details["candidates"]` lists the reasons
        against each, none for a clean one.
    """
    candidates: dict[str, list[str]] = {}
    for name, directory in sorted(models.items()):
        try:
            candidates[name] = model_reasons(ranking, read_exported_graph(directory))
        except PolyrankError as error:
            candidates[name] = [str(error)]
    reasons = [f"candidate {name}: {text}" for name in candidates for text in candidates[name]]
    if not candidates:
        reasons = ["no candidate to check; expected at least one; remedy: report it as a defect"]
    return Verdict(NAME, not reasons, tuple(reasons), {"candidates": candidates})
