"""Reading logs: every format, every fault a clear error or a counted dead letter."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.log_example_gen.fingerprint import fingerprint_logs
from components.log_example_gen.reader import Limits, ReadResult, read_source, scan_times
from components.log_example_gen.spec import Logs, Source, StreamColumn
from models.spec.errors import ConfigError, DataError

T = 1_600_000_000_000
"""2020-09-13T12:26:40Z"""


def columns(**types: str) -> dict[str, StreamColumn]:
    return {name: StreamColumn.model_validate({"type": kind}) for name, kind in types.items()}


def read(
    root: Path,
    path: str = "*",
    *,
    required: tuple[str, ...] = (),
    limits: Limits | None = None,
    explode: tuple[str, ...] = (),
    source: dict[str, Any] | None = None,
    stream_name: str = "clicks",
    **types: str,
) -> ReadResult:
    wanted = Source.model_validate({"path": path, "explode": list(explode)} | (source or {}))
    return read_source(
        root, wanted, columns(**types), stream_name=stream_name, required=required, limits=limits
    )


def values(result: ReadResult, name: str) -> list[Any]:
    column: list[Any] = result.table[name].to_pylist()
    return column


def dead(result: ReadResult) -> list[tuple[int, str]]:
    return list(zip(result.dead["row"].to_pylist(), result.dead["reason"].to_pylist(), strict=True))


def check_sum(result: ReadResult) -> None:
    assert result.num_read == len(result.table) + len(result.dead)


# Formats ---------------------------------------------------------------------------------------

CSV = 'id,timestamp,n,x,ok,tags\na,{t},1,1.5,true,"[""p"",""q""]"\nb,{t},,,,\n'
JSONL = (
    '{{"id": "a", "timestamp": {t}, "n": 1, "x": 1.5, "ok": true, "tags": ["p", "q"]}}\n'
    '{{"id": "b", "timestamp": {t}, "n": null}}\n'
)
TYPES = {"id": "string", "n": "int", "x": "float", "ok": "bool", "tags": "list[string]"}


def parquet_content(path: Path) -> None:
    pl.DataFrame(
        {
            "id": ["a", "b"],
            "timestamp": [T, T],
            "n": [1, None],
            "x": [1.5, None],
            "ok": [True, None],
            "tags": [["p", "q"], None],
        }
    ).write_parquet(path)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson.gz", "a.parquet"])
def test_formats_agree(tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        parquet_content(tmp_path / name)
    else:
        text = (CSV if "csv" in name else JSONL).format(t=T).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    result = read(tmp_path, **TYPES)
    assert values(result, "event__timestamp") == [T, T]
    assert values(result, "id") == ["a", "b"]
    assert values(result, "n") == [1, None]
    assert values(result, "x") == [1.5, None]
    assert values(result, "ok") == [True, None]
    assert values(result, "tags") == [["p", "q"], None]
    assert values(result, "source__row") == [1, 2]
    assert result.files == (name,)
    assert len(result.dead) == 0
    check_sum(result)


def test_tab_separated_with_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(f"﻿id\ttimestamp\r\nä\t{T}\r\n\r\n".encode())
    result = read(tmp_path, source={"delimiter": "\t"}, id="string")
    assert values(result, "id") == ["ä"]
    check_sum(result)


def test_files_of_several_globs_are_read_in_name_order(tmp_path: Path) -> None:
    for day in ("date=2", "date=1", "date=3"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "_SUCCESS").write_text("")
        (tmp_path / day / "part.csv").write_text(f"id,timestamp\n{day},{T}\n")
    (tmp_path / "date=2" / "part.csv").unlink()
    source = Source.model_validate({"path": ["date=*/*", "date=1/*.csv"]})
    result = read_source(tmp_path, source, columns(id="string"), stream_name="clicks")
    assert values(result, "id") == ["date=1", "date=3"]
    assert result.files == ("date=1/part.csv", "date=3/part.csv")


# Times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "ticks"), [("ms", T), ("s", T // 1000), ("us", T * 1000 + 7), ("s", T / 1000)]
)
def test_time_units(tmp_path: Path, unit: str, ticks: float) -> None:
    pl.DataFrame({"timestamp": [ticks]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(f"timestamp\n{ticks}\n")
    result = read(tmp_path, source={"time_unit": unit})
    assert values(result, "event__timestamp") == [T, T]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_typed_times_carry_their_unit(tmp_path: Path, unit: str, zone: str | None) -> None:
    ticks = T * 10**6 // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    times = pa.array([ticks, None], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"timestamp": times}), tmp_path / "a.parquet")
    result = read(tmp_path)
    assert values(result, "event__timestamp") == [T]
    assert dead(result) == [(2, "bad_timestamp")]


def test_text_times_are_utc(tmp_path: Path) -> None:
    texts = [
        "2020-09-13 12:26:40",
        "2020-09-13T12:26:40Z",
        "2020-09-13T14:26:40.000+02:00",
        "yesterday",
        "",
        "infinity",
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"timestamp": t}) + "\n" for t in texts))
    result = read(tmp_path)
    assert values(result, "event__timestamp") == [T] * 3
    assert dead(result) == [(4, "bad_timestamp"), (5, "bad_timestamp"), (6, "bad_timestamp")]


def test_dates_and_timestamp_columns(tmp_path: Path) -> None:
    day = datetime.date(2020, 9, 13)
    pl.DataFrame({"timestamp": [day], "published": [T], "born": [day]}).write_parquet(
        tmp_path / "a.parquet"
    )
    result = read(tmp_path, published="timestamp", born="timestamp")
    midnight = datetime.datetime(2020, 9, 13)
    assert values(result, "born") == [midnight]
    assert values(result, "published") == [midnight + datetime.timedelta(seconds=44_800)]


def test_huge_numbers_do_not_wrap_into_valid_times(tmp_path: Path) -> None:
    wrapping = (T + 2**64) // 1000
    pl.DataFrame({"timestamp": [wrapping, T // 1000]}).write_parquet(tmp_path / "a.parquet")
    result = read(tmp_path, source={"time_unit": "s"})
    assert dead(result) == [(1, "bad_timestamp")]


def test_seconds_where_milliseconds_are_declared(tmp_path: Path) -> None:
    pl.DataFrame({"timestamp": [T // 1000, T // 1000 + 5]}).write_parquet(tmp_path / "a.parquet")
    assert dead(read(tmp_path)) == [(1, "bad_timestamp"), (2, "bad_timestamp")]
    with pytest.raises(DataError, match="time_unit: s") as raised:
        scan_times(tmp_path, Source.model_validate({"path": "*"}), stream_name="impressions")
    assert "no row of 'impressions' has a valid time in column 'timestamp'" in str(raised.value)


def test_scan_times_are_sorted_and_counted_after_exploding(tmp_path: Path) -> None:
    frame = pl.DataFrame({"timestamp": [T + 9, T, None], "items": [[1, 2], [3], [4]]})
    frame.write_parquet(tmp_path / "a.parquet")
    source = Source.model_validate({"path": "*", "explode": ["items"]})
    times = scan_times(tmp_path, source, stream_name="impressions")
    assert times.tolist() == [T, T + 9, T + 9]
    assert times.dtype == np.int64


def test_limits_are_checked() -> None:
    logs = {"root": ".", "impressions": {"path": "a", "key": ["id"]}, "min_time": "soon"}
    with pytest.raises(ConfigError, match=r"logs\.min_time is not a time.*'soon'"):
        Limits.of(Logs.model_validate(logs))
    assert Limits.of(Logs.model_validate(logs | {"min_time": "2020-09-13"})).min_time_ms == (
        1_599_955_200_000
    )


# Faults of rows --------------------------------------------------------------------------------


def test_values_that_do_not_fit_make_a_row_malformed(tmp_path: Path) -> None:
    rows = [
        ("1", "1", "1.5", "true"),
        ("many", "1", "1.5", "true"),
        ("1.5", "1", "1.5", "true"),
        ("3.0", "1", "nan", "0"),
        ("1", "1", "inf", "true"),
        ("1", "1", "x", "true"),
        ("1", "1", "1.5", "maybe"),
        (" 2 ", "", "", ""),
    ]
    text = "n,id,x,ok,timestamp\n" + "".join(f"{','.join(row)},{T}\n" for row in rows)
    (tmp_path / "a.csv").write_text(text)
    result = read(tmp_path, n="int", id="string", x="float", ok="bool")
    assert [row for row, _ in dead(result)] == [2, 3, 5, 6, 7]
    assert {reason for _, reason in dead(result)} == {"malformed"}
    assert result.misfits == {"n": 2, "x": 2, "ok": 1}
    assert values(result, "n") == [1, 3, 2]
    assert values(result, "x") == [1.5, None, None]
    assert values(result, "ok") == [True, False, None]
    first = json.loads(result.dead["raw"][0].as_py())
    assert first == {"timestamp": str(T), "n": "many", "id": "1", "x": "1.5", "ok": "true"}
    check_sum(result)


def test_null_keys_are_malformed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"id,timestamp\n,{T}\na,{T}\n")
    result = read(tmp_path, required=("id",), id="string")
    assert dead(result) == [(1, "malformed")]


@pytest.mark.parametrize("size", [1_000_000, 10_001])
def test_long_strings_are_oversized_and_cut_in_the_dead_letter(tmp_path: Path, size: int) -> None:
    long = "ä" * (size // 2) + "x"
    rows = [{"id": long, "timestamp": T}, {"id": "é", "timestamp": T}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pl.DataFrame(rows).write_parquet(tmp_path / "b.parquet")
    pl.DataFrame(rows).write_csv(tmp_path / "c.csv")
    result = read(tmp_path, id="string")
    assert dead(result) == [(1, "oversized")] * 3
    assert values(result, "id") == ["é"] * 3
    assert all(len(raw.encode()) <= 1024 for raw in result.dead["raw"].to_pylist())
    check_sum(result)


def test_long_strings_in_lists_are_oversized(tmp_path: Path) -> None:
    pl.DataFrame({"timestamp": [T, T], "tags": [["a" * 11], ["a"] * 20]}).write_parquet(
        tmp_path / "a.parquet"
    )
    result = read(tmp_path, tags="list[string]", limits=Limits(max_string_bytes=10))
    assert dead(result) == [(1, "oversized")]


def test_invalid_utf8_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(f"id,timestamp\n\xff,{T}\nok,{T}\n".encode("latin-1"))
    (tmp_path / "b.jsonl").write_bytes(
        f'{{"id":"\xff","timestamp":{T}}}\n{{"id":"ok","timestamp":{T}}}\n'.encode("latin-1")
    )
    raw = pa.array([b"\xff", b"ok"]).cast(pa.binary())
    text = pa.StringArray.from_buffers(2, *raw.buffers()[1:3])
    pq.write_table(pa.table({"id": text, "timestamp": [T, T]}), tmp_path / "c.parquet")
    lists = pa.ListArray.from_arrays([0, 1, 2], text)
    result = read(tmp_path, id="string")
    assert dead(result) == [(1, "malformed")] * 3
    assert values(result, "id") == ["ok"] * 3
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"tags": lists, "timestamp": [T, T]}), tmp_path / "d" / "d.parquet")
    result = read(tmp_path, "d/*", tags="list[string]")
    assert dead(result) == [(1, "malformed")]
    assert values(result, "tags") == [["ok"]]


@pytest.mark.parametrize("fields", ["\xff", "\xff,{t},more", "\xff,{t}"])
def test_a_line_that_is_not_utf8_costs_one_row_whatever_its_fields(
    tmp_path: Path, fields: str
) -> None:
    bad = fields.format(t=T)
    content = f"id,timestamp\n{bad}\nok,{T}\nshort\n{bad}\nok,{T}\n"
    (tmp_path / "a.csv").write_bytes(content.encode("latin-1"))
    result = read(tmp_path, id="string")
    assert values(result, "id") == ["ok", "ok"]
    assert sorted(dead(result)) == [(1, "malformed"), (3, "malformed"), (4, "malformed")]
    assert result.table["source__row"].to_pylist() == [2, 5]
    check_sum(result)


def test_bad_lines_cost_one_row_each(tmp_path: Path) -> None:
    good = json.dumps({"id": "a", "timestamp": T})
    lines = [good, '{"id": "b', "[1]", "", "7", good, '{"id": "é"} {"id": 2}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.csv").write_text(
        f'id,timestamp\na,{T}\nb\n"c,{T}\nd,{T},9\n\n"e,""f",{T}\n"g" {T}\n'
    )
    result = read(tmp_path, id="string")
    assert values(result, "id") == ["a", "a", "a", 'e,"f']
    numbers = dead(result)
    assert numbers[:4] == [(2, "malformed"), (3, "malformed"), (5, "malformed"), (7, "malformed")]
    assert [row for row, _ in numbers[4:]] == [2, 3, 4, 7]
    assert result.dead["raw"].to_pylist()[:2] == ['{"id": "b', "[1]"]
    check_sum(result)


@pytest.mark.parametrize(
    "broken",
    [
        f"x\r{T},1,2",
        f"x,{T}\ry,{T}",
        "\r\r",
        f'x"y,"{T}',
        f'x"y,{T},"z',
    ],
)
def test_a_line_that_the_parser_would_break_or_join_costs_one_row(
    tmp_path: Path, broken: str
) -> None:
    lines = ["id,timestamp", f"a,{T}", broken, f'"b\rc",{T}', f'd"",{T}\r', f"e,{T}"]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode())
    result = read(tmp_path, id="string")
    assert values(result, "id") == ["a", "b\rc", 'd""', "e"]
    assert result.table["source__row"].to_pylist() == [1, 3, 4, 5]
    assert dead(result) == [(2, "malformed")]
    check_sum(result)


def test_csv_without_faults_but_with_quotes_and_unicode(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'id,timestamp\n"日本, ""x""",{T}\n')
    assert values(read(tmp_path, id="string"), "id") == ['日本, "x"']


# Lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["parquet", "jsonl", "csv"])
def test_slates_explode_to_rows(tmp_path: Path, file_format: str) -> None:
    rows = [
        {"request": "r", "timestamp": T, "items": [1, 2], "scores": [0.5, None], "clicked": [2]},
        {"request": "s", "timestamp": T, "items": [3], "scores": [0.5, 0.25], "clicked": []},
        {"request": "t", "timestamp": T, "items": [], "scores": [], "clicked": None},
        {"request": "u", "timestamp": None, "items": [4, 5], "scores": [1.0, 2.0], "clicked": []},
    ]
    path = tmp_path / f"a.{file_format}"
    if file_format == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif file_format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        texts = [
            {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
        ]
        pl.DataFrame(texts).write_csv(path)
    types = {"request": "string", "items": "string", "scores": "float", "clicked": "list[int]"}
    result = read(tmp_path, explode=("items", "scores"), **types)
    assert values(result, "request") == ["r", "r"]
    assert values(result, "items") == ["1", "2"]
    assert values(result, "scores") == [0.5, None]
    assert values(result, "clicked") == [[2], [2]]
    assert sorted(dead(result)) == [
        (2, "malformed"),
        (3, "empty"),
        (4, "bad_timestamp"),
        (4, "bad_timestamp"),
    ]
    assert result.num_read == 6
    check_sum(result)


def test_a_candidate_repeated_in_one_slate_is_a_dead_letter(tmp_path: Path) -> None:
    rows = [
        {"request": "r", "timestamp": T, "items": ["a", "b", "a", "a"], "tags": ["x"]},
        {"request": "r", "timestamp": T, "items": ["a"], "tags": ["x"]},
        {"request": "s", "timestamp": T, "items": ["a", "b"], "tags": []},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    types = {"request": "string", "items": "string", "tags": "list[string]"}
    slates = read(tmp_path, explode=("items",), stream_name="impressions", **types)
    assert values(slates, "items") == ["a", "b", "a", "a", "b"]
    assert dead(slates) == [(1, "repeated"), (1, "repeated")]
    assert slates.num_read == 7
    check_sum(slates)
    # Equal events of a history are duplicates: dropped and counted where events meet.
    history = read(tmp_path, explode=("items",), **types)
    assert len(history.table) == 7 and not dead(history)


def test_histories_explode_with_their_times(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": ["u"], "times": [[T, T + 5]], "items": [["a", None]], "rest": [["x"]]}
    )
    frame.write_parquet(tmp_path / "a.parquet")
    result = read(
        tmp_path,
        explode=("times", "items"),
        source={"timestamp": "times"},
        required=("items",),
        user="string",
        items="string",
    )
    assert values(result, "event__timestamp") == [T]
    assert dead(result) == [(1, "malformed")]


def test_elements_that_do_not_fit_make_the_row_malformed(tmp_path: Path) -> None:
    rows = [
        {"timestamp": T, "sizes": ["1", "x"]},
        {"timestamp": T, "sizes": ["1", None]},
        {"timestamp": T, "sizes": None},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(f'{{"timestamp": {T}, "sizes": 5}}\n')
    result = read(tmp_path, sizes="list[int]")
    assert dead(result) == [(1, "malformed"), (1, "malformed")]
    assert values(result, "sizes") == [[1, None], None]


@pytest.mark.parametrize("kind", ["string", "int", "float", "bool", "timestamp", "list[float]"])
def test_an_entirely_missing_column_is_null(tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table({"timestamp": [T], "nothing": pa.nulls(1)}), tmp_path / "a.parquet")
    result = read(tmp_path, nothing=kind)
    assert values(result, "nothing") == [None]


def test_ids_of_other_types_become_text(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "timestamp": [T, T],
            "small": pl.Series([7, None], dtype=pl.Int8),
            "floating": [12.0, float("nan")],
            "flag": [True, None],
            "category": pl.Series(["a", None], dtype=pl.Categorical),
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    pq.write_table(frame.to_pandas().pipe(pa.Table.from_pandas), tmp_path / "b.parquet")
    result = read(tmp_path, small="string", floating="string", flag="string", category="string")
    assert values(result, "small") == ["7", None, "7", None]
    assert values(result, "floating") == ["12", None, "12", None]
    assert values(result, "flag") == ["true", None, "true", None]
    assert values(result, "category") == ["a", None, "a", None]


# Faults of files -------------------------------------------------------------------------------


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file of 'clicks' matches.*an empty folder"):
        read(tmp_path, "clicks/*", id="string")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "nowhere", id="string")


def test_no_match_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "click").mkdir()
    with pytest.raises(DataError, match="a folder with click.*did you mean 'click'"):
        read(tmp_path, "clicks/*", id="string")


def test_unknown_extension(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(DataError, match=r"'a.xlsx' has an unknown extension.*format: parquet"):
        read(tmp_path, id="string")
    (tmp_path / "a.xlsx").write_text(f"id,timestamp\na,{T}\n")
    assert values(read(tmp_path, source={"format": "csv"}, id="string"), "id") == ["a"]


def test_parquet_cut_in_half(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet_content(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"file 'a.parquet' cannot be read.*whole Parquet file"):
        read(tmp_path, id="string")


def test_gzip_cut_in_half(tmp_path: Path) -> None:
    content = gzip.compress(CSV.format(t=T).encode() * 100)
    (tmp_path / "a.csv.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"file 'a.csv.gz' cannot be read"):
        read(tmp_path, id="string")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_missing_columns_name_the_nearest(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"user_idx": ["u"], "timestamp": [T]})
    if name == "a.csv":
        frame.write_csv(tmp_path / name)
    else:
        frame.write_parquet(tmp_path / name)
    with pytest.raises(
        DataError, match=rf"file '{name}' of 'clicks' lacks 'user_id', did you mean 'user_idx'"
    ):
        read(tmp_path, user_id="string")


def test_a_missing_time_column_names_the_key_that_sets_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"id,ts\na,{T}\n")
    with pytest.raises(DataError, match="lacks 'timestamp'.*correct the source's `timestamp` in"):
        read(tmp_path, id="string")
    with pytest.raises(DataError, match="`timestamp` and `source` .or the column's name. in"):
        read(tmp_path, ident="string")


@pytest.mark.parametrize(
    ("content", "file_format", "remedy"),
    [
        (gzip.compress(CSV.format(t=T).encode()), "csv", "add .gz to its name"),
        (bz2.compress(JSONL.format(t=T).encode()), "jsonl", "add .bz2 to its name"),
        (b"PAR1, the file, PAR1", "csv", "set `format: parquet` on the source"),
        (CSV.format(t=T).encode(), "parquet", "set the source's `format` to what it is"),
        (CSV.format(t=T).encode(), "jsonl", "no line is a JSON object"),
    ],
    ids=["gzip as csv", "bzip2 as jsonl", "parquet as csv", "csv as parquet", "csv as jsonl"],
)
def test_files_of_another_kind_than_declared(
    tmp_path: Path, content: bytes, file_format: str, remedy: str
) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(DataError, match=remedy):
        read(tmp_path, source={"format": file_format}, id="string")


def test_wrong_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"id;timestamp\na;{T}\n")
    with pytest.raises(DataError, match="correct the source's `delimiter`"):
        read(tmp_path, id="string")


def test_header_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("")
    with pytest.raises(DataError, match="has no header.*an empty file"):
        read(tmp_path, id="string")
    path.write_text("id,id,timestamp\n")
    with pytest.raises(DataError, match="names a column twice.*columns 1, 2"):
        read(tmp_path, id="string")
    path.write_text("id,timestamp\n")
    assert read(tmp_path, id="string").num_read == 0


def test_a_json_key_that_no_row_has(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"user": "u", "timestamp": {T}, "kind": null}}\n')
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(DataError, match="log 'clicks' lacks 'users', did you mean 'user'"):
        read(tmp_path, users="string")
    # A key that is present but always null, or present in another file, is a missing value.
    (tmp_path / "c.jsonl").write_text(f'{{"timestamp": {T}, "rare": 1}}\n')
    result = read(tmp_path, kind="string", rare="int")
    assert values(result, "rare") == [None, 1]


def test_lists_where_scalars_are_declared_and_the_reverse(tmp_path: Path) -> None:
    parquet_content(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"'tags' holds List.*declare it list\[string\]"):
        read(tmp_path, tags="string")
    with pytest.raises(DataError, match=r"'id' holds String.*|'n' holds Int64"):
        read(tmp_path, n="list[int]")
    with pytest.raises(DataError, match="take it out of `explode`"):
        read(tmp_path, explode=("n",), id="string")


def test_times_where_numbers_are_declared(tmp_path: Path) -> None:
    pl.DataFrame({"timestamp": [T], "when": [datetime.datetime(2020, 1, 1)]}).write_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match="column 'when' holds Datetime.*declare it timestamp"):
        read(tmp_path, when="float")


# Fingerprint -----------------------------------------------------------------------------------


def test_fingerprint_sees_one_byte_and_not_the_clock(tmp_path: Path) -> None:
    import os

    logs = Logs.model_validate(
        {"root": ".", "impressions": {"path": "*.csv", "key": ["id"], "timestamp": "t"}}
    )
    path = tmp_path / "a.csv"
    path.write_text("id,t\na,1\n")
    status = path.stat()
    before = fingerprint_logs(logs, tmp_path)
    path.write_text("id,t\nb,1\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    changed = fingerprint_logs(logs, tmp_path)
    assert changed != before
    os.utime(path, ns=(0, 0))
    (tmp_path / "unrelated.txt").write_text("x")
    assert fingerprint_logs(logs, tmp_path) == changed
    path.rename(tmp_path / "b.csv")
    assert fingerprint_logs(logs, tmp_path) != changed
