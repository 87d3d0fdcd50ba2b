"""How far from the best possible: the simulator's truth measured like a candidate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from components.champion.executor import task_columns
from models.metrics.estimation import compute
from models.spec.ranking import RankingSpec

TRUTH_FILE = Path("_truth", "truth.parquet")
_KEYS = ["request_id", "item_id"]


def measure_oracle(
    logs_root: Path, predictions_path: Path, ranking: RankingSpec
) -> dict[str, dict[str, float | None]] | None:
    """Measures the true probabilities on the test rows of a candidate.

    The truth sees request columns only: position and what happens in the session are averaged
    out. A watch time is predicted by its true mean.

    Args:
        logs_root: Folder of the logs.
        predictions_path: Any candidate's `predictions.parquet`.
        ranking: What is ranked.

    Returns:
        Value by output and metric for the outputs whose truth is known, or None for logs without
        one.
    """
    if not (logs_root / TRUTH_FILE).exists() or not predictions_path.exists():
        return None
    truth = pq.read_table(logs_root / TRUTH_FILE)
    hidden = any(ranking.columns[key].pii for key in _KEYS if key in ranking.columns)
    if hidden or not set(_KEYS) <= set(ranking.key_columns):
        return None
    rows = pq.read_table(predictions_path, filters=[("split", "=", "test")])
    joined = rows.join(
        truth.drop_columns(["timestamp", "clicked", "converted", "watch_seconds"]), _KEYS
    )
    click = joined["click_probability"].to_numpy()
    conversion = joined["conversion_probability"].to_numpy()
    known = {
        "click": click,
        "conversion": conversion,
        "conversion_given_click": conversion / np.maximum(click, 1e-12),
        "watch_seconds": joined["expected_watch_seconds"].to_numpy(),
    }
    result: dict[str, dict[str, float | None]] = {}
    for output in ranking.outputs:
        if output.name not in known:
            continue
        key = f"{output.name}__prediction"
        table = joined.set_column(joined.schema.get_field_index(key), key, [known[output.name]])
        values = compute(output.metrics, task_columns(table, output.name, ranking))
        result[output.name] = {
            name: value if np.isfinite(value) else None for name, value in values.items()
        }
    return result
