"""Negatives are dropped by key, and predictions stay those of the whole population."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.sampling import uniform_of
from components.log_example_gen.spec import DatasetSpec
from models.links import OUTCOME, Links, LogProbabilities
from models.losses.registry import build_loss
from models.sampled_weights import population_weights
from models.spec.ranking import RankingSpec
from models.task_loss import TaskLoss
from pipeline.load import load_config
from pipeline.plan import make_dataset
from simulator.simulate import SimulationConfig, simulate

RATE = 0.15
CONFIG = Path(__file__).resolve().parents[2] / "examples" / "simulated" / "config.yaml"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    simulate(SimulationConfig(impressions=40_000, seed=11), folder)
    return folder


def _dataset(logs: Path, *overrides: str) -> DatasetSpec:
    return make_dataset(load_config(CONFIG, [f"logs.root={logs}", "features={}", *overrides]), None)


@pytest.fixture(scope="module")
def sampled(logs: Path) -> tuple[RankingSpec, BuiltExamples, BuiltExamples]:
    """Examples with click and conversion sampled, and without sampling."""
    rates = [f"tasks.{task}.negative_rate={RATE}" for task in ("click", "conversion")]
    spec = _dataset(logs, *rates)
    read = read_logs(spec)
    return spec.ranking, build_examples(spec, read), build_examples(_dataset(logs), read)


def test_numbers_made_of_keys_are_even_and_depend_on_the_key_alone() -> None:
    keys = [pl.Series([f"r{i // 3}" for i in range(90_000)]), pl.Series(range(90_000))]
    numbers = uniform_of(keys)
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    # 20 bins of 4500: five standard deviations of chance.
    assert np.abs(counts - 4500).max() < 5 * np.sqrt(4500 * 0.95)
    assert numbers.min() >= 0 and numbers.max() < 1
    again = uniform_of([key[1000:2000] for key in keys])
    assert again.tolist() == numbers[1000:2000].tolist()
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


def test_only_negatives_of_the_train_split_lose_their_weight(
    sampled: tuple[RankingSpec, BuiltExamples, BuiltExamples],
) -> None:
    _, some, every = sampled
    for split in ("validation", "test"):
        assert some.examples[split].equals(every.examples[split])
    train, whole = some.examples["train"], every.examples["train"]
    weights = [c for c in train.columns if c.endswith("__weight")]
    assert train.drop(weights).equals(whole.drop(weights))
    for task in ("click", "conversion"):
        label, mask = train[f"{task}__label"], train[f"{task}__mask"]
        before, after = whole[f"{task}__weight"].to_numpy(), train[f"{task}__weight"].to_numpy()
        negative = ((label == 0) & (mask == 1)).to_numpy()
        assert (after[~negative] == before[~negative]).all()
        assert set(np.unique(after[negative])) == {0.0, 1.0}
        counts = some.accounts["sampling"][task]
        assert counts == {"negatives": negative.sum(), "kept": after[negative].sum()}
        chance = np.sqrt(RATE * (1 - RATE) * negative.sum())
        assert abs(counts["kept"] - RATE * negative.sum()) < 4 * chance
    # Rows without a click are negatives of both, and both tasks choose alike.
    unclicked = ((train["click__label"] == 0) & (train["conversion__mask"] == 1)).to_numpy()
    both = train.filter(pl.Series(unclicked))
    assert (both["click__weight"] == both["conversion__weight"]).all()
    assert every.accounts["sampling"] == {}


def _fitted(ranking: RankingSpec, rows: pl.DataFrame, cells: np.ndarray) -> dict[str, np.ndarray]:
    """Fits one logit per cell and task with the model's own loss: outputs by cell."""
    losses: dict[str, Any] = {}
    heads: dict[str, tf.Variable] = {}
    for task in ("click", "conversion"):
        output = ranking.outputs_of(task)[-1]
        label, weight = (rows[k].to_numpy() for k in (output.label_key, output.weight_key))
        weight = population_weights(label, weight, ranking.tasks[task].negative_rate)
        losses[task] = build_loss(ranking.tasks[task], label, weight)
        bias = losses[task].initial_bias(label, weight)
        heads[task] = tf.Variable(tf.fill([cells.max() + 1, 1], tf.constant(bias[0], tf.float32)))
    links = Links(ranking, losses)
    batch = {t: [tf.constant(rows[k]) for k in _keys(ranking, t)] for t in heads}
    optimizer = tf.keras.optimizers.legacy.Adam(0.05)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            by_row = {task: tf.gather(values, cells) for task, values in heads.items()}
            loss = tf.add_n(
                [
                    TaskLoss(links, t)({OUTCOME: batch[t][0]}, by_row, batch[t][1])
                    for t in sorted(heads)
                ]
            )
        variables = [heads[t] for t in sorted(heads)]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(400):
        step()
    return {name: values.numpy() for name, values in links.outputs(heads).items()}


def _keys(ranking: RankingSpec, task: str) -> tuple[str, str]:
    output = ranking.training_output(task)
    return output.label_key, output.weight_key


@pytest.mark.slow
def test_predictions_stay_calibrated(
    logs: Path, sampled: tuple[RankingSpec, BuiltExamples, BuiltExamples]
) -> None:
    """Against the simulator's truth; what the correction removes is a factor of five."""
    ranking, some, _ = sampled
    rows = some.examples["train"].filter(pl.col("conversion__mask") == 1)
    truth = pl.read_parquet(logs / "_truth" / "truth.parquet")
    joined = rows.join(
        truth.rename({"request_id": "request_id__key", "item_id": "item_id__key"}),
        on=["request_id__key", "item_id__key"],
        how="left",
        maintain_order="left",
    )
    assert joined["click_probability"].null_count() == 0
    cells = rows["surface"].cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)
    fitted = _fitted(ranking, rows, cells)
    naive = ranking.model_copy(
        update={
            "tasks": {
                n: t.model_copy(update={"negative_rate": 1.0}) for n, t in ranking.tasks.items()
            }
        }
    )
    uncorrected = _fitted(naive, rows, cells)
    for output, column in (
        ("click", "click_probability"),
        ("conversion", "conversion_probability"),
    ):
        means = np.bincount(cells, joined[column]) / np.bincount(cells)
        # Four standard errors of a rate measured on the positives of the cell.
        positives = np.bincount(cells, rows[f"{output}__label"])
        error = 4 / np.sqrt(positives)
        assert (np.abs(fitted[output] / means - 1) < error).all(), (output, fitted[output] / means)
        assert (uncorrected[output] / means > 3).all()


def test_probabilities_among_sampled_rows() -> None:
    logit = tf.constant([-30.0, -2.0, 0.0, 3.0, 40.0])
    seen = LogProbabilities.of_logit(logit).among_sampled(0.1)
    expected = LogProbabilities.of_logit(logit - np.log(0.1).astype(np.float32))
    np.testing.assert_allclose(seen.happens, expected.happens, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.fails, expected.fails, rtol=1e-5, atol=1e-6)


def test_a_row_without_any_weight_is_not_trained_on(tmp_path: Path) -> None:
    from models.rows import read_rows
    from models.spec.keys import TRANSFORMED_GROUP, TRANSFORMED_NUMERIC

    weights = [(1.0, 0.0), (0.0, 0.0), (0.0, 2.0), (0.0, 0.0), (3.0, 1.0)]
    path = str(tmp_path / "rows.gz")
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for number, (a, b) in enumerate(weights):
            example = tf.train.Example()
            example.features.feature[TRANSFORMED_NUMERIC].float_list.value.append(number)
            example.features.feature[TRANSFORMED_GROUP].int64_list.value.append(number)
            for name, value in (("a", a), ("b", b)):
                example.features.feature[f"{name}__weight"].float_list.value.append(value)
            writer.write(example.SerializeToString())
    spec = {
        TRANSFORMED_NUMERIC: tf.io.FixedLenFeature([1], tf.float32),
        TRANSFORMED_GROUP: tf.io.FixedLenFeature([], tf.int64),
        "a__weight": tf.io.FixedLenFeature([], tf.float32),
        "b__weight": tf.io.FixedLenFeature([], tf.float32),
    }
    keys = ["a__weight", "b__weight"]
    for cache_bytes in (10**6, 0):
        rows = read_rows(
            [path], spec, keys, split="train", cache_bytes=cache_bytes, shuffle_buffer=10,
            useful_keys=keys,
        )  # fmt: skip
        assert rows.num_rows == 3
        assert rows.column("a__weight").tolist() == [1.0, 0.0, 3.0]
        batches = [batch[TRANSFORMED_NUMERIC].numpy()[:, 0].tolist() for batch in rows.in_order(2)]
        assert batches == [[0.0, 2.0], [4.0]]
