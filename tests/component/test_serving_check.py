"""The check of rows that a test split may lack: sent as tensors and as tf.Examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.artifacts import Blessing
from components.serving_check.executor import Executor, check, check_unusual, stored_predictions
from components.serving_check.unusual_rows import (
    UNSEEN,
    num_with_missing,
    serialized,
    unusual_rows,
)
from components.verdict import read_verdict
from models.request_inputs import parse_examples
from models.spec.feature import Feature
from models.spec.keys import TIMESTAMP, key_feature
from models.spec.ranking import RankingSpec
from tests.conformance.synthetic_ranking import (
    encode,
    synthetic_ranking,
    synthetic_rows,
    write_records,
)

NUM_ROWS = 400


@pytest.fixture(scope="module")
def ranking() -> RankingSpec:
    return synthetic_ranking()


@pytest.fixture(scope="module")
def rows(ranking: RankingSpec) -> dict[str, np.ndarray[Any, Any]]:
    def values(feature: Feature) -> np.ndarray[Any, Any]:
        shape = (NUM_ROWS,) if feature.length is None else (NUM_ROWS, feature.length)
        if feature.dtype == "string":
            return np.full(shape, b"usual", dtype=object)
        return np.full(shape, 0.5, dtype=np.float32)

    return {f.name: values(f) for f in ranking.request_features}


def test_every_feature_is_missing_in_some_rows_and_unusual_in_others(
    ranking: RankingSpec, rows: dict[str, np.ndarray[Any, Any]]
) -> None:
    altered = unusual_rows(ranking, rows, NUM_ROWS)
    assert num_with_missing(ranking, rows) == 0
    # With this many features hardly any row keeps them all.
    assert num_with_missing(ranking, altered) > 0.9 * NUM_ROWS
    for feature in ranking.request_features:
        values = altered[feature.name].reshape(NUM_ROWS, -1)[:, 0]
        if feature.dtype == "string":
            is_missing, is_usual = values == b"", values == b"usual"
            assert set(values[~is_missing & ~is_usual]) == {UNSEEN}
        else:
            is_missing, is_usual = np.isnan(values), values == 0.5
            assert set(values[~is_missing & ~is_usual]) == {-1.0, 0.0, 1e9}
        assert 0.2 < is_missing.mean() < 0.4
        assert 0.3 < is_usual.mean() < 0.5
        assert (rows[feature.name] == altered[feature.name]).mean() < 0.5


def test_examples_parse_to_the_tensors_they_were_made_of(
    ranking: RankingSpec, rows: dict[str, np.ndarray[Any, Any]]
) -> None:
    altered = unusual_rows(ranking, rows, NUM_ROWS)
    parsed = parse_examples(tf.constant(serialized(ranking, altered)), ranking.request_features)
    for feature in ranking.request_features:
        np.testing.assert_array_equal(parsed[feature.name].numpy(), altered[feature.name])


class _Server:
    """Answers 0.25; or, if it tells the two forms apart, another value where one is missing."""

    def __init__(self, ranking: RankingSpec, missing_probability: float) -> None:
        self._ranking = ranking
        self._missing_probability = missing_probability

    def predict(self, inputs: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        answer = np.where(np.isnan(inputs["price"]), self._missing_probability, 0.25)
        return {o.name: answer for o in self._ranking.outputs}

    def predict_examples(self, examples: list[bytes]) -> dict[str, np.ndarray[Any, Any]]:
        return {o.name: np.full(len(examples), 0.25) for o in self._ranking.outputs}


@pytest.mark.parametrize("missing_probability", [0.2501, float("nan"), float("inf")])
def test_a_model_that_reads_missing_values_differently_is_refused(
    ranking: RankingSpec, rows: dict[str, np.ndarray[Any, Any]], missing_probability: float
) -> None:
    altered = unusual_rows(ranking, rows, NUM_ROWS)
    server: Any = _Server(ranking, missing_probability)
    refusals = list(check_unusual(server, ranking, altered))
    num_missing = int(np.isnan(altered["price"]).sum())
    assert any(f"click: {num_missing} of {NUM_ROWS} answers" in refusal for refusal in refusals)
    alike: Any = _Server(ranking, 0.25)
    assert list(check_unusual(alike, ranking, altered)) == []


def test_rows_that_nothing_tells_apart_are_not_compared(
    ranking: RankingSpec, tmp_path: Path
) -> None:
    names = [*ranking.key_columns]
    keys = ["a", "twice", "twice", "b"]
    table = {"timestamp": [1, 2, 2, 3], "split": ["test"] * 4} | {n: keys for n in names}
    predictions = {f"{o.name}__prediction": [0.1, 0.2, 0.9, 0.3] for o in ranking.outputs}
    path = tmp_path / "predictions.parquet"
    pq.write_table(pa.table(table | predictions), path)

    def asked(times: list[int], *sent: bytes) -> dict[str, np.ndarray[Any, Any]]:
        columns = {key_feature(n): np.array(sent, dtype=object) for n in names}
        features = {
            f.name: np.zeros((len(sent), f.length or 1)[: 2 if f.length else 1], np.float32)
            for f in ranking.request_features
        }
        return {**features, **columns, TIMESTAMP: np.array(times)}

    rows, stored = stored_predictions(
        path, ranking, asked([3, 2, 1, 3], b"b", b"twice", b"a", b"gone")
    )
    assert rows[TIMESTAMP].tolist() == [3, 1, 3]
    for values in stored.values():
        np.testing.assert_array_equal(values, [0.3, 0.1, np.nan])
    none_left = stored_predictions(path, ranking, asked([2], b"twice"))
    server: Any = _Server(ranking, 0.25)
    (refusal,) = check(server, ranking, *none_left)
    assert "no test row was compared" in refusal


@pytest.mark.slow
def test_candidates_that_cannot_be_pushed_are_refused_without_a_server(
    ranking: RankingSpec, tmp_path: Path
) -> None:
    def artifact(kind: type[Any], name: str) -> list[Any]:
        made = kind()
        made.uri = str(tmp_path / name)
        Path(made.uri).mkdir(exist_ok=True)
        return [made]

    module = tf.Module()
    module.call = tf.function(
        lambda x: {"score": tf.strings.to_number(tf.io.read_file(x[0]))},
        input_signature=[tf.TensorSpec([None], tf.string, name="x")],
    )
    tf.saved_model.save(
        module, str(tmp_path / "model" / "Format-Serving"), signatures={"predict": module.call}
    )
    records = encode(synthetic_rows(ranking, num_rows=20))
    write_records(tmp_path / "examples" / "Split-test" / "part.gz", records)
    examples = artifact(standard_artifacts.Examples, "examples")
    examples[0].split_names = '["test"]'
    blessing = artifact(Blessing, "blessing")
    Executor().Do(
        {"examples": examples, "model_reader": artifact(standard_artifacts.Model, "model")},
        {"blessing": blessing},
        {
            "ranking_json": ranking.model_dump_json(),
            "candidates_json": '["reader"]',
            "num_rows": "10",
            "memory_bytes": "null",
        },
    )
    verdict = read_verdict(blessing[0].uri)
    assert not verdict.passed
    assert "reader: no server would load it: operation ReadFile" in verdict.reasons[0]
