"""What a trained model shows of its sharing, measured on rows, as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import tensorflow_transform as tft
from numpy.typing import NDArray

from models.architectures.abstract import Architecture, Features
from models.architectures.insight import Mixture
from models.feature_layout import FeatureLayout
from models.ranking_model import RankingModel
from models.rows import Rows
from models.spec.feature import VocabularyEncoding
from models.spec.keys import TRANSFORMED_CATEGORICAL
from models.spec.ranking import RankingSpec

Ids: TypeAlias = NDArray[np.int64]

UNUSED_BELOW = 0.01
"""A source that nobody gives this mean weight is called unused: a dead expert."""

MAX_SLICE_VALUES = 12
"""Features with more values than this are not sliced by."""

_BATCH_ROWS = 4096
_MISSING, _OTHER = "(missing)", "(other)"


@dataclass(frozen=True)
class SliceFeature:
    """A scalar feature with few values.

    Attributes:
        name: The feature.
        column: Its column among the packed ids.
        values: Names of its values by id; larger ids are the last one.
    """

    name: str
    column: int
    values: tuple[str, ...]

    def ids(self, packed: Mapping[str, Any]) -> Ids:
        """Returns the value of every row of a batch, [batch]."""
        column = packed[TRANSFORMED_CATEGORICAL][:, self.column].numpy()
        ids: Ids = np.minimum(column, len(self.values) - 1).astype(np.int64)
        return ids


def slice_features(ranking: RankingSpec, transform: tft.TFTransformOutput) -> list[SliceFeature]:
    """Returns the features with a vocabulary of at most `MAX_SLICE_VALUES` values."""
    layout = FeatureLayout.of(ranking)
    found = []
    for slot in layout.categorical:
        table = layout.tables[str(slot.table)]
        if not isinstance(table.encoding, VocabularyEncoding):
            continue
        if transform.vocabulary_size_by_name(table.vocabulary) <= MAX_SLICE_VALUES:
            values = [v.decode() for v in transform.vocabulary_by_name(table.vocabulary)]
            named = (_MISSING, *values, _OTHER)
            found.append(SliceFeature(slot.feature.name, slot.start, named))
    return found


def measure_insights(
    model: RankingModel, rows: Rows, slices: Sequence[SliceFeature] = ()
) -> dict[str, Any]:
    """Measures how a model shares.

    Args:
        model: The trained model.
        rows: Rows to measure mixtures on.
        slices: Features to measure them by as well.

    Returns:
        ``matrices``: a list of ``name``, ``rows``, ``columns``, ``values`` [rows][columns].
        ``mixtures``: a list of ``name``, ``sources``, ``weights`` (who mixes to the mean weight of
        each source), ``entropy`` (who to the mean entropy of a row's weights in nats), ``unused``
        (names of sources below `UNUSED_BELOW` for everybody who can read them) and ``slices``
        (feature to value to ``num_rows`` and ``weights``).
    """

    def batches() -> Iterator[tuple[Features, dict[str, Ids]]]:
        for batch in rows.in_order(_BATCH_ROWS):
            yield model.embedding(batch), {s.name: s.ids(batch) for s in slices}

    return {
        "matrices": [
            {
                "name": matrix.name,
                "rows": list(matrix.rows),
                "columns": list(matrix.columns),
                "values": [[float(x) for x in row] for row in matrix.values],
            }
            for matrix in model.architecture.matrices()
        ],
        "mixtures": measure_mixtures(model.architecture, batches, slices),
    }


def measure_mixtures(
    architecture: Architecture,
    batches: Callable[[], Iterable[tuple[Features, Mapping[str, Ids]]]],
    slices: Sequence[SliceFeature] = (),
) -> list[dict[str, Any]]:
    """Averages an architecture's mixtures over rows.

    Args:
        architecture: The architecture.
        batches: Gives the features of rows, and by slice feature the value of each row.
        slices: The slice features.

    Returns:
        See `measure_insights`.
    """
    means: dict[str, _Means] = {}
    for features, ids in batches():
        for mixture in architecture.mixtures(features):
            means.setdefault(mixture.name, _Means(mixture, slices)).add(mixture, ids)
    return [mean.as_json() for mean in means.values()]


@dataclass
class _Means:
    """Sums of one mixture over rows."""

    first: Mixture
    slices: Sequence[SliceFeature]
    num_rows: int = 0
    weights: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    entropy: dict[str, float] = field(default_factory=dict)
    by_slice: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, Ids] = field(default_factory=dict)

    def add(self, mixture: Mixture, ids: Mapping[str, Ids]) -> None:
        """Adds the rows of a batch."""
        for who, tensor in mixture.weights.items():
            rows = tensor.numpy().astype(np.float64)
            self.weights[who] = self.weights.get(who, 0) + rows.sum(axis=0)
            entropy = -(rows * np.log(np.maximum(rows, 1e-30))).sum()
            self.entropy[who] = self.entropy.get(who, 0.0) + float(entropy)
            for feature in self.slices:
                sums = np.zeros((len(feature.values), rows.shape[1]))
                np.add.at(sums, ids[feature.name], rows)
                key = (feature.name, who)
                self.by_slice[key] = self.by_slice.get(key, 0) + sums
        self.num_rows += len(rows)
        for feature in self.slices:
            counts = np.bincount(ids[feature.name], minlength=len(feature.values))
            self.counts[feature.name] = self.counts.get(feature.name, 0) + counts

    def as_json(self) -> dict[str, Any]:
        means = {who: sums / self.num_rows for who, sums in self.weights.items()}
        return {
            "name": self.first.name,
            "sources": list(self.first.sources),
            "weights": {who: values.tolist() for who, values in means.items()},
            "entropy": {who: sums / self.num_rows for who, sums in self.entropy.items()},
            "unused": list(self._unused(means)),
            "slices": {feature.name: self._slice(feature) for feature in self.slices},
        }

    def _unused(self, means: Mapping[str, NDArray[np.float64]]) -> Iterator[str]:
        for i, source in enumerate(self.first.sources):
            below = [who for who, values in means.items() if values[i] < UNUSED_BELOW]
            if i < self.first.num_private:
                yield from (f"{source} of {who}" for who in below)
            elif len(below) == len(means):
                yield source

    def _slice(self, feature: SliceFeature) -> dict[str, Any]:
        counts = self.counts[feature.name]
        return {
            value: {
                "num_rows": int(counts[i]),
                "weights": {
                    who: (self.by_slice[feature.name, who][i] / counts[i]).tolist()
                    for who in self.weights
                },
            }
            for i, value in enumerate(feature.values)
            if counts[i]
        }
