"""Labels and masks computed a second time, from their definitions."""

from __future__ import annotations

from components.leakage_gate.raw_world import ROW, RawWorld, quoted
from components.log_example_gen.row_names import EVENT_TIMESTAMP
from models.spec.keys import TIMESTAMP
from models.spec.task import Output, Task

_LARGEST_FLOAT32 = 3.4028234663852886e38
"""Examples hold labels in float32."""


def label_query(world: RawWorld, rows: str) -> str:
    """Writes the query for the labels and masks of some impressions.

    A label counts where it is final before the cut-off of the row's split, known, possible and in
    the task's sample space; a label that does not count is 0.

    Args:
        world: The raw logs.
        rows: Table of `row__id`.

    Returns:
        A query for `row__id` and, for every output, its label and mask as numbers.
    """
    window, ranking = world.dataset.window, world.ranking
    relation = (
        f"(SELECT *, CASE WHEN {TIMESTAMP} < {window.validation_start} "
        f"THEN least({window.train_cutoff}, {window.cutoff}) ELSE {window.cutoff} END "
        f"AS label__cutoff FROM outcomes WHERE {ROW} IN (SELECT {ROW} FROM {quoted(rows)}))"
    )
    for name in ranking.task_order:
        columns = _task_columns(world, name)
        wanted = ", ".join(f"{sql} AS {quoted(column)}" for column, sql in columns.items())
        relation = f"(SELECT *, {wanted} FROM {relation} AS label__rows)"
    keys = [key for output in ranking.all_outputs for key in (output.label_key, output.mask_key)]
    return f"SELECT {ROW}, {', '.join(map(quoted, keys))} FROM {relation}"


def rows_across_the_train_cutoff(world: RawWorld, limit: int) -> str:
    """Finds train impressions that have events after the train cut-off inside a window of theirs.

    These tell whether labels were read later than the run may know them.

    Args:
        world: The raw logs.
        limit: At most this many rows.

    Returns:
        A query for `row__id`.
    """
    window = world.dataset.window
    hits = [
        f"SELECT {ROW} FROM {quoted(f'pairs_{column.join.stream}')} "
        f"WHERE {TIMESTAMP} >= {window.train_start} AND {TIMESTAMP} < {window.validation_start} "
        f"AND {EVENT_TIMESTAMP} >= {window.train_cutoff} "
        f"AND {EVENT_TIMESTAMP} < {TIMESTAMP} + {column.join.window}"
        for column in world.ranking.columns.values()
        if column.join is not None
    ]
    late = max(map(world.ranking.task_maturity_ms, world.ranking.tasks))
    hits.append(
        f"SELECT {ROW} FROM impressions WHERE {TIMESTAMP} < {window.validation_start} "
        f"AND {TIMESTAMP} >= greatest({window.train_start}, {window.train_cutoff - late})"
    )
    ranked = " UNION ALL ".join(
        f"SELECT {ROW}, {number} AS kind FROM ({hit})" for number, hit in enumerate(hits)
    )
    # Turn by turn from each kind, so that none crowds out the others.
    return (
        f"SELECT {ROW} FROM (SELECT {ROW}, min(kind) AS kind FROM ({ranked}) GROUP BY {ROW}) "
        f"ORDER BY row_number() OVER (PARTITION BY kind ORDER BY hash({ROW}), {ROW}), kind "
        f"LIMIT {limit}"
    )


def _task_columns(world: RawWorld, name: str) -> dict[str, str]:
    """Writes label and mask of a task's outputs; parents come before children."""
    ranking = world.ranking
    task = ranking.tasks[name]
    maturity = ranking.task_maturity_ms(name)
    counts = [f"{TIMESTAMP} + {maturity} <= label__cutoff"]
    if task.sample_weight is not None:
        maturity = ranking.maturity_ms(task.sample_weight)
        counts.append(f"{TIMESTAMP} + {maturity} <= label__cutoff")
        counts.append(f"coalesce({_number(task.sample_weight)} >= 0, false)")
    if task.propensity is not None:
        chance = _number(task.propensity.column)
        counts.append(f"coalesce({chance} > 0 AND {chance} <= 1, false)")
    if task.mask is not None:
        counts.append(f"coalesce({_number(task.mask)} <> 0, false)")
    known = f"coalesce({_possible(task)}, false)"
    outputs = ranking.outputs_of(name)
    if task.takes_fake_negatives:
        return _arriving(world, task, outputs[0], " AND ".join([*counts, known]))
    if task.conditioned_on is None:
        return _columns(outputs[0], " AND ".join([*counts, known]), _number(task.target))
    parent = ranking.outputs_of(task.conditioned_on)[0]
    happened = f"{quoted(parent.label_key)} = 1"
    counts.append(f"{quoted(parent.mask_key)} = 1")
    entire, conditional = outputs
    return _columns(
        entire,
        " AND ".join([*counts, f"(NOT {happened} OR {known})"]),
        f"CASE WHEN {happened} THEN {_number(task.target)} ELSE 0 END",
    ) | _columns(conditional, " AND ".join([*counts, happened, known]), _number(task.target))


def _arriving(world: RawWorld, task: Task, output: Output, counts: str) -> dict[str, str]:
    """Writes label and mask of a task whose train labels are taken as they arrive.

    Between the end of the first attribution window and the end of the train window, an impression
    is a negative row when it is shown, and a positive row when its first event comes.
    """
    window = world.dataset.window
    join = world.ranking.columns[task.target].join
    assert join is not None
    start, end = window.train_start + join.window, window.validation_start
    first = (
        f"(SELECT min(p.{EVENT_TIMESTAMP}) FROM {quoted(f'pairs_{join.stream}')} p "
        f"WHERE p.{ROW} = label__rows.{ROW} "
        f"AND p.{EVENT_TIMESTAMP} < label__rows.{TIMESTAMP} + {join.window})"
    )
    positive = f"CAST(coalesce({first} >= {start} AND {first} < {end}, false) AS DOUBLE)"
    is_known = f"{quoted(task.target)} IS NOT NULL"
    negative = f"CAST({TIMESTAMP} >= {start} AND {is_known} AS DOUBLE)"
    chance = task.propensity and _number(task.propensity.column)
    usable = f"coalesce({chance} > 0 AND {chance} <= 1, false)" if chance else "true"
    is_train = f"{TIMESTAMP} < {end}"
    later = _columns(output, counts, _number(task.target))
    return {
        output.label_key: f"CASE WHEN NOT {is_train} THEN {later[output.label_key]} "
        f"WHEN {usable} THEN coalesce({positive} / nullif({positive} + {negative}, 0), 0) "
        "ELSE 0 END",
        output.mask_key: f"CASE WHEN NOT {is_train} THEN {later[output.mask_key]} "
        f"WHEN {usable} AND {positive} + {negative} > 0 THEN 1e0 ELSE 0e0 END",
    }


def _columns(output: Output, counts: str, value: str) -> dict[str, str]:
    return {
        output.label_key: f"CASE WHEN {counts} THEN {value} ELSE 0 END",
        output.mask_key: f"CASE WHEN {counts} THEN 1e0 ELSE 0e0 END",
    }


def _possible(task: Task) -> str:
    value = _number(task.target)
    if task.kind == "binary":
        return f"{value} IN (0, 1)"
    lowest = 0 if task.kind in ("duration", "count") else -_LARGEST_FLOAT32
    return f"{value} BETWEEN {lowest!r} AND {_LARGEST_FLOAT32!r}"


def _number(column: str) -> str:
    return f"CAST({quoted(column)} AS DOUBLE)"
