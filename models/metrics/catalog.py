"""From metric names to the families that compute them."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from models.metrics.calibration import Calibration, ExpectedCalibrationError
from models.metrics.cross_entropy import CrossEntropy
from models.metrics.family import Family
from models.metrics.grouped import GroupAuc, GroupNdcg
from models.metrics.rank_correlation import ConcordantPairs, Spearman
from models.metrics.regression_error import RegressionError
from models.metrics.threshold_curves import ThresholdCurves
from models.spec.errors import ConfigError, nearest

FAMILIES: tuple[type[Family], ...] = (
    ThresholdCurves,
    GroupAuc,
    CrossEntropy,
    Calibration,
    ExpectedCalibrationError,
    RegressionError,
    Spearman,
    ConcordantPairs,
    GroupNdcg,
)

FAMILY_OF_METRIC = MappingProxyType({name: family for family in FAMILIES for name in family.names})


def families_of(names: Iterable[str]) -> tuple[type[Family], ...]:
    """Returns the families that compute some metrics, each once.

    Raises:
        ConfigError: A name is not a metric.
    """
    found: dict[type[Family], None] = {}
    for name in names:
        if name not in FAMILY_OF_METRIC:
            raise ConfigError(
                f"unknown metric {name!r}{nearest(name, FAMILY_OF_METRIC)}",
                constraint=f"one of {', '.join(sorted(FAMILY_OF_METRIC))}",
                remedy="correct the task's metrics",
            )
        found[FAMILY_OF_METRIC[name]] = None
    return tuple(found)
