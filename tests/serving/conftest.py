"""A small ranker with the three signatures, and servers for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.client import RankingClient
from serving.server.limits import Limits
from serving.server.options import ServerOptions
from serving.server.server import EmbeddedServer
from serving.warmup import write_warmup

VOCABULARY = ("shoe", "hat", "coat")
WEIGHTS = (0.5, -0.25, 1.5, 0.0)  # the last one for what is out of vocabulary
MAX_MESSAGE_BYTES = 1 << 20


class Ranker(tf.Module):
    """click from item and history, watch_seconds and score from price, generation from the push.

    `score` is the price, so that tests control order and ties; `generation` is the version, so
    that they see which version computed an answer.
    """

    def __init__(self, vocabulary_file: Path) -> None:
        super().__init__()
        self.generation = tf.Variable(0.0)
        self.weights = tf.Variable(WEIGHTS)
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary_file),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1)

    def _score(self, user_id, item_id, price, history):
        seen = tf.reduce_sum(tf.cast(history != "", tf.float32), axis=1)
        logit = tf.gather(self.weights, self.table.lookup(item_id)) + 0.1 * seen
        logit += 0.0 * tf.cast(tf.strings.length(user_id), tf.float32)
        return {
            "click": tf.sigmoid(logit),
            "watch_seconds": 2.0 * tf.where(tf.math.is_nan(price), 0.0, price),
            "score": price,
            "generation": tf.fill(tf.shape(price), self.generation),
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "user_id"),
            tf.TensorSpec([None], tf.string, "item_id"),
            tf.TensorSpec([None], tf.float32, "price"),
            tf.TensorSpec([None, None], tf.string, "history"),
        ]
    )
    def predict(self, user_id, item_id, price, history):
        return self._score(user_id, item_id, price, history)

    @tf.function(
        input_signature=[
            tf.TensorSpec([1], tf.string, "user_id"),
            tf.TensorSpec([None], tf.string, "item_id"),
            tf.TensorSpec([None], tf.float32, "price"),
            tf.TensorSpec([1, None], tf.string, "history"),
        ]
    )
    def rank(self, user_id, item_id, price, history):
        return self._score(user_id, item_id, price, history)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def serving_default(self, examples):
        features = {
            "user_id": tf.io.FixedLenFeature([], tf.string),
            "item_id": tf.io.FixedLenFeature([], tf.string),
            "price": tf.io.FixedLenFeature([], tf.float32),
            "history": tf.io.VarLenFeature(tf.string),
        }
        parsed = tf.io.parse_example(examples, features)
        parsed["history"] = tf.sparse.to_dense(parsed["history"], "")
        return self._score(**parsed)

    @tf.function(input_signature=[tf.TensorSpec([1], tf.int64, "num_steps")])
    def slow(self, num_steps):
        _, total = tf.while_loop(
            lambda step, _: step < num_steps[0],
            lambda step, total: (step + 1, total * 1.0000001),
            [tf.constant(0, tf.int64), tf.constant(1.0)],
        )
        return {"total": total}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "count"),
            tf.TensorSpec([None, 3], tf.float32, "triple"),
            tf.TensorSpec([None, None], tf.float32, "visits"),
            tf.TensorSpec([None], tf.int64, "visits_length"),
            tf.TensorSpec([None], tf.bool, "flag"),
        ]
    )
    def typed(self, count, triple, visits, visits_length, flag):
        mask = tf.sequence_mask(visits_length, tf.shape(visits)[1], tf.float32)
        return {
            "score": tf.cast(count, tf.float32) + tf.reduce_sum(triple, axis=1),
            "visits_sum": tf.reduce_sum(visits * mask, axis=1),
            "not_flag": tf.logical_not(flag),
        }


def warmup_requests() -> dict[str, dict[str, np.ndarray]]:
    candidates = {
        "item_id": np.array(["hat", "unseen"], object),
        "price": np.array([1.0, np.nan], np.float32),
    }
    return {
        "predict": {
            **candidates,
            "user_id": np.array(["u", ""], object),
            "history": np.array([["hat"], [""]], object),
        },
        "rank": {
            **candidates,
            "user_id": np.array(["u"], object),
            "history": np.array([["hat", "shoe"]], object),
        },
    }


@pytest.fixture(scope="session")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    path = tmp_path_factory.mktemp("vocabulary") / "items.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return Ranker(path)


Export = Callable[..., Path]


@pytest.fixture(scope="session")
def export(ranker: Ranker) -> Export:
    """Writes a version of the ranker as a push does: beside the target, then renamed."""

    def write(
        base_path: Path,
        version: int,
        *,
        signatures: tuple[str, ...] = ("serving_default", "predict", "rank", "slow", "typed"),
        change: Callable[[Path], None] | None = None,
    ) -> Path:
        staging = base_path / f".staging-{version}"
        shutil.rmtree(staging, ignore_errors=True)
        ranker.generation.assign(float(version))
        tf.saved_model.save(
            ranker, str(staging), signatures={name: getattr(ranker, name) for name in signatures}
        )
        requests = warmup_requests()
        write_warmup(staging, {name: requests[name] for name in requests if name in signatures})
        if change is not None:
            change(staging)
        return staging.rename(base_path / str(version))

    return write


@pytest.fixture(scope="session")
def edit_saved_model() -> Callable[[Path, Callable[[object], None]], None]:
    """Rewrites the signatures of an exported model's only meta graph."""
    from tensorflow.core.protobuf import saved_model_pb2

    def edit(directory: Path, change: Callable[[object], None]) -> None:
        path = directory / "saved_model.pb"
        saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        change(saved.meta_graphs[0].signature_def)
        path.write_bytes(saved.SerializeToString())

    return edit


@pytest.fixture(scope="module")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "ranker"
    path.mkdir()
    return path


def options(base_path: Path, **changes: object) -> ServerOptions:
    """One model, unless `changes` brings `models` of its own."""
    values: dict[str, object] = {
        "models": {"ranker": base_path},
        "poll_seconds": 0.05,
        "limits": Limits(max_message_bytes=MAX_MESSAGE_BYTES),
        **changes,
    }
    return ServerOptions(**values)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def server_options() -> Callable[..., ServerOptions]:
    return options


@pytest.fixture(scope="module")
def server(base_path: Path, export: Export) -> Iterator[EmbeddedServer]:
    """One server a module, with version 3 of the ranker."""
    if not (base_path / "3").exists():  # a module may bring its own version 3
        export(base_path, 3)
    with EmbeddedServer(options(base_path)) as running:
        with RankingClient(running.target, "ranker") as client:
            assert client.wait_until_available(30) == 3
        yield running


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[RankingClient]:
    with RankingClient(server.target, "ranker") as connected:
        yield connected


@pytest.fixture(scope="module")
def channel(server: EmbeddedServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as connected:
        yield connected
