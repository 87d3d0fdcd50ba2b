"""The audit lock: as-of features and labels of some examples, recomputed from the raw logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.leakage_gate.example_rows import SPLIT, Key, first_values
from components.leakage_gate.raw_world import ROW, RawWorld, equal, key_text, quoted
from components.leakage_gate.recomputed_features import RecomputedFeatures
from components.leakage_gate.recomputed_labels import label_query, rows_across_the_train_cutoff
from models.spec.keys import TIMESTAMP, key_feature

RELATIVE_TOLERANCE = 1e-5
_ABSOLUTE_TOLERANCE = 1e-6
"""For values that should be 0: examples hold float32."""

_EXAMPLE = "example__row"
_BOUNDARY_SHARE = 0.25
_CUTOFF_SHARE = 0.25


@dataclass(frozen=True)
class AuditResult:
    """What the audit found.

    Attributes:
        reasons: One for each feature or output that differs, and for rows that do not match.
        num_rows: Rows compared.
        num_by_split: The same, by split.
        compared: Names of the features and outputs compared.
    """

    reasons: tuple[str, ...]
    num_rows: int
    num_by_split: dict[str, int]
    compared: tuple[str, ...]


def telling_rows(world: RawWorld, num_rows: int) -> frozenset[Key]:
    """Chooses the impressions in which a leak would show first.

    A quarter of the audit goes to impressions with an event exactly at the edge of an as-of
    window (only there do `<` and `<=` differ), a quarter to train impressions whose attribution
    windows reach past the train cut-off.

    Args:
        world: The raw logs.
        num_rows: Size of the whole audit.

    Returns:
        Their keys.
    """
    recomputed = RecomputedFeatures(world)
    as_of = [n for n in recomputed.names if world.ranking.features[n].as_of is not None]
    per_feature = max(1, int(num_rows * _BOUNDARY_SHARE / max(len(as_of), 1)))
    queries = [recomputed.rows_at_boundaries(name, per_feature) for name in as_of]
    queries.append(rows_across_the_train_cutoff(world, max(1, int(num_rows * _CUTOFF_SHARE))))
    chosen = " UNION ".join(f"SELECT {ROW} FROM ({query})" for query in queries)
    table = world.fetch(
        f"SELECT {TIMESTAMP}, {_key_columns(world)} FROM impressions "
        f"WHERE {ROW} IN ({chosen}) ORDER BY {ROW}"
    )
    columns = [column.to_pylist() for column in table.columns]
    return frozenset(
        (row[0], *(text.encode() for text in row[1:])) for row in zip(*columns, strict=True)
    )


def audit(world: RawWorld, rows: pa.Table, missing: frozenset[Key]) -> AuditResult:
    """Compares examples with the raw logs.

    Args:
        world: The raw logs.
        rows: Examples, as `ExampleRows` reads them.
        missing: Keys of telling rows that no example has.
    """
    rows = rows.append_column(_EXAMPLE, pa.array(np.arange(len(rows))))
    pairs = _match(world, rows)
    expected = _expected(world, pairs)
    differences = _differences(world, rows, expected)
    reasons = _row_reasons(world, rows, expected, missing)
    example = expected[_EXAMPLE].to_numpy()
    differs = np.stack([*differences.values(), np.zeros(len(example), bool)], axis=1)
    best = _best_match(example, differs.sum(axis=1))
    for name, wrong in differences.items():
        at = best[wrong[best]]
        if len(at):
            reasons.append(_difference_reason(world, rows, name, example[at], len(best)))
    split = rows[SPLIT].take(pa.array(example[best])).to_pylist()
    return AuditResult(
        tuple(reasons),
        len(best),
        {name: split.count(name) for name in sorted(set(split))},
        tuple(differences),
    )


def _key_columns(world: RawWorld) -> str:
    types = world.impression_types
    return ", ".join(
        f"coalesce({key_text(column, types[column])}, '') AS {quoted(key_feature(column))}"
        for column in world.ranking.key_columns
    )


def _match(world: RawWorld, rows: pa.Table) -> pa.Table:
    """Finds the impressions with an example's time and keys: `example__row` and `row__id`."""
    names = [key_feature(column) for column in world.ranking.key_columns]
    keys = {name: first_values(rows[name]).fill_null(b"").cast(pa.string()) for name in names}
    keys[TIMESTAMP] = first_values(rows[TIMESTAMP])
    keys[_EXAMPLE] = rows[_EXAMPLE].combine_chunks()
    world.add("example__keys", pa.table(keys))
    return world.fetch(
        f"SELECT e.{_EXAMPLE}, i.{ROW} FROM example__keys e "
        f"JOIN (SELECT {ROW}, {TIMESTAMP}, {_key_columns(world)} FROM impressions) i "
        f"ON {equal('e', 'i', [TIMESTAMP, *names])} ORDER BY ALL"
    )


def _expected(world: RawWorld, pairs: pa.Table) -> pa.Table:
    """Recomputes features and labels of the matched impressions."""
    world.add("example__pairs", pairs)
    features = RecomputedFeatures(world).compute("example__pairs")
    labels = label_query(world, "example__pairs")
    return world.fetch(
        f"FROM example__pairs JOIN ({features}) USING ({ROW}) JOIN ({labels}) USING ({ROW}) "
        f"ORDER BY {_EXAMPLE}, {ROW}"
    )


def _differences(
    world: RawWorld, rows: pa.Table, expected: pa.Table
) -> dict[str, NDArray[np.bool_]]:
    """Compares what examples say with what the raw logs say, per pair of both."""
    position = pa.array(expected[_EXAMPLE].to_numpy())
    differences: dict[str, NDArray[np.bool_]] = {}
    for name in RecomputedFeatures(world).names:
        if name not in rows.column_names:
            continue
        said = rows[name].combine_chunks().take(position)
        if world.ranking.ingredient(name).dtype == "string":
            differences[name] = _lists_differ(said, expected[name])
        else:
            differences[name] = _numbers_differ(first_values(said), expected[name])
    for output in world.ranking.all_outputs:
        differences[output.name] = np.zeros(len(position), bool)
        for key in (output.label_key, output.mask_key):
            said = first_values(rows[key]).take(position)
            differences[output.name] |= _numbers_differ(said, expected[key])
    return differences


def _numbers_differ(said: pa.Array, expected: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Compares numbers; a missing one equals a missing one only."""
    a = said.to_numpy(zero_copy_only=False).astype(np.float64)
    b = expected.to_numpy().astype(np.float64)
    near = np.isclose(a, b, rtol=RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE, equal_nan=True)
    differs: NDArray[np.bool_] = ~near
    return differs


def _lists_differ(said: pa.Array, expected: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Compares lists of text; padding at the end does not count."""
    pairs = zip(said.to_pylist(), expected.to_pylist(), strict=True)
    return np.array(
        [_unpadded(a or []) != _unpadded([text.encode() for text in b or []]) for a, b in pairs],
        bool,
    )


def _unpadded(values: list[bytes]) -> list[bytes]:
    length = len(values)
    while length and not values[length - 1]:
        length -= 1
    return values[:length]


def _best_match(example: NDArray[np.int64], num_different: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns, for each example, the position of the impression that fits it best.

    Keys kept in examples may not tell two impressions of one moment apart.
    """
    order = np.lexsort((num_different, example))
    _, first = np.unique(example[order], return_index=True)
    return order[first]


def _row_reasons(
    world: RawWorld, rows: pa.Table, expected: pa.Table, missing: frozenset[Key]
) -> list[str]:
    remedy = "remedy: report it as a defect of the ingestion; its examples are not to be trusted"
    reasons = []
    unknown = np.setdiff1d(np.arange(len(rows)), expected[_EXAMPLE].to_numpy())
    if len(unknown):
        reasons.append(
            f"examples: {len(unknown)} of {len(rows)} audited rows are in no raw log, e.g. "
            f"{_row_name(world, rows, int(unknown[0]))}; expected every example to be an "
            f"impression of the logs; {remedy}"
        )
    if missing:
        time, *keys = min(missing)
        names = dict(zip(world.ranking.key_columns, keys, strict=True))
        reasons.append(
            f"examples: {len(missing)} impressions of the raw logs that lie in the windows are in "
            f"no split, e.g. {_named(world, time, names)}; expected every impression to be an "
            f"example or a dead letter; {remedy}"
        )
    return reasons


def _difference_reason(
    world: RawWorld, rows: pa.Table, name: str, wrong: NDArray[np.int64], num_rows: int
) -> str:
    example = _row_name(world, rows, int(wrong[0]))
    if name in world.ranking.features:
        what = f"column {name}"
        rule = (
            "the statistic of events strictly before the impression less the availability_lag, "
            "one millisecond included"
        )
    else:
        output = next(o for o in world.ranking.all_outputs if o.name == name)
        what = f"task {output.task}, output {name}"
        rule = (
            "a label from events before the cut-off of its split, masked where its attribution "
            "window had not closed by then"
        )
    return (
        f"{what}: differs from the raw logs in {len(wrong)} of {num_rows} audited rows, limit 0, "
        f"e.g. {example}; expected {rule}, as recomputed from the raw logs by an independent "
        "query; remedy: the examples know more than they may, or something else: report it as a "
        "defect of the ingestion, and train on nothing until it is mended"
    )


def _row_name(world: RawWorld, rows: pa.Table, position: int) -> str:
    row = rows.slice(position, 1)
    keys = {
        column: first_values(row[key_feature(column)])[0].as_py()
        for column in world.ranking.key_columns
    }
    return _named(world, first_values(row[TIMESTAMP])[0].as_py(), keys)


def _named(world: RawWorld, time: object, keys: Mapping[str, object]) -> str:
    """Names a row by the keys of its impression, and nothing else of it."""
    own = [c for c in world.dataset.logs.impressions.key if c in keys]
    shown = {c: keys[c] for c in own or keys}
    values = ", ".join(
        f"{c}={v.decode(errors='replace') if isinstance(v, bytes) else v}" for c, v in shown.items()
    )
    return f"the impression {values} at {time} ms"
