"""The limits that the gates before training apply."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from models.spec.anomaly import AnomalyKind
from models.spec.strict import Strict


class Limits(Strict):
    """Limits of the data gates, as the pipeline hands them over in `checks_json`.

    The fields are those of the configuration's `data_checks`, and `min_rows` and `min_positives`
    of its `evaluation`; defaults are written there and nowhere else, so every field is required.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_dead_rate: Annotated[float, Field(ge=0, le=1)]
    max_drift: Annotated[float, Field(gt=0)]
    max_new_category: Annotated[float, Field(gt=0, le=1)]
    max_unit_ratio: Annotated[float, Field(gt=1)]
    max_join_drop: Annotated[float, Field(gt=0, le=1)]
    max_clock_drift: Annotated[float, Field(gt=0, le=1)]
    max_volume_drop: Annotated[float, Field(gt=0, le=1)]
    waived: dict[str, Annotated[tuple[AnomalyKind, ...], Field(strict=False)]]
    max_single_feature_auc: Annotated[float, Field(gt=0.5, le=1)]
    max_skew: Annotated[float, Field(ge=0, le=1)]
    audit_rows: Annotated[int, Field(ge=1)]
    min_rows: Annotated[int, Field(ge=1)]
    min_positives: Annotated[int, Field(ge=1)]
