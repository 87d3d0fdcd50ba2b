"""What an architecture shows of its sharing: mixtures that rows make, matrices that were learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Mixture:
    """How the rows of a batch weigh their sources: gates over experts, attention over origins.

    Attributes:
        name: What mixes, e.g. ``gates``.
        sources: Names of what is mixed.
        weights: Who mixes (mostly a task) to weights, [batch, sources], which sum to 1.
        num_private: So many of the first sources are each mixer's own; the others are shared.
    """

    name: str
    sources: Sequence[str]
    weights: Mapping[str, tf.Tensor]
    num_private: int = 0


@dataclass(frozen=True)
class Matrix:
    """Learnt weights that say how much flows from a column into a row.

    Attributes:
        name: What the weights are, e.g. ``stitch after layer 1``.
        rows: Names of the rows.
        columns: Names of the columns.
        values: [rows][columns].
    """

    name: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
