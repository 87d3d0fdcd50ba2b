"""What a computed feature means, as a hash that a model and a feature snapshot are compared by."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from models.spec.expression import referenced_columns

if TYPE_CHECKING:
    from models.spec.feature import AsOf, Rate
    from models.spec.ranking import RankingSpec
    from models.spec.strict import Strict

_MEANING = {"type", "availability", "source", "join", "expression", "known_after", "pii"}
"""What of a column decides its values; roles, encodings and notes do not."""

_HASH_CHARACTERS = 16


def feature_definitions(ranking: RankingSpec) -> dict[str, str]:
    """Hashes the definitions of the as-of features and rates that a model takes.

    Those that requests carry (`source: logged`) are left out: nobody fills them in.

    Args:
        ranking: Declares them.

    Returns:
        Hash by name, sorted; empty for a model without such features.
    """
    taken = {feature.name for feature in ranking.rank_inputs}
    return {name: d for name, d in computed_definitions(ranking).items() if name in taken}


def computed_definitions(ranking: RankingSpec) -> dict[str, str]:
    """Hashes the definitions of all computed as-of features and rates, inputs of a model or not.

    Of an as-of feature: events, entity, aggregate, value, condition, window, lag, length, the
    value without events, and the impressions' columns that it reads, with what these are computed
    from. Of a rate: its prior and the definitions of its two sides. A column that only the stream
    carries counts by its name.

    Args:
        ranking: Declares them.

    Returns:
        Hash by name, sorted.
    """
    found = {}
    for name, feature in sorted(ranking.features.items()):
        if feature.source != "computed":
            continue
        if feature.as_of is not None:
            found[name] = _hash(_as_of_meaning(feature.as_of, ranking))
        elif feature.rate is not None:
            found[name] = _hash(_rate_meaning(feature.rate, ranking))
    return found


def _as_of_meaning(feature: AsOf, ranking: RankingSpec) -> dict[str, Any]:
    read = {*feature.entity, *((feature.value,) if feature.value else ())}
    if feature.where is not None:
        read |= referenced_columns(feature.where)
    columns: dict[str, Any] = {}
    while names := sorted(read & set(ranking.columns) - set(columns)):
        for name in names:
            column = ranking.columns[name]
            columns[name] = _declared(column, include=_MEANING)
            read |= referenced_columns(column.expression) if column.expression else set()
    return _declared(feature) | {"default": feature.default, "columns": columns}


def _rate_meaning(rate: Rate, ranking: RankingSpec) -> dict[str, Any]:
    sides = {}
    for side in (rate.numerator, rate.denominator):
        as_of = ranking.features[side].as_of if side in ranking.features else None
        sides[side] = None if as_of is None else _as_of_meaning(as_of, ranking)
    return _declared(rate) | {"sides": sides}


def _declared(model: Strict, include: set[str] | None = None) -> dict[str, Any]:
    """Leaves defaults out: an option that a later version adds changes no hash unless it is set."""
    return model.model_dump(mode="json", include=include, exclude_defaults=True)


def _hash(meaning: dict[str, Any]) -> str:
    text = json.dumps(meaning, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARACTERS]
