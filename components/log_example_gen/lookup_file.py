"""From the snapshot's tables to the file that clients look features up in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from components.log_example_gen.plan import Plan
from models.spec.definition import computed_definitions
from models.spec.feature import AsOf
from serving.snapshot_format import (
    KEY_SEPARATOR,
    EntitySet,
    Lists,
    Numbers,
    RateOf,
    Texts,
    write_snapshot,
)

_SEPARATOR = pa.scalar(KEY_SEPARATOR, pa.large_binary())


def write_lookup(
    plan: Plan, tables: Iterable[tuple[tuple[str, ...], pl.DataFrame]], path: Path
) -> None:
    """Writes the as-of snapshot as a look-up file.

    Args:
        plan: Features, rates, cut-off.
        tables: Entity columns and the snapshot of each entity set, taken one at a time.
        path: The file.
    """
    definitions = computed_definitions(plan.ranking)
    rates = [
        RateOf(
            name,
            definitions[name],
            feature.rate.numerator,
            feature.rate.denominator,
            feature.rate.prior_rate,
            feature.rate.prior_strength,
        )
        for name, feature in sorted(plan.ranking.features.items())
        if feature.rate is not None
        and {feature.rate.numerator, feature.rate.denominator} <= set(plan.as_of_features)
    ]
    sets = (_entity_set(plan, definitions, entity, frame) for entity, frame in tables)
    write_snapshot(path, plan.window.cutoff, sets, rates)


def _entity_set(
    plan: Plan, definitions: Mapping[str, str], entity: tuple[str, ...], frame: pl.DataFrame
) -> EntitySet:
    keys = [frame[name].to_arrow().cast(pa.large_binary()) for name in entity]
    joined = keys[0] if len(keys) == 1 else pc.binary_join_element_wise(*keys, _SEPARATOR)
    # A logged feature comes with the request; our own computation of it does not stand in for it.
    features = [
        _feature(name, definitions[name], feature, frame[name])
        for name, feature in plan.features_of(entity).items()
        if name in plan.ranking.features
    ]
    return EntitySet(entity, _texts(joined), tuple(features))


def _feature(name: str, definition: str, feature: AsOf, values: pl.Series) -> Numbers | Lists:
    if feature.aggregate != "last_values":
        return Numbers(
            name,
            definition,
            values.fill_null(float("nan")).to_numpy(),
            default=float("nan") if feature.default is None else feature.default,
            elapses=feature.aggregate in ("age", "recency"),
        )
    lists = values.rechunk().to_arrow().cast(pa.large_list(pa.large_string()))
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    encoded = lists.values.dictionary_encode()
    return Lists(
        name,
        definition,
        lists.offsets.to_numpy(),
        encoded.indices.to_numpy().astype(np.int64),
        _texts(encoded.dictionary.cast(pa.large_binary())),
    )


def _texts(values: pa.Array | pa.ChunkedArray) -> Texts:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    array = array.cast(pa.large_binary())
    _, offsets, content = array.buffers()
    if offsets is None:
        return Texts.of([])
    ends = np.frombuffer(offsets, np.int64)[array.offset :][: len(array) + 1]
    data = np.frombuffer(content, np.uint8) if content else np.zeros(0, np.uint8)
    return Texts(data[ends[0] : ends[-1]], ends - ends[0])
