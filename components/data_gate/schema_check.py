"""TFDV's validation against the declared schema, and its drift against the previous window."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.data_gate.finding import Finding
from models.spec.ranking import RankingSpec

ENVIRONMENT = "TRAINING"


def load_tfdv() -> ModuleType:
    """Imports TFDV.

    Its import needs `tfx_bsl.arrow.sql_util`, which builds without ZetaSQL lack and which nothing
    here calls: an empty module takes its place where it is absent.
    """
    name = "tfx_bsl.arrow.sql_util"
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = ModuleType(name)
    return importlib.import_module("tensorflow_data_validation")


def validate(
    ranking: RankingSpec,
    schema: schema_pb2.Schema,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    previous: statistics_pb2.DatasetFeatureStatisticsList | None,
    max_drift: float,
) -> tuple[list[str], list[str], list[Finding]]:
    """Validates one split's statistics.

    Args:
        ranking: Says which columns are request features; only they are compared for drift.
        schema: The training schema.
        statistics: Statistics of the split.
        previous: Statistics of the same split of the previous window, if there is one.
        max_drift: Limit of the distance: L-infinity for strings, Jensen-Shannon for numbers.

    Returns:
        Reasons to refuse, warnings, and features whose distribution moved.
    """
    tfdv: Any = load_tfdv()
    anomalies: anomalies_pb2.Anomalies = tfdv.validate_statistics(
        statistics,
        with_drift_limits(ranking, schema, max_drift),
        environment=ENVIRONMENT,
        previous_statistics=previous,
    )
    drifts = {_name(info.path): info for info in anomalies.drift_skew_info}
    reasons: list[str] = []
    warnings: list[str] = []
    moved: list[Finding] = []
    for key, anomaly in sorted(anomalies.anomaly_info.items()):
        name = _name(anomaly.path) or key
        for reason in anomaly.reason:
            if reason.type in _DRIFT_TYPES:
                moved.append(_drift_finding(name, drifts[name], max_drift))
                continue
            text = (
                f"column {name}: {_sentence(reason.description or reason.short_description)}; "
                "expected what the configuration declares; remedy: mend the log or the "
                "declaration of the column"
            )
            is_error = anomaly.severity == anomalies_pb2.AnomalyInfo.ERROR
            (reasons if is_error else warnings).append(text)
    if anomalies.HasField("dataset_anomaly_info"):
        for reason in anomalies.dataset_anomaly_info.reason:
            reasons.append(
                f"examples: {_sentence(reason.description)}; expected what the schema declares; "
                "remedy: check the logs of this window"
            )
    if anomalies.data_missing:
        reasons.append(
            "examples: the split has no rows; expected at least one; remedy: check that the logs "
            "cover the window"
        )
    return reasons, warnings, moved


_DRIFT_TYPES = (
    anomalies_pb2.AnomalyInfo.COMPARATOR_L_INFTY_HIGH,
    anomalies_pb2.AnomalyInfo.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH,
)


def with_drift_limits(
    ranking: RankingSpec, schema: schema_pb2.Schema, max_drift: float
) -> schema_pb2.Schema:
    """Returns a copy of the schema that limits drift of request features and of nothing else.

    Keys drift by nature, and labels are compared by their rates.
    """
    limited = schema_pb2.Schema()
    limited.CopyFrom(schema)
    request = {f.name for f in ranking.request_features}
    for feature in limited.feature:
        feature.ClearField("drift_comparator")
        if feature.name not in request:
            continue
        if feature.type == schema_pb2.BYTES:
            feature.drift_comparator.infinity_norm.threshold = max_drift
        else:
            feature.drift_comparator.jensen_shannon_divergence.threshold = max_drift
    return limited


def _drift_finding(name: str, drift: anomalies_pb2.DriftSkewInfo, max_drift: float) -> Finding:
    measured = drift.drift_measurements[0]
    distance = (
        "L-infinity"
        if measured.type == anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY
        else "Jensen-Shannon"
    )
    return Finding(
        "distribution",
        "column",
        name,
        "its distribution moved",
        f"the {distance} distance to it",
        "0",
        f"{measured.value:.4g}",
        f"max_drift {max_drift:g}",
        "find out what changed in the logs; if the world did change, raise data_checks.max_drift "
        "for this run",
        ("train",),
    )


def _name(path: Any) -> str:
    return ".".join(path.step)


def _sentence(text: str) -> str:
    return text.strip().rstrip(".")
