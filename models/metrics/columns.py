"""The columns that a task is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.spec.errors import DataError

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
KeyArray: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class TaskColumns:
    """One task's rows, as columns of equal length.

    A row with weight 0 is absent: it counts in no metric, whatever its label.

    Attributes:
        label: Float [n]; 0 or 1 for a binary task (anything above 0 is a positive), natural units
            otherwise. Finite where the weight is not 0.
        prediction: Float [n]; a probability or natural units.
        weight: Float [n]; finite and not negative.
        group: Integers or bytes [n]; the slate or user inside which `gauc` and `ndcg` rank.
        cluster: Integers or bytes [n]; the user, the unit that the bootstrap resamples.

    Raises:
        DataError: The columns are not 1-D of one length, or a weight is negative or not finite.
    """

    label: FloatArray
    prediction: FloatArray
    weight: FloatArray
    group: KeyArray
    cluster: KeyArray

    def __post_init__(self) -> None:
        """Converts the numbers to float64 and checks shapes and weights."""
        for name in ("label", "prediction", "weight"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        for name in ("group", "cluster"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        shapes = {
            name: getattr(self, name).shape
            for name in ("label", "prediction", "weight", "group", "cluster")
        }
        if self.label.ndim != 1 or len(set(shapes.values())) != 1:
            raise DataError(
                "the columns of a task do not fit together",
                constraint="five 1-D columns of one length",
                received=shapes,
                remedy="pass one value per row in every column",
            )
        if not (np.isfinite(self.weight).all() and (self.weight >= 0).all()):
            raise DataError(
                "a row weight is negative or not finite",
                constraint="weights of at least 0; 0 where the row is absent",
                received=f"minimum {np.min(self.weight)}, maximum {np.max(self.weight)}",
                remedy="set the weight of rows without a label to 0",
            )

    def __len__(self) -> int:
        """Returns the number of rows, absent ones included."""
        return len(self.label)


@dataclass(frozen=True)
class Rows:
    """The rows that are present, in an order that depends on their content alone.

    Attributes:
        label: Float [n].
        prediction: Float [n].
        weight: Float [n], above 0.
        group: Dense codes [n], numbered by the sorted keys.
        cluster: Dense codes [n], numbered by the sorted keys.
        whole_cluster: Dense codes [n] of the smallest unions of clusters in which no group is
            split; the same as `cluster` when every group lies inside one cluster.
    """

    label: FloatArray
    prediction: FloatArray
    weight: FloatArray
    group: IntArray
    cluster: IntArray
    whole_cluster: IntArray

    @classmethod
    def of(cls, columns: TaskColumns) -> Rows:
        """Drops absent rows, codes the keys and sorts the rows."""
        present = np.flatnonzero(columns.weight > 0)
        label = columns.label[present]
        prediction = columns.prediction[present]
        weight = columns.weight[present]
        group = _dense_codes(columns.group[present])
        cluster = _dense_codes(columns.cluster[present])
        # Sums in floating point depend on the order of their terms: a fixed order makes every
        # result equal to the last bit, however the rows arrived.
        order = np.lexsort((weight, label, prediction, group, cluster))
        group, cluster = group[order], cluster[order]
        return cls(
            label=label[order],
            prediction=prediction[order],
            weight=weight[order],
            group=group,
            cluster=cluster,
            whole_cluster=_join_clusters(cluster, group),
        )

    def __len__(self) -> int:
        """Returns the number of rows present."""
        return len(self.label)

    @property
    def is_finite(self) -> bool:
        """Whether every label and prediction is a finite number."""
        return bool(np.isfinite(self.label).all() and np.isfinite(self.prediction).all())


def num_codes(codes: IntArray) -> int:
    """Returns how many distinct keys dense codes stand for."""
    return int(codes.max()) + 1 if len(codes) else 0


def _dense_codes(keys: KeyArray) -> IntArray:
    if keys.dtype.kind == "O":
        # A fixed-width copy would take n times the longest key.
        code = {key: i for i, key in enumerate(sorted(set(keys.tolist())))}
        return np.fromiter((code[key] for key in keys), np.int64, len(keys))
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def _join_clusters(cluster: IntArray, group: IntArray) -> IntArray:
    num_clusters, num_groups = num_codes(cluster), num_codes(group)
    union = np.arange(num_clusters)
    while True:
        lowest = np.full(num_groups, num_clusters)
        np.minimum.at(lowest, group, union[cluster])
        joined = union.copy()
        np.minimum.at(joined, cluster, lowest[group])
        if np.array_equal(joined, union):
            return _dense_codes(union[cluster])
        union = joined[joined]
