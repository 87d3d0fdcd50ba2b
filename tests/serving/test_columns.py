"""pandas and Arrow columns become arrays and lists, missing values None or NaN."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from serving.api.messages import DATA_TYPES
from serving.columns import as_columns, plain
from serving.errors import InvalidRequestError
from serving.inputs import encode_input, encode_inputs
from serving.signatures import SignatureSpec, TensorSpec


def spec(dtype: str, *shape: int | None, name: str = "x") -> TensorSpec:
    return TensorSpec(name, DATA_TYPES[f"DT_{dtype}"], shape)


STRINGS, FLOATS, INTEGERS = spec("STRING", None), spec("FLOAT", None), spec("INT64", None)
NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "wanted", "expected"),
    [
        (pd.Series(["a", None, np.nan]), STRINGS, [b"a", b"", b""]),
        (pd.Series(["a", pd.NA], dtype="string"), STRINGS, [b"a", b""]),
        (pd.Series(["b", None, "a"], dtype="category"), STRINGS, [b"b", b"", b"a"]),
        (pd.Index(["a"]), STRINGS, [b"a"]),
        (pd.Series([1.5, np.nan]), FLOATS, [1.5, NAN]),
        (pd.Series([1, pd.NA], dtype="Int64"), FLOATS, [1.0, NAN]),
        (pd.Series([1, 2], dtype="Int8"), INTEGERS, [1, 2]),
        (pd.Series([True, pd.NA], dtype="boolean"), FLOATS, [1.0, NAN]),
        (pd.Series([["a"], None, ["b", "c"]]), spec("STRING", None, None),
         [[b"a", b""], [b"", b""], [b"b", b"c"]]),
        (pd.Series([np.array([1.0]), np.array([2.0, 3.0])]), spec("FLOAT", None, None),
         [[1.0, NAN], [2.0, 3.0]]),
        (pa.array(["a", None]), STRINGS, [b"a", b""]),
        (pa.array([b"a"], pa.large_binary()), STRINGS, [b"a"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), STRINGS, [b"a", b"b", b"a"]),
        (pa.chunked_array([["a"], ["b"]]), STRINGS, [b"a", b"b"]),
        (pa.array([1, None]), FLOATS, [1.0, NAN]),
        (pa.array([1.5, 2.5]).slice(1), FLOATS, [2.5]),
        (pa.chunked_array([[1], [2]]), INTEGERS, [1, 2]),
        (pa.array([True, False]), spec("BOOL", None), [True, False]),
        (pa.array([["a"], None, []]), spec("STRING", None, None), [[b"a"], [b""], [b""]]),
        (pa.array([[1.0], [2.0, None]]), spec("FLOAT", None, None), [[1.0, NAN], [2.0, NAN]]),
    ],
)  # fmt: skip
def test_columns(column, wanted, expected) -> None:
    np.testing.assert_equal(encode_input(column, wanted).tolist(), expected)


@pytest.mark.parametrize(
    ("column", "wanted", "text"),
    [
        (pd.Series([1, pd.NA], dtype="Int64"), INTEGERS, "wrong type"),
        (pa.array([1, None]), INTEGERS, "wrong type"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), STRINGS, "Timestamp"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), FLOATS, "wrong type"),
        (pa.array([1]), STRINGS, "int"),
    ],
)
def test_columns_that_do_not_fit(column, wanted, text) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        encode_input(column, wanted)


def test_lengths_of_missing_sequences_are_zero() -> None:
    visits = spec("FLOAT", None, None, name="visits")
    lengths = spec("INT64", None, name="visits_length")
    signature = SignatureSpec(
        "predict", {"visits": visits, "visits_length": lengths}, {}, frozenset()
    )
    arrays = encode_inputs({"visits": pa.array([[1.0, 2.0], None])}, signature)
    assert arrays["visits_length"].tolist() == [2, 0]
    assert arrays["visits"].tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_tables_are_read_by_name() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None]}, index=[7, 9])
    for table in (frame, pa.Table.from_pandas(frame, preserve_index=False)):
        columns = as_columns(table)
        assert list(columns) == ["a", "b"]
        assert list(columns["a"]) == [1.0, 2.0]
        assert list(columns["b"]) == ["x", None]


def test_names_come_once() -> None:
    frame = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    with pytest.raises(InvalidRequestError, match="'a' twice"):
        as_columns(frame)
    with pytest.raises(InvalidRequestError, match="name is not usable"):
        as_columns(pa.Table.from_arrays([pa.array([1])] * 2, names=["b", "b"]))


def test_other_values_stay_as_they_are() -> None:
    for value in ([1], np.zeros(2), "a", None, {"a": 1}):
        assert plain(value) is value


def test_neither_library_is_imported() -> None:
    code = (
        "import sys; from serving.columns import as_columns; as_columns({'a': [1]});"
        "print([m for m in ('pandas', 'pyarrow', 'tensorflow') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
