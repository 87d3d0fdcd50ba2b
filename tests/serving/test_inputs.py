"""What callers pass becomes what the signature takes, or an error that names the feature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from serving.api.messages import DATA_TYPES
from serving.errors import InvalidRequestError
from serving.inputs import encode_input, encode_inputs
from serving.ranking import encode_rank, rank_outputs, read_slate
from serving.signatures import SignatureSpec, TensorSpec


def spec(dtype: str, *shape: int | None, name: str = "x") -> TensorSpec:
    return TensorSpec(name, DATA_TYPES[f"DT_{dtype}"], shape)


def signature(*inputs: TensorSpec, optional: tuple[str, ...] = ()) -> SignatureSpec:
    score = TensorSpec("score", DATA_TYPES["DT_FLOAT"], (None,))
    return SignatureSpec(
        "rank", {each.name: each for each in inputs}, {"score": score}, frozenset(optional)
    )


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (["a", b"b", None], spec("STRING", None), [b"a", b"b", b""]),
        (("ü",), spec("STRING", None), ["ü".encode()]),
        (np.array(["a", "bc"]), spec("STRING", None), [b"a", b"bc"]),
        (np.array([b"a\0b"], object), spec("STRING", None), [b"a\0b"]),
        (pd.Series(["a", None], dtype=object), spec("STRING", None), [b"a", b""]),
        (["a", float("nan"), pd.NA], spec("STRING", None), [b"a", b"", b""]),
        (np.array(["a", np.nan], object), spec("STRING", None), [b"a", b""]),
        ([1.0, pd.NA, float("nan")], spec("FLOAT", None), [1.0, np.nan, np.nan]),
        ("a", spec("STRING"), b"a"),
        ([["a"], ["b", "c"]], spec("STRING", None, None), [[b"a", b""], [b"b", b"c"]]),
        ([["a"], []], spec("STRING", None, None), [[b"a"], [b""]]),
        ([["a"], ["b"]], spec("STRING", None, 3), [[b"a", b"", b""], [b"b", b"", b""]]),
        ([[]], spec("STRING", None, None), [[]]),
        ([None, ["a"]], spec("STRING", None, None), [[b""], [b"a"]]),
        ([None, None], spec("STRING", None, None), [[], []]),
        ([None], spec("STRING", None, 2), [[b"", b""]]),
        ([None, None], spec("STRING", None), [b"", b""]),
        ([None], spec("FLOAT", None, None), [[]]),
        ([1, 2.5, True], spec("FLOAT", None), [1.0, 2.5, 1.0]),
        ([1, None], spec("FLOAT", None), [1.0, np.nan]),
        ([None], spec("FLOAT", None), [np.nan]),
        (np.array([1, 2], np.int16), spec("FLOAT", None), [1.0, 2.0]),
        (pd.Series([1.5]), spec("FLOAT", None), [1.5]),
        ([[1.0], [2.0, 3.0]], spec("FLOAT", None, None), [[1.0, np.nan], [2.0, 3.0]]),
        ([], spec("FLOAT", None), []),
        ([], spec("STRING", None), []),
        ([float("inf")], spec("FLOAT", None), [np.inf]),
        ([1, 2], spec("INT32", None), [1, 2]),
        ([True], spec("INT64", None), [1]),
        ([[1], [2]], spec("INT64", None, 1), [[1], [2]]),
        ([True, False], spec("BOOL", None), [True, False]),
    ],
)  # fmt: skip
def test_accepted_values(value, wanted, expected) -> None:
    array = encode_input(value, wanted)
    np.testing.assert_equal(array.tolist(), expected)
    assert array.ndim == len(wanted.shape)


@pytest.mark.parametrize(
    ("value", "wanted", "texts"),
    [
        ([1, 2], spec("STRING", None), ["'x'", "string", "int"]),
        ([1.5], spec("STRING", None), ["string", "float"]),
        (["a", "SECRET\ud800"], spec("STRING", None), ["'x'", "UTF-8", "surrogate"]),
        (["SECRET"], spec("FLOAT", None), ["'x'", "float"]),
        ([1, "SECRET"], spec("FLOAT", None), ["float"]),
        ([object()], spec("FLOAT", None), ["float"]),
        ([1.5], spec("INT64", None), ["int64", "float64"]),
        ([None], spec("INT64", None), ["int64"]),
        ([2**40], spec("INT32", None), ["out of range"]),
        (np.array([2**64 - 1], np.uint64), spec("INT64", None), ["out of range"]),
        ([1e300], spec("FLOAT", None), ["out of range"]),
        ([1], spec("BOOL", None), ["bool"]),
        ([[1.0], [1.0, 2.0]], spec("FLOAT", None), ["shapes"]),
        ([[1.0]], spec("FLOAT", None), ["shape [any]", "[1, 1]"]),
        (1.0, spec("FLOAT", None), ["shape [any]", "shape []"]),
        ("ab", spec("STRING", None), ["shape"]),
        (np.zeros((2, 4), np.float32), spec("FLOAT", None, 3), ["shape [any, 3]", "[2, 4]"]),
        ([["a", "b", "c"]], spec("STRING", None, 2), ["too long", "at most 2", "send the first 2"]),
        ([[1], [1, 2]], spec("INT64", None, None), ["int64", "padding"]),
        ([1], spec("COMPLEX64", None), ["'x'", "DT_COMPLEX64"]),
    ],
)  # fmt: skip
def test_refused_values(value, wanted, texts) -> None:
    with pytest.raises(InvalidRequestError) as failure:
        encode_input(value, wanted)
    for text in texts:
        assert text in str(failure.value)
    assert "SECRET" not in str(failure.value)


def test_unknown_rank_takes_any_shape() -> None:
    assert encode_input([[1.0]], TensorSpec("x", 1, None)).shape == (1, 1)


def test_unknown_names_get_the_nearest_name() -> None:
    wanted = signature(spec("FLOAT", None, name="price"), spec("FLOAT", None, name="age"))
    with pytest.raises(InvalidRequestError, match="did you mean 'price'"):
        encode_inputs({"prise": [1.0], "age": [1.0]}, wanted)


def test_missing_names_are_listed() -> None:
    wanted = signature(spec("FLOAT", None, name="price"), spec("FLOAT", None, name="age"))
    with pytest.raises(InvalidRequestError, match="lacks age, price"):
        encode_inputs({}, wanted)


def test_inputs_with_defaults_may_be_missing() -> None:
    wanted = signature(spec("FLOAT", None, name="price"), optional=("price",))
    assert encode_inputs({}, wanted) == {}


def test_lengths_of_ragged_numbers_are_filled_in() -> None:
    wanted = signature(
        spec("FLOAT", None, None, name="visits"), spec("INT64", None, name="visits_length")
    )
    arrays = encode_inputs({"visits": [[1.0], [2.0, 3.0], []]}, wanted)
    assert arrays["visits"].tolist() == [[1.0, 0.0], [2.0, 3.0], [0.0, 0.0]]
    assert arrays["visits_length"].tolist() == [1, 2, 0]


def test_lengths_that_are_given_are_kept() -> None:
    wanted = signature(
        spec("FLOAT", None, None, name="visits"), spec("INT64", None, name="visits_length")
    )
    arrays = encode_inputs({"visits": [[1.0, 2.0]], "visits_length": [1]}, wanted)
    assert arrays["visits_length"].tolist() == [1]


RANK = signature(
    spec("STRING", 1, name="user_id"),
    spec("STRING", 1, None, name="history"),
    spec("FLOAT", 1, None, name="visits"),
    spec("INT64", 1, name="visits_length"),
    spec("FLOAT", None, name="price"),
    spec("STRING", None, None, name="tags"),
)
CONTEXT = {"user_id": "u", "history": ["a", "b"], "visits": [1.0]}
ROWS = [
    {"id": "p", "price": 1.0, "tags": ["x"]},
    {"id": "q", "price": None, "tags": ["x", "y"]},
]


def test_rank_inputs_from_rows() -> None:
    arrays = encode_rank(CONTEXT, read_slate(ROWS, "id"), "id", {}, RANK)
    assert arrays["user_id"].tolist() == [b"u"]
    assert arrays["history"].tolist() == [[b"a", b"b"]]
    assert arrays["visits"].tolist() == [[1.0]]
    assert arrays["visits_length"].tolist() == [1]
    np.testing.assert_equal(arrays["price"].tolist(), [1.0, np.nan])
    assert arrays["tags"].tolist() == [[b"x", b""], [b"x", b"y"]]
    assert "id" not in arrays


def test_rank_inputs_from_columns_with_leading_one() -> None:
    columns = {"id": [7, 8], "price": np.array([1.0, 2.0]), "tags": [["x"], ["y"]]}
    context = {"user_id": ["u"], "history": [["a"]], "visits": np.array([[1.0, 2.0]])}
    context["visits_length"] = 2
    slate = read_slate(columns, "id")
    arrays = encode_rank(context, slate, "id", {}, RANK)
    assert arrays["visits"].shape == (1, 2)
    assert slate.ids.tolist() == [7, 8]


def test_an_empty_context_sequence_is_a_sequence() -> None:
    arrays = encode_rank({**CONTEXT, "history": []}, read_slate(ROWS, "id"), "id", {}, RANK)
    assert arrays["history"].shape == (1, 0)


def test_missing_sequences_of_a_request_are_empty() -> None:
    rows = [{**row, "tags": None} for row in ROWS]
    context = {"user_id": None, "history": None, "visits": None}
    arrays = encode_rank(context, read_slate(rows, "id"), "id", {}, RANK)
    assert arrays["user_id"].tolist() == [b""]
    assert arrays["history"].shape == (1, 0)
    assert arrays["visits"].shape == (1, 0)
    assert arrays["visits_length"].tolist() == [0]
    assert arrays["tags"].shape == (2, 0)


def test_id_column_is_sent_if_the_model_takes_it() -> None:
    wanted = signature(spec("STRING", None, name="item_id"))
    arrays = encode_rank({}, read_slate({"item_id": ["a"]}, "item_id"), "item_id", {}, wanted)
    assert arrays["item_id"].tolist() == [b"a"]


@pytest.mark.parametrize(
    ("context", "candidates", "id_key", "texts"),
    [
        (CONTEXT, [], "id", ["no candidates"]),
        (CONTEXT, {}, None, ["no candidates"]),
        (CONTEXT, {"price": []}, None, ["no candidates"]),
        (CONTEXT, [ROWS[0], {"id": "q"}], "id", ["candidate 1", "price, tags"]),
        (CONTEXT, {"price": [1.0], "tags": []}, None, ["price: 1", "tags: 0"]),
        (CONTEXT, {"price": 1.0}, None, ["'price'", "single value"]),
        (CONTEXT, ROWS, "ids", ["'ids'", "did you mean 'id'"]),
        (CONTEXT, ROWS, None, ["unknown input 'id'"]),
        ({**CONTEXT, "price": 1.0}, ROWS, "id", ["price", "both"]),
        ({"user_id": "u", "history": []}, ROWS, "id", ["lacks visits"]),
        ({**CONTEXT, "user_id": ["u", "v"]}, ROWS, "id", ["'user_id'", "[1]"]),
    ],
)
def test_refused_rank_requests(context, candidates, id_key, texts) -> None:
    with pytest.raises(InvalidRequestError) as failure:
        encode_rank(context, read_slate(candidates, id_key), id_key, {}, RANK)
    for text in texts:
        assert text in str(failure.value)


def test_candidate_feature_given_in_the_context_must_have_one_value_per_candidate() -> None:
    wanted = signature(spec("FLOAT", None, name="price"), spec("FLOAT", None, name="age"))
    slate = read_slate({"price": [1.0, 2.0]}, None)
    arrays = encode_rank({"age": [3.0]}, slate, None, {}, wanted)
    assert arrays["age"].tolist() == [3.0]
    with pytest.raises(InvalidRequestError, match="context feature 'age'"):
        encode_rank({"age": [3.0, 4.0]}, slate, None, {}, wanted)


def order_of(scores: list[float], top_k: int | None = None) -> list[int]:
    slate = read_slate({"x": scores}, None)
    outputs = {"score": np.array(scores, np.float32)}
    ranking = rank_outputs(outputs, slate, top_k=top_k, model="m", version=1)
    return ranking.order.tolist()


def test_order_is_descending_with_stable_ties_and_nan_last() -> None:
    assert order_of([1.0, 3.0, 2.0]) == [1, 2, 0]
    assert order_of([2.0, 5.0, 2.0, 5.0, 2.0]) == [1, 3, 0, 2, 4]
    assert order_of([np.nan, 1.0, -np.inf, np.inf]) == [3, 1, 2, 0]
    assert order_of([0.0] * 100) == list(range(100))
    scores = np.random.default_rng(3).integers(0, 5, 500).astype(float).tolist()
    assert order_of(scores) == sorted(range(500), key=lambda position: -scores[position])
    assert order_of([1.0, 3.0, 2.0], top_k=2) == [1, 2]
    assert order_of([1.0], top_k=5) == [0]
