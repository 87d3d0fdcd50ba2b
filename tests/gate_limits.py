"""Limits of the gates that tests start from."""

from components.data_gate.limits import Limits

LIMITS = Limits(
    max_dead_rate=0.05,
    max_drift=0.3,
    max_new_category=0.01,
    max_unit_ratio=10.0,
    max_join_drop=0.1,
    max_clock_drift=0.1,
    max_volume_drop=0.5,
    waived={},
    max_single_feature_auc=0.95,
    max_skew=0.1,
    audit_rows=10,
    min_rows=100,
    min_positives=10,
)
