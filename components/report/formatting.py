"""Numbers, times and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from models.spec.metric import METRICS
from models.spec.task import TaskKind

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

_LABELS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "pr_auc": "PR-AUC",
    "log_loss": "Log loss",
    "normalized_entropy": "Norm. entropy",
    "calibration": "Calibration",
    "ece": "ECE",
    "mae": "MAE",
    "rmse": "RMSE",
    "spearman": "Spearman",
    "xauc": "XAUC",
    "ndcg": "NDCG",
    "num_rows": "Rows",
    "num_positives": "Positives",
}


def metric_label(metric: str) -> str:
    """Returns the name of a metric as field usage writes it."""
    return _LABELS.get(metric, metric)


def metric_unit(metric: str, kind: TaskKind) -> str:
    """Returns the unit of a metric: nats, s, the target's unit, or nothing."""
    if metric == "log_loss":
        return "nats"
    if metric in ("mae", "rmse"):
        return "s" if kind == "duration" else "target units"
    return ""


def metric_direction(metric: str) -> str:
    """Returns which way a metric is better, in words."""
    definition = METRICS.get(metric)
    if definition is None:
        return ""
    if definition.higher_is_better is None:
        return "best at 1"
    return "higher is better" if definition.higher_is_better else "lower is better"


def number(value: Any, decimals: int = 4) -> str:
    """Formats a metric value.

    Below 10 with fixed decimals and without a leading zero (``.7421``, ``1.034``), above with four
    significant digits; a value that is missing or not finite is a dash.
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ABSENT
    sign = MINUS if value < 0 else ""
    size = abs(float(value))
    if size >= 10:
        text = f"{size:.{max(0, decimals - len(str(int(size))))}f}"
    else:
        text = f"{size:.{decimals}f}"
        text = text[1:] if text.startswith("0.") else text
    is_zero = not text.strip("0.,")
    return text if is_zero else sign + text


def threshold(value: Any) -> str:
    """Formats a limit that a person wrote, without trailing zeros: ``.65``, ``30``."""
    text = number(value, 6)
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def bounds(metric: Mapping[str, Any]) -> str:
    """Formats an interval such as ``[.735, .749]``; empty where none was measured.

    Bounds have three decimals, or as many more as it takes to tell them apart.
    """
    low, high = metric.get("low"), metric.get("high")
    if not (_finite(low) and _finite(high)):
        return ""
    for decimals in (3, 4, 5):
        text = f"[{number(low, decimals)}, {number(high, decimals)}]"
        if number(low, decimals) != number(high, decimals):
            break
    return text


def interval(metric: Mapping[str, Any]) -> str:
    """Formats a value with its interval: ``.7421 [.735, .749]``."""
    return " ".join(filter(None, (number(metric.get("value")), bounds(metric))))


def signed(value: Any, decimals: int = 4) -> str:
    """Formats a difference with its sign: ``+.0031``."""
    text = number(value, decimals)
    if text in (ABSENT,) or text.startswith(MINUS) or not text.strip("0.,"):
        return text
    return f"+{text}"


def signed_bounds(metric: Mapping[str, Any]) -> str:
    """Formats the interval of a difference: ``[+.001, +.005]``."""
    low, high = metric.get("low"), metric.get("high")
    if not (_finite(low) and _finite(high)):
        return ""
    for decimals in (3, 4, 5):
        if number(low, decimals) != number(high, decimals):
            break
    return f"[{signed(low, decimals)}, {signed(high, decimals)}]"


def clipped(text: str, limit: int) -> str:
    """Cuts text from data to a length that a page can bear."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def count(value: Any) -> str:
    """Formats a whole number with thousands separators."""
    return f"{int(value):,}" if _finite(value) else ABSENT


def share(value: Any) -> str:
    """Formats a share as a percentage with two significant digits below ten."""
    if not _finite(value):
        return ABSENT
    percent = 100 * float(value)
    return f"{percent:.1f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def seconds(value: Any) -> str:
    """Formats a duration: ``0.42 s``, ``41 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if not _finite(value):
        return ABSENT
    size = float(value)
    if size < 10:
        return f"{size:.2f} s" if size < 1 else f"{size:.1f} s"
    whole = round(size)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def mebibytes(value: Any) -> str:
    """Formats a number of bytes in MiB."""
    return f"{float(value) / 2**20:,.0f} MiB" if _finite(value) else ABSENT


def moment(value: Any) -> str:
    """Formats a time (ms since 1970 UTC, or ISO 8601 text) as ``2026-03-05 14:00``, in UTC."""
    when = as_time(value)
    return when.strftime("%Y-%m-%d %H:%M") if when is not None else str(value)


def as_time(value: Any) -> datetime | None:
    """Reads a time given in ms since 1970 UTC or as ISO 8601 text; None if it is neither."""
    if _finite(value):
        return datetime.fromtimestamp(float(value) / 1000, timezone.utc)
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return None
        known = parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)
        return known.astimezone(timezone.utc)
    return None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
