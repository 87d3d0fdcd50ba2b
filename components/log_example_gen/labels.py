"""Labels, masks and weights of every output, from the outcome columns."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.log_example_gen.row_names import arrival_column
from components.log_example_gen.spec import Window
from components.log_example_gen.splits import SPLIT, split_cutoffs
from models.spec.keys import TIMESTAMP
from models.spec.ranking import RankingSpec
from models.spec.task import Task

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def labels(rows: pl.DataFrame, ranking: RankingSpec, window: Window) -> pl.DataFrame:
    """Computes what every output is trained and measured on.

    A label counts (mask 1) where it is final before the split's cut-off, known, possible, and
    inside the task's sample space:

    - declared: the target, where it is not null and the task's mask column is true;
    - entire: target times the parent's label, 0 where the parent did not happen, wherever the
      parent's own label counts;
    - conditional: the target, where the entire-space label counts and the parent happened.

    An impossible target (other than 0 or 1 for a binary task, negative for a duration or count)
    does not count; nor does a row whose sample weight is missing or negative, or whose propensity
    is missing or not in (0, 1]. Such rows are told
    apart in the accounts.

    Args:
        rows: Examples with time, split and every outcome column.
        ranking: Tasks.
        window: Cut-offs.

    Returns:
        For each output, `<output>__label`, `<output>__mask` and `<output>__weight` in float32,
        labels finite and 0 where the mask is 0; and `<output>__impossible` flags, [rows].
    """
    times = rows[TIMESTAMP].to_numpy()
    cutoffs = split_cutoffs(rows, window)
    entire: dict[str, tuple[Floats, Flags]] = {}
    columns: dict[str, NDArray[np.float32] | Flags] = {}
    for name in ranking.task_order:
        task = ranking.tasks[name]
        known, target, impossible = _target(rows, task)
        weight, usable = _weight(rows, task)
        maturity_ms = max(
            ranking.task_maturity_ms(name),
            ranking.maturity_ms(task.sample_weight) if task.sample_weight else 0,
        )
        counts = (times + maturity_ms <= cutoffs) & usable & _inside(rows, task)
        if task.conditioned_on is None:
            label, mask = target, counts & known
            found = [(label, mask)]
        else:
            parent_label, parent_mask = entire[task.conditioned_on]
            happened = parent_label == 1
            label = np.where(happened, target, 0.0)
            mask = counts & parent_mask & (known | ~happened)
            impossible &= happened
            found = [(label, mask), (target, mask & happened)]
        entire[name] = found[0]
        for output, (value, is_counted) in zip(ranking.outputs_of(name), found, strict=True):
            columns[output.label_key] = np.where(is_counted, value, 0.0).astype(np.float32)
            columns[output.mask_key] = is_counted.astype(np.float32)
            columns[output.weight_key] = np.where(is_counted, weight, 0.0).astype(np.float32)
            columns[f"{output.name}__impossible"] = impossible & counts
        if task.takes_fake_negatives:
            is_train = (rows[SPLIT] == "train").to_numpy()
            arrived = _as_they_arrive(rows, task.target, maturity_ms, window)
            for key, values in zip(
                (output.label_key, output.mask_key, output.weight_key),
                (arrived[0], arrived[1], arrived[2] * weight),
                strict=True,
            ):
                given = np.where(is_train, np.where(usable, values, 0.0), columns[key])
                columns[key] = given.astype(np.float32)
    return pl.DataFrame(columns)


def _as_they_arrive(
    rows: pl.DataFrame, target: str, window_ms: int, window: Window
) -> tuple[Floats, Floats, Floats]:
    """Computes train labels with fake negatives (Ktena et al., RecSys 2019, sec. 3.2).

    Between the end of the first attribution window and the end of the train window, an impression
    gives a negative row when it is shown and a positive row when its first event arrives. What
    arrives after the end is missing; what earlier impressions gave makes up for it. An impression
    whose events are not known gives neither.

    Returns:
        Label: the share of positive rows among the impression's 0, 1 or 2 rows; mask: whether it
        has any; weight: their number, [rows] each.
    """
    times = rows[TIMESTAMP].to_numpy()
    age = rows[arrival_column(target)].cast(pl.Float64).fill_null(np.inf).to_numpy()
    start, end = window.train_start + window_ms, window.validation_start
    arrives = times + age
    positive = ((arrives >= start) & (arrives < end)).astype(np.float64)
    is_known = rows[target].is_not_null().to_numpy()
    negative = ((times >= start) & is_known).astype(np.float64)
    count = positive + negative
    return np.where(count > 0, positive / np.maximum(count, 1), 0), np.minimum(count, 1), count


def _target(rows: pl.DataFrame, task: Task) -> tuple[Flags, Floats, Flags]:
    """Returns where the target is usable, its value (0 elsewhere), and where it is impossible."""
    values = rows[task.target].cast(pl.Float64)
    number = values.fill_null(0).to_numpy()
    if task.kind == "binary":
        possible = (number == 0) | (number == 1)
    elif task.kind in ("duration", "count"):
        possible = number >= 0
    else:
        possible = np.ones(len(number), dtype=bool)
    # float32 is what examples hold.
    possible &= np.abs(number) <= np.finfo(np.float32).max
    return (
        values.is_not_null().to_numpy() & possible,
        np.where(possible, number, 0.0),
        ~possible,
    )


def _weight(rows: pl.DataFrame, task: Task) -> tuple[Floats, Flags]:
    """Returns the weight of each row, and whether it has one."""
    weight, usable = np.ones(len(rows)), np.ones(len(rows), dtype=bool)
    if task.sample_weight is not None:
        weight = rows[task.sample_weight].cast(pl.Float64).fill_null(-1).to_numpy()
        usable = weight >= 0
    if task.propensity is not None:
        chance = rows[task.propensity.column].cast(pl.Float64).fill_null(0).to_numpy()
        usable = usable & (chance > 0) & (chance <= 1)
        weight = weight / np.maximum(chance, task.propensity.clip)
    return weight, usable


def _inside(rows: pl.DataFrame, task: Task) -> Flags:
    if task.mask is None:
        return np.ones(len(rows), dtype=bool)
    inside: Flags = (rows[task.mask].cast(pl.Float64).fill_null(0) != 0).to_numpy()
    return inside
