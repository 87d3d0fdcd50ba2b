"""What the gate needs from TFDV's statistics, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tensorflow_metadata.proto.v0 import statistics_pb2


@dataclass(frozen=True)
class FeatureSummary:
    """One example feature in one split.

    Attributes:
        name: The feature's name.
        num_rows: Rows of the split.
        num_present: Rows that carry at least one value.
        num_unique: Number of distinct values of a string feature, else None.
        mean: Mean of a numeric feature over its values, else None.
        standard_deviation: Its standard deviation, else None.
        minimum: Its smallest value, else None.
        maximum: Its largest value, else None.
        median: Its median, else None.
        mean_of_nonzero: Mean of its values that are not 0, else None.
        counts: How often each value of a string feature occurs, the most frequent ones at least.
        lists_all: Whether these are all its values.
    """

    name: str
    num_rows: int
    num_present: int
    num_unique: int | None = None
    mean: float | None = None
    standard_deviation: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    median: float | None = None
    mean_of_nonzero: float | None = None
    counts: Mapping[str, float] = field(default_factory=dict)
    lists_all: bool = False

    @property
    def missing_rate(self) -> float:
        """Share of rows without a value; 1 for a split without rows."""
        return 1.0 - self.num_present / self.num_rows if self.num_rows else 1.0

    @property
    def is_constant(self) -> bool:
        """Whether every value is the same."""
        if self.num_present == 0:
            return False
        if self.num_unique is not None:
            return self.num_unique == 1
        return self.minimum is not None and self.minimum == self.maximum


@dataclass(frozen=True)
class SplitSummary:
    """All features of one split."""

    num_rows: int
    features: Mapping[str, FeatureSummary]

    def feature(self, name: str) -> FeatureSummary:
        """Returns a feature's summary; one without any value if the split does not have it."""
        return self.features.get(name) or FeatureSummary(name, self.num_rows, 0)


def summarize(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> SplitSummary:
    """Reads the statistics of one split.

    Args:
        statistics: What StatisticsGen wrote; only the unsliced dataset is read.
    """
    if not statistics.datasets:
        return SplitSummary(0, MappingProxyType({}))
    dataset = statistics.datasets[0]
    features = {}
    for feature in dataset.features:
        name = feature.path.step[0] if feature.path.step else feature.name
        features[name] = _summarize_feature(name, int(dataset.num_examples), feature)
    return SplitSummary(int(dataset.num_examples), MappingProxyType(features))


def _summarize_feature(
    name: str, num_rows: int, feature: statistics_pb2.FeatureNameStatistics
) -> FeatureSummary:
    kind = feature.WhichOneof("stats")
    if kind == "num_stats":
        numbers = feature.num_stats
        present = _num_present(numbers.common_stats)
        if not present:
            return FeatureSummary(name, num_rows, 0)
        return FeatureSummary(
            name,
            num_rows,
            present,
            mean=numbers.mean,
            standard_deviation=numbers.std_dev,
            minimum=numbers.min,
            maximum=numbers.max,
            median=numbers.median,
            mean_of_nonzero=_mean_of_nonzero(numbers),
        )
    if kind == "string_stats":
        text = feature.string_stats
        present = _num_present(text.common_stats)
        counts = {bucket.label: bucket.sample_count for bucket in text.rank_histogram.buckets}
        return FeatureSummary(
            name,
            num_rows,
            present,
            num_unique=int(text.unique) if present else None,
            counts=MappingProxyType(counts),
            lists_all=len(counts) >= text.unique,
        )
    if kind == "bytes_stats":
        return FeatureSummary(name, num_rows, _num_present(feature.bytes_stats.common_stats))
    return FeatureSummary(name, num_rows, 0)


def _mean_of_nonzero(numbers: statistics_pb2.NumericStatistics) -> float | None:
    total = numbers.common_stats.tot_num_values
    others = total - numbers.num_zeros
    return float(numbers.mean * total / others) if others > 0 else None


def _num_present(common: statistics_pb2.CommonStatistics) -> int:
    return int(common.num_non_missing) if common.tot_num_values or common.max_num_values else 0
