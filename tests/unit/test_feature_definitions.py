"""The hash of a feature changes with what the feature means, and with nothing else."""

from __future__ import annotations

import pytest

from models.spec.definition import computed_definitions, feature_definitions
from tests.reference import small_logs


def definitions(*changes: tuple[str, str]) -> dict[str, str]:
    text = small_logs.SLATES
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return computed_definitions(small_logs.parse(text)[1])


def changed_by(*changes: tuple[str, str]) -> set[str]:
    before, after = definitions(), definitions(*changes)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # Everything that an as-of feature declares.
        ("entity: item_id, aggregate: count, window: 7ms}",
         "entity: item_id, aggregate: count, window: 8ms}", {"item_clicks", "rate"}),
        ("availability_lag: 2ms", "availability_lag: 3ms", {"item_clicks_late"}),
        ("seconds > 0.5", "seconds > 0.6", {"item_mean"}),
        ("events: clicks, entity: user_id, aggregate: recency",
         "events: clicks, entity: user_id, aggregate: age", {"user_recency"}),
        ("events: history, entity: user_id, aggregate: mean, value: rating",
         "events: history, entity: user_id, aggregate: mean, value: user_id", {"user_rated"}),
        ("exposures: {as_of: {events: impressions", "exposures: {as_of: {events: clicks",
         {"exposures", "rate"}),
        ("entity: [user_id, category]", "entity: [user_id, item_id]", {"user_category"}),
        ("length: 3", "length: 4", {"user_items"}),
        ("prior_rate: 0.1", "prior_rate: 0.2", {"rate"}),
        ("prior_strength: 2", "prior_strength: 3", {"rate"}),
        # The columns it reads, and what these are computed from.
        ("join: {stream: clicks, aggregate: any, window: 6ms}",
         "join: {stream: clicks, aggregate: any, window: 5ms}", {"user_clicked"}),
        ("known_after: 3ms", "known_after: 2ms", {"item_praise"}),
        ("category: {type: string, availability: request",
         "category: {type: string, availability: request, source: section", {"user_category"}),
        # What it does not depend on.
        ("tags: {type: \"list[string]\", availability: request, role: feature, max_length: 2}",
         "tags: {type: \"list[string]\", availability: request, role: feature, max_length: 1}",
         set()),
        ("category: {type: string, availability: request, role: feature}",
         "category: {type: string, availability: request, role: feature, description: x}", set()),
        ("gates: {auc: {min: 0}}", "gates: {auc: {min: 0.1}}", set()),
        ("exposures: {as_of:", "exposures: {encoding: {kind: quantiles}, as_of:", set()),
    ],
)  # fmt: skip
def test_a_change_is_seen_where_it_matters(old: str, new: str, expected: set[str]) -> None:
    assert changed_by((old, new)) == expected


def test_the_expressions_behind_a_column_count() -> None:
    reads = ("user_clicked: {as_of: {events: impressions, entity: user_id, aggregate: count,\n"
             "                         where: clicked}}",
             "user_clicked: {as_of: {events: impressions, entity: user_id, aggregate: count,\n"
             "                         where: praised}}")  # fmt: skip
    before = definitions(reads)
    for old, new in (("rated > 3", "rated > 4"), ("known_after: 3ms", "known_after: 4ms")):
        after = definitions(reads, (old, new))
        assert after["user_clicked"] != before["user_clicked"]
        assert after["item_clicks"] == before["item_clicks"]


def test_definitions_are_the_same_in_every_process() -> None:
    """Snapshots and models outlive processes and versions of this code."""
    assert definitions()["item_clicks"] == "b6b967c682fb3472"


def test_a_model_tells_of_the_features_it_takes() -> None:
    ranking = small_logs.parse(
        small_logs.SLATES.replace("exposures: {as_of", "exposures: {feature: false, as_of").replace(
            "user_rated: {as_of", "user_rated: {source: logged, as_of"
        )
    )[1]
    told = feature_definitions(ranking)
    assert {"rate", "item_clicks", "user_items"} <= told.keys()
    assert not {"exposures", "user_rated", "rate_rank", "price"} & told.keys()
