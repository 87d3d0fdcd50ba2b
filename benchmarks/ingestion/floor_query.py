"""The join of the floor: the plain columns of the simulated example, labels and masks, as SQL."""

from __future__ import annotations

from components.log_example_gen.spec import DatasetSpec

HOUR = 3_600_000
_TEXTS = "user_id, item_id, device, surface, country, user_segment, item_category, item_creator"
_NUMBERS = ("user_age_days", "user_activity", "item_length_seconds", "item_quality")
_OUTPUTS = {
    # output: label, mask, hours until it is final
    "click": ("c.n IS NOT NULL", "true", 1),
    "conversion": ("c.n IS NOT NULL AND v.n IS NOT NULL", "true", 48),
    "conversion_given_click": ("v.n IS NOT NULL", "c.n IS NOT NULL", 48),
    "watch_seconds": ("coalesce(d.n, 0)", "c.n IS NOT NULL", 2),
    "scroll_depth": ("s.n", "c.n IS NOT NULL AND s.n IS NOT NULL", 2),
    "returned": ("r.n IS NOT NULL", "true", 24),
}


def floor_query(spec: DatasetSpec) -> str:
    """Returns the query of a dataset."""
    window = spec.window
    valid = "request_id IS NOT NULL AND timestamp > 946684800000"

    def events(stream: str, what: str, hours: int, on: str = "request_id, item_id") -> str:
        same = " AND ".join(f"e.{key} = m.{key}" for key in on.split(", "))
        keys = ", ".join(f"e.{key}" for key in on.split(", "))
        return f"""(
            SELECT {keys}, {what} AS n
            FROM (SELECT DISTINCT * FROM '{spec.root}/{stream}/*/*.parquet' WHERE {valid}) e
            JOIN (SELECT DISTINCT {on}, timestamp FROM impressions) m ON {same}
            WHERE e.timestamp >= m.timestamp AND e.timestamp < m.timestamp + {hours * HOUR}
                AND e.timestamp < {window.cutoff}
            GROUP BY {keys}
        )"""

    cutoff = f"CASE WHEN split = 'train' THEN {window.train_cutoff} ELSE {window.cutoff} END"
    outputs = []
    for name, (label, mask, hours) in _OUTPUTS.items():
        counts = f"({mask} AND i.timestamp + {hours * HOUR} <= {cutoff})"
        outputs += [
            f"CASE WHEN {counts} THEN ({label})::FLOAT ELSE 0 END::FLOAT AS {name}__label",
            f"{counts}::INT::FLOAT AS {name}__mask",
            f"{counts}::INT::FLOAT AS {name}__weight",
        ]
    return f"""
        WITH impressions AS (
            SELECT DISTINCT *, CASE WHEN timestamp < {window.validation_start} THEN 'train'
                WHEN timestamp < {window.test_start} THEN 'validation' ELSE 'test' END AS split
            FROM '{spec.root}/impressions/*/*.parquet' WHERE {valid}
        )
        SELECT split, i.request_id AS request_id__key, i.item_id AS item_id__key,
            i.user_id AS user_id__key, i.timestamp AS impression__timestamp,
            i.device AS device__slice, i.user_segment AS user_segment__slice,
            {", ".join(f"i.{name.strip()}" for name in _TEXTS.split(","))},
            hour_of_day::VARCHAR AS hour_of_day,
            {", ".join(f"{name}::FLOAT AS {name}" for name in _NUMBERS)},
            {", ".join(outputs)}
        FROM impressions i
        LEFT JOIN {events("clicks", "count(*)", 1)} c USING (request_id, item_id)
        LEFT JOIN {events("conversions", "count(*)", 48)} v USING (request_id, item_id)
        LEFT JOIN {events("dwell", "sum(seconds)", 2)} d USING (request_id, item_id)
        LEFT JOIN {events("scroll", "max(depth)", 2)} s USING (request_id, item_id)
        LEFT JOIN {events("returns", "count(*)", 24, "request_id")} r USING (request_id)
    """
