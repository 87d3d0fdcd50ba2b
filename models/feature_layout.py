"""Where each feature lies in the packed tensors, and which embedding table its ids belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from models.spec.feature import (
    Feature,
    HashEncoding,
    NumericEncoding,
    QuantileEncoding,
    SharedEncoding,
    VocabularyEncoding,
)
from models.spec.keys import DECISION_GROUP
from models.spec.ranking import RankingSpec

TableEncoding = VocabularyEncoding | HashEncoding | QuantileEncoding

MISSING_ID = 0
"""Row of every table that a missing value is looked up in."""

PADDING_ID = -1
"""Id of the positions of a sequence that hold no value."""


@dataclass(frozen=True)
class Table:
    """One embedding table: row 0 is the missing value, then come the values.

    Attributes:
        name: Name of the feature that owns it.
        encoding: The owner's encoding.
    """

    name: str
    encoding: TableEncoding

    @property
    def dimension(self) -> int:
        """Embedding width."""
        return self.encoding.dimension

    @property
    def vocabulary(self) -> str:
        """Name of the vocabulary file, where the table has one."""
        return f"vocabulary_{self.name}"

    def num_rows(self, vocabulary_size: Callable[[str], int]) -> int:
        """Counts the rows.

        Args:
            vocabulary_size: From the name of a vocabulary file to its number of values, as
                `TFTransformOutput.vocabulary_size_by_name`.
        """
        if isinstance(self.encoding, VocabularyEncoding):
            return 1 + vocabulary_size(self.vocabulary) + self.encoding.oov_buckets
        return 1 + self.encoding.buckets

    def untrained_rows(self, num_rows: int) -> tuple[int, ...]:
        """Rows that training may never reach: the missing value and out-of-vocabulary buckets."""
        if isinstance(self.encoding, VocabularyEncoding):
            return (MISSING_ID, *range(num_rows - self.encoding.oov_buckets, num_rows))
        return (MISSING_ID,)


@dataclass(frozen=True)
class Slot:
    """The columns of a packed tensor that one feature fills.

    Attributes:
        feature: The feature.
        start: Its first column.
        width: Its number of columns.
        table: Name of its embedding table; None for numbers.
    """

    feature: Feature
    start: int
    width: int
    table: str | None = None

    @property
    def pieces(self) -> int:
        """Length of a number's piecewise-linear code, whose sum is the last column; 0: none."""
        encoding = self.feature.encoding
        return encoding.pieces if isinstance(encoding, NumericEncoding) else 0


@dataclass(frozen=True)
class FeatureLayout:
    """The packed tensors of a ranking problem, each in order of feature names.

    Attributes:
        categorical: Scalar ids, one column each.
        numeric: Numbers: a scalar fills two columns (value, missing indicator) and, with a
            piecewise-linear code, a third (the code's sum); a sequence of length L fills L + 1
            (values, share of positions without one).
        sequences: Ids of sequences, one column a position.
        tables: Embedding tables by name.
    """

    categorical: tuple[Slot, ...]
    numeric: tuple[Slot, ...]
    sequences: tuple[Slot, ...]
    tables: dict[str, Table]

    @classmethod
    def of(cls, ranking: RankingSpec) -> FeatureLayout:
        """Lays out the training features of a ranking problem."""
        categorical: list[Slot] = []
        numeric: list[Slot] = []
        sequences: list[Slot] = []
        tables: dict[str, Table] = {}
        for feature in ranking.training_features:
            length = feature.length or 1
            if isinstance(feature.encoding, NumericEncoding):
                width = length + 1 + (feature.encoding.pieces > 0)
                numeric.append(Slot(feature, width_of(numeric), width))
                continue
            if isinstance(feature.encoding, SharedEncoding):
                table = feature.encoding.feature
            else:
                table = feature.name
                tables[table] = Table(table, feature.encoding)
            slots = categorical if feature.length is None else sequences
            slots.append(Slot(feature, width_of(slots), length, table))
        return cls(tuple(categorical), tuple(numeric), tuple(sequences), tables)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the feature groups that architectures receive, sorted."""
        return tuple(sorted(self._groups - {DECISION_GROUP}))

    @cached_property
    def has_decisions(self) -> bool:
        """Whether features of decision columns are among the inputs."""
        return DECISION_GROUP in self._groups

    @cached_property
    def _groups(self) -> set[str]:
        slots = (*self.categorical, *self.numeric, *self.sequences)
        return {slot.feature.group for slot in slots}

    @cached_property
    def dimensions(self) -> tuple[int, ...]:
        """Distinct embedding widths, ascending."""
        return tuple(sorted({table.dimension for table in self.tables.values()}))


def width_of(slots: tuple[Slot, ...] | list[Slot]) -> int:
    """Returns the number of columns that slots fill together."""
    return slots[-1].start + slots[-1].width if slots else 0


def length_input(feature: Feature) -> str | None:
    """Returns the name of the input with the lengths of a numeric sequence; None for others.

    A number has no padding value of its own, so a numeric sequence comes with how many of its
    values count.
    """
    numeric_sequence = feature.length is not None and feature.dtype == "float"
    return f"{feature.name}_length" if numeric_sequence else None
