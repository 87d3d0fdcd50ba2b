"""Labels, masks and features of hard simulated logs, as SQL: what LogExampleGen must equal.

Written from the description of the dataset (`EXTRA` and examples/simulated/config.yaml), by other
means than the component's: attribution by joins, as-of features by window frames over the union of
events and questions. Nothing is imported from the component.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

EXTRA = (
    "features.user_seconds_1d={as_of: {events: dwell, entity: user_id, aggregate: sum, "
    "value: seconds, window: 24h}}",
    "features.item_seconds_mean={as_of: {events: dwell, entity: item_id, aggregate: mean, "
    "value: seconds, where: seconds > 3, availability_lag: 1h}}",
    "features.user_recency={as_of: {events: clicks, entity: user_id, aggregate: recency}}",
    "features.item_outcomes={as_of: {events: impressions, entity: item_id, aggregate: count, "
    "where: converted, window: 3d}}",
    "features.category_outcomes={as_of: {events: impressions, entity: [user_segment, "
    "item_category], aggregate: sum, value: scroll_depth, availability_lag: 5m}}",
)
"""Features beside those of the simulated example, for the aggregates that it does not use."""

HOUR, DAY, LAG = 3_600_000, 86_400_000, 300_000
KEYS = ("request_id", "item_id")
ROUNDED = frozenset(
    {"watch_seconds__label", "user_seconds_1d", "item_seconds_mean", "category_outcomes"}
)
"""Columns that hold sums of fractions: equal up to rounding. All others are equal exactly."""

_COLUMNS = (
    "request_id, user_id, item_id, timestamp, position, device, hour_of_day, country, surface, "
    "user_segment, user_age_days, user_activity, item_category, item_creator, "
    "item_length_seconds, item_quality"
)
_OTHERS = sorted(set(_COLUMNS.split(", ")) - {"request_id", "item_id", "timestamp"})
_VALID = "timestamp >= 946684800000 AND timestamp < 4102444800000"

_STREAMS = {
    # stream: columns, keys, longest window
    "clicks": ("request_id, item_id, user_id", KEYS, HOUR),
    "conversions": ("request_id, item_id, user_id", KEYS, 48 * HOUR),
    "dwell": ("request_id, item_id, seconds", KEYS, 2 * HOUR),
    "scroll": ("request_id, item_id, depth", KEYS, 2 * HOUR),
    "returns": ("request_id", ("request_id",), 24 * HOUR),
}


def write_expected(
    logs: Path, window: Mapping[str, int], out: Path, *, memory_gib: int = 4
) -> dict[str, dict[str, int]]:
    """Computes the expected examples.

    Args:
        logs: Folder of the hard logs.
        window: train_start, validation_start, test_start, test_end, train_cutoff, cutoff.
        out: Folder; `examples.parquet` and scratch files go there.
        memory_gib: What DuckDB may use; it spills the rest.

    Returns:
        Counts by stream: read, used, duplicates and the reasons of dead rows.
    """
    database = duckdb.connect(str(out / "reference.duckdb"))
    database.execute(f"SET memory_limit = '{memory_gib}GiB'")
    database.execute("SET preserve_insertion_order = false")
    for name, value in window.items():
        database.execute(f"CREATE MACRO {name}() AS {int(value)}")
    counts = {"impressions": _impressions(database, logs)}
    for stream in _STREAMS:
        counts[stream] = _events(database, logs, stream)
    database.execute(_OUTCOMES)
    for name, (entity, events, where) in _FRAMES.items():
        _frames(database, name, entity, events, where)
    database.execute(_LAST_VALUES)
    database.execute(f"COPY ({_EXAMPLES}) TO '{out / 'examples.parquet'}' (FORMAT parquet)")
    database.close()
    return counts


def _impressions(database: duckdb.DuckDBPyConnection, logs: Path) -> dict[str, int]:
    database.execute(
        f"""
        CREATE VIEW raw_impressions AS SELECT {_COLUMNS}
        FROM read_parquet('{logs}/impressions/*/*.parquet', hive_partitioning = false);
        CREATE TABLE distinct_impressions AS SELECT DISTINCT * FROM raw_impressions
        WHERE request_id IS NOT NULL AND item_id IS NOT NULL AND {_VALID};
        CREATE TABLE impressions AS
        SELECT row_number() OVER () AS id, *,
            CASE WHEN timestamp < train_start() OR timestamp >= test_end() THEN NULL
                 WHEN timestamp < validation_start() THEN 'train'
                 WHEN timestamp < test_start() THEN 'validation'
                 ELSE 'test' END AS split
        FROM (
            SELECT * FROM distinct_impressions
            QUALIFY row_number() OVER (
                PARTITION BY request_id, item_id
                ORDER BY timestamp, {", ".join(f"{name} NULLS FIRST" for name in _OTHERS)}
            ) = 1
        );
        """
    )
    return _counted(
        database,
        read="SELECT count(*) FROM raw_impressions",
        malformed="SELECT count(*) FROM raw_impressions "
        "WHERE request_id IS NULL OR item_id IS NULL",
        bad_timestamp="SELECT count(*) FROM raw_impressions "
        f"WHERE request_id IS NOT NULL AND item_id IS NOT NULL AND NOT coalesce({_VALID}, false)",
        conflicting_key="SELECT (SELECT count(*) FROM distinct_impressions) "
        "- (SELECT count(*) FROM impressions)",
        used="SELECT count(*) FROM impressions",
    )


def _events(database: duckdb.DuckDBPyConnection, logs: Path, stream: str) -> dict[str, int]:
    """Makes `<stream>`: distinct events before the cut-off, with the moment they belong to."""
    columns, keys, window = _STREAMS[stream]
    has_keys = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    same = " AND ".join(f"e.{key} = m.{key}" for key in keys)
    database.execute(
        f"""
        CREATE VIEW raw_{stream} AS SELECT timestamp, {columns}
        FROM read_parquet('{logs}/{stream}/*/*.parquet', hive_partitioning = false);
        CREATE TABLE distinct_{stream} AS
        SELECT DISTINCT * FROM raw_{stream} WHERE {has_keys} AND {_VALID};
        CREATE TABLE {stream} AS
        WITH moments AS (SELECT DISTINCT {", ".join(keys)}, timestamp AS moment FROM impressions),
        events AS (
            SELECT row_number() OVER () AS event, *
            FROM distinct_{stream} WHERE timestamp < cutoff()
        )
        SELECT e.*,
            max(m.moment) FILTER (WHERE m.moment <= e.timestamp) AS moment,
            count(m.moment) > 0 AS is_known
        FROM events e LEFT JOIN moments m ON {same}
        GROUP BY ALL;
        """
    )
    found = f"SELECT count(*) FROM {stream} WHERE"
    return _counted(
        database,
        read=f"SELECT count(*) FROM raw_{stream}",
        malformed=f"SELECT count(*) FROM raw_{stream} WHERE NOT ({has_keys})",
        bad_timestamp=f"SELECT count(*) FROM raw_{stream} "
        f"WHERE {has_keys} AND NOT coalesce({_VALID}, false)",
        after_cutoff=f"SELECT count(*) FROM distinct_{stream} WHERE timestamp >= cutoff()",
        orphan=f"{found} NOT is_known",
        before_impression=f"{found} is_known AND moment IS NULL",
        late=f"{found} timestamp - moment >= {window}",
        used=f"{found} timestamp - moment < {window}",
    )


def _counted(database: duckdb.DuckDBPyConnection, **queries: str) -> dict[str, int]:
    counts = {}
    for name, query in queries.items():
        ((count,),) = database.sql(query).fetchall()
        counts[name] = int(count)
    counts["duplicates"] = 2 * counts["read"] - sum(counts.values())
    return {name: count for name, count in counts.items() if count or name == "duplicates"}


def _happened(stream: str, window: int, what: str, on: str = "request_id, item_id") -> str:
    """Aggregates the events of a stream by the impression they belong to."""
    return f"""(
        SELECT {on}, moment, {what} AS value FROM {stream}
        WHERE timestamp - moment < {window} GROUP BY ALL
    )"""


_OUTCOMES = f"""
CREATE TABLE outcomes AS
SELECT i.*,
    coalesce(c.value, 0) > 0 AS clicked,
    coalesce(v.value, 0) > 0 AS converted,
    coalesce(w.value, 0) AS watch_seconds,
    s.value AS scroll_depth,
    coalesce(r.value, 0) > 0 AS returned,
    CASE split WHEN 'train' THEN least(train_cutoff(), cutoff()) ELSE cutoff() END AS seen_until
FROM impressions i
LEFT JOIN {_happened("clicks", HOUR, "count(*)")} c
    ON (c.request_id, c.item_id, c.moment) = (i.request_id, i.item_id, i.timestamp)
LEFT JOIN {_happened("conversions", 48 * HOUR, "count(*)")} v
    ON (v.request_id, v.item_id, v.moment) = (i.request_id, i.item_id, i.timestamp)
LEFT JOIN {_happened("dwell", 2 * HOUR, "sum(seconds)")} w
    ON (w.request_id, w.item_id, w.moment) = (i.request_id, i.item_id, i.timestamp)
LEFT JOIN {_happened("scroll", 2 * HOUR, "max(depth)")} s
    ON (s.request_id, s.item_id, s.moment) = (i.request_id, i.item_id, i.timestamp)
LEFT JOIN {_happened("returns", 24 * HOUR, "count(*)", "request_id")} r
    ON (r.request_id, r.moment) = (i.request_id, i.timestamp)
"""

_CLICKS_WITH = (
    "(SELECT e.timestamp AS s, {0} FROM clicks e JOIN impressions i "
    f"ON (e.request_id, e.item_id, e.moment) = (i.request_id, i.item_id, i.timestamp) "
    f"WHERE e.timestamp - e.moment < {HOUR})"
)
_DWELL_WITH_USER = (
    "(SELECT e.timestamp AS s, i.user_id, e.seconds AS v FROM dwell e JOIN impressions i "
    "ON (e.request_id, e.item_id, e.moment) = (i.request_id, i.item_id, i.timestamp) "
    f"WHERE e.timestamp - e.moment < {2 * HOUR})"
)
_SHOWN = "(SELECT timestamp AS s, {0} FROM outcomes WHERE timestamp < cutoff() AND {1})"
_RANGE = "RANGE BETWEEN {0} PRECEDING AND 1 PRECEDING"

_SEGMENT = "user_segment, item_category"
_FRAMES: dict[str, tuple[str, str, dict[str, tuple[str, int, str]]]] = {
    # table: entity, events (s = when known, v = value), {feature: (aggregate, lag, frame start)}
    "item_clicks": (
        "item_id",
        "(SELECT timestamp AS s, item_id FROM clicks)",
        {"item_clicks_24h": ("count", LAG, str(DAY))},
    ),
    "item_shown": (
        "item_id",
        _SHOWN.format("item_id", "true"),
        {
            "item_exposures_24h": ("count", LAG, str(DAY)),
            "item_age_seconds": ("min", LAG, "UNBOUNDED"),
        },
    ),
    "item_conversions": (
        "item_id",
        "(SELECT timestamp AS s, item_id FROM conversions)",
        {"item_conversions_3d": ("count", LAG, str(3 * DAY))},
    ),
    "user_clicks": (
        "user_id",
        "(SELECT timestamp AS s, user_id FROM clicks)",
        {
            "user_clicks_3d": ("count", LAG, str(3 * DAY)),
            "user_recency": ("max", 0, "UNBOUNDED"),
            "num_clicks_before": ("count", LAG, "UNBOUNDED"),
        },
    ),
    "user_shown": (
        "user_id",
        _SHOWN.format("user_id", "true"),
        {"user_exposures_3d": ("count", LAG, str(3 * DAY))},
    ),
    "user_category": (
        "user_id, item_category",
        _CLICKS_WITH.format("e.user_id, i.item_category"),
        {"user_category_clicks_3d": ("count", LAG, str(3 * DAY))},
    ),
    "segment_clicks": (
        _SEGMENT,
        _CLICKS_WITH.format("i.user_segment, i.item_category"),
        {"segment_category_clicks_24h": ("count", LAG, str(DAY))},
    ),
    "segment_shown": (
        _SEGMENT,
        _SHOWN.format(_SEGMENT, "true"),
        {"segment_category_exposures_24h": ("count", LAG, str(DAY))},
    ),
    "user_dwell": ("user_id", _DWELL_WITH_USER, {"user_seconds_1d": ("sum", 0, str(DAY))}),
    "item_dwell": (
        "item_id",
        "(SELECT timestamp AS s, item_id, seconds AS v FROM dwell WHERE seconds > 3)",
        {"item_seconds_mean": ("avg", HOUR, "UNBOUNDED")},
    ),
    # A conversion is final after 48 hours, a scroll depth after 2.
    "item_converted": (
        "item_id",
        _SHOWN.format("item_id", "converted").replace(
            "timestamp AS s", f"timestamp + {2 * DAY} AS s"
        ),
        {"item_outcomes": ("count", 0, str(3 * DAY))},
    ),
    "segment_scroll": (
        _SEGMENT,
        _SHOWN.format(f"{_SEGMENT}, scroll_depth AS v", "true").replace(
            "timestamp AS s", f"timestamp + {2 * HOUR} AS s"
        ),
        {"category_outcomes": ("sum", LAG, "UNBOUNDED")},
    ),
}


def _frames(
    database: duckdb.DuckDBPyConnection,
    name: str,
    entity: str,
    events: str,
    features: Mapping[str, tuple[str, int, str]],
) -> None:
    """Makes `of_<name>`: one row per impression inside the windows whose entity is known.

    Events and questions are ordered together; a question at time a looks at the range
    [a - window, a - 1] of whole milliseconds.
    """
    known = " AND ".join(f"{column} IS NOT NULL" for column in entity.split(", "))
    value = "v" if " AS v" in events else "NULL::DOUBLE AS v"
    parts = []
    for feature, (aggregate, lag, start) in features.items():
        what = {"count": "count(*)", "min": "min(s)", "max": "max(s)"}.get(
            aggregate, f"{aggregate}(v)"
        )
        parts.append(
            f"""
            SELECT id, {feature} FROM (
                SELECT id, {what} FILTER (WHERE id IS NULL) OVER (
                    PARTITION BY {entity} ORDER BY s {_RANGE.format(start)}
                ) AS {feature}
                FROM (
                    SELECT NULL::BIGINT AS id, s, {entity}, {value} FROM {events} WHERE {known}
                    UNION ALL
                    SELECT id, timestamp - {lag} AS s, {entity}, NULL AS v
                    FROM impressions WHERE split IS NOT NULL AND {known}
                )
            ) WHERE id IS NOT NULL
            """
        )
    joined = " JOIN ".join(
        f"({part}) USING (id)" if i else f"({part})" for i, part in enumerate(parts)
    )
    database.execute(f"CREATE TABLE of_{name} AS SELECT * FROM {joined}")


_LAST_VALUES = """
CREATE TABLE of_recent AS
WITH numbered AS (
    SELECT user_id,
        row_number() OVER w AS number,
        list(item_id) OVER (w ROWS BETWEEN 9 PRECEDING AND CURRENT ROW) AS items
    FROM clicks WHERE user_id IS NOT NULL
    WINDOW w AS (PARTITION BY user_id ORDER BY timestamp, item_id DESC)
)
SELECT q.id, list_reverse(n.items) AS items
FROM of_user_clicks q JOIN impressions i USING (id)
JOIN numbered n ON n.user_id = i.user_id AND n.number = q.num_clicks_before
"""

_COUNTS = (
    "item_clicks_24h",
    "item_exposures_24h",
    "item_conversions_3d",
    "user_clicks_3d",
    "user_exposures_3d",
    "user_category_clicks_3d",
    "segment_category_clicks_24h",
    "segment_category_exposures_24h",
    "user_seconds_1d",
    "item_outcomes",
    "category_outcomes",
)
_FEATURES = f"""
SELECT o.*,
    {", ".join(f"coalesce({name}, 0)::DOUBLE AS {name}" for name in _COUNTS)},
    (timestamp - of_item_shown.item_age_seconds) / 1000.0 AS item_age_seconds,
    (timestamp - of_user_clicks.user_recency) / 1000.0 AS user_recency,
    item_seconds_mean,
    list_resize(coalesce(items, []), 10, '') AS user_recent_items
FROM outcomes o {" ".join(f"LEFT JOIN of_{name} USING (id)" for name in [*_FRAMES, "recent"])}
WHERE split IS NOT NULL
"""
_MATURE = {"click": HOUR, "conversion": 48 * HOUR, "watch_seconds": 2 * HOUR}
_MATURE |= {"scroll_depth": 2 * HOUR, "returned": 24 * HOUR}
_MASKS = {
    "click": "true",
    "conversion": f"timestamp + {HOUR} <= seen_until",
    "conversion_given_click": f"timestamp + {HOUR} <= seen_until AND clicked",
    "watch_seconds": "clicked",
    "scroll_depth": "clicked AND scroll_depth IS NOT NULL",
    "returned": "true",
}
_LABELS = {
    "click": "clicked",
    "conversion": "clicked AND converted",
    "conversion_given_click": "converted",
    "watch_seconds": "watch_seconds",
    "scroll_depth": "scroll_depth",
    "returned": "returned",
}


def _labels() -> str:
    parts = []
    for name, mask in _MASKS.items():
        mature = _MATURE[name.removesuffix("_given_click")]
        counts = f"({mask} AND timestamp + {mature} <= seen_until)"
        parts.append(f"{counts}::INT::FLOAT AS {name}__mask")
        parts.append(f"{counts}::INT::FLOAT AS {name}__weight")
        parts.append(
            f"CASE WHEN {counts} THEN ({_LABELS[name]})::DOUBLE::FLOAT ELSE 0 END AS {name}__label"
        )
    return ", ".join(parts)


_NUMBERS = ("user_age_days", "user_activity", "item_length_seconds", "item_quality")
_SHOWN_COUNTS = tuple(name for name in _COUNTS if not name.startswith("segment_category"))
_FLOATS = (*_NUMBERS, *_SHOWN_COUNTS, "item_age_seconds", "user_recency", "item_seconds_mean")
_TEXTS = ("user_id", "item_id", "device", "surface", "country", "user_segment", "item_category")
_EXAMPLES = f"""
WITH features AS ({_FEATURES}),
rates AS (
    SELECT *,
        (item_clicks_24h + 0.12::DOUBLE * 20) / (item_exposures_24h + 20) AS item_click_rate_24h,
        (segment_category_clicks_24h + 0.12::DOUBLE * 20)
            / (segment_category_exposures_24h + 20) AS segment_category_click_rate_24h
    FROM features
),
ranked AS (
    SELECT *,
        (rank() OVER (PARTITION BY request_id, split ORDER BY item_click_rate_24h::FLOAT DESC) - 1)
            / count(*) OVER (PARTITION BY request_id, split) AS item_click_rate_rank
    FROM rates
)
SELECT split, request_id AS request_id__key, item_id AS item_id__key,
    coalesce(user_id, '') AS user_id__key, timestamp AS impression__timestamp,
    device AS device__slice, user_segment AS user_segment__slice,
    {", ".join(_TEXTS)}, item_creator, hour_of_day::VARCHAR AS hour_of_day,
    {", ".join(f"{name}::FLOAT AS {name}" for name in _FLOATS)},
    item_click_rate_24h::FLOAT AS item_click_rate_24h,
    segment_category_click_rate_24h::FLOAT AS segment_category_click_rate_24h,
    item_click_rate_rank::FLOAT AS item_click_rate_rank,
    user_recent_items, {_labels()}
FROM ranked
"""
