"""Batching behind a real server: merged rows, `rank` alone, poison alone, metrics."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

from serving import errors
from serving.client import RankingClient
from serving.server.batching import BatchingOptions
from serving.server.runtime import SavedModelRuntime
from serving.server.server import EmbeddedServer

QUEUING = ":tensorflow:serving:batching_session:queuing_latency_count"


@pytest.fixture(scope="module")
def server(base_path, export, server_options):
    export(base_path, 3)
    batching = BatchingOptions(batch_timeout_micros=100_000, num_batch_threads=2)
    with EmbeddedServer(server_options(base_path, batching=batching)) as running:
        with RankingClient(running.target, "ranker") as client:
            client.wait_until_available(30)
        yield running


@pytest.fixture
def sizes(server, monkeypatch):
    """Row counts of every run of the session."""
    seen: list[int] = []
    run = SavedModelRuntime.run

    def watched(self, feeds, fetches, timeout_seconds=None, *, is_batchable=False):
        seen.append(max(len(value) for value in feeds.values()))
        return run(self, feeds, fetches, timeout_seconds)

    monkeypatch.setattr(SavedModelRuntime, "run", watched)
    return seen


def rows(*prices: float) -> dict[str, list]:
    count = len(prices)
    return {
        "user_id": ["u"] * count,
        "item_id": ["hat"] * count,
        "price": list(prices),
        "history": [["hat"]] * count,
    }


def together(*calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [pool.submit(call) for call in calls]


def test_predicts_share_a_run(client, sizes, server) -> None:
    client.metadata()
    asked = together(
        lambda: client.predict(rows(1.0, 2.0)),
        lambda: client.predict(rows(3.0)),
        lambda: client.predict(rows(4.0, 5.0, 6.0)),
    )
    found = [future.result()["score"].tolist() for future in asked]
    assert found == [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]
    assert sum(sizes) == 6
    assert len(sizes) < 3
    labels = {"model_name": "ranker", "version": "3", "thread_pool_name": "batch_threads"}
    assert server.metrics.registry.get_sample_value(QUEUING, labels) >= 3


def test_rank_is_never_merged(client, sizes) -> None:
    context = {"user_id": "u", "history": ["hat"]}
    candidates = {"item_id": ["hat", "shoe"], "price": [1.0, 2.0]}
    client.metadata()
    asked = together(*[lambda: client.rank(context, candidates)] * 4)
    for future in asked:
        assert future.result().order.tolist() == [1, 0]
    assert sizes == [2] * 4


def test_a_malformed_example_fails_alone(client, sizes) -> None:
    features = {
        "user_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"u"])),
        "item_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"hat"])),
        "price": tf.train.Feature(float_list=tf.train.FloatList(value=[7.0])),
    }
    good = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    client.metadata()
    asked = together(
        lambda: client.predict_examples([good]),
        lambda: client.predict_examples([b"not an example"]),
        lambda: client.predict_examples([good, good]),
    )
    assert asked[0].result()["score"].tolist() == [7.0]
    with pytest.raises(errors.InvalidRequestError):
        asked[1].result()
    assert asked[2].result()["score"].tolist() == [7.0, 7.0]


@pytest.mark.slow
def test_swaps_under_load_with_batches(client, base_path, export) -> None:
    stop = threading.Event()
    failures: list[object] = []

    def load() -> None:
        while not stop.is_set():
            try:
                generation = client.predict(rows(1.0, 2.0))["generation"]
                if len(set(generation.tolist())) != 1:
                    failures.append(generation)
            except errors.ServingError as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in (4, 5, 6):
            export(base_path, version)
            for _ in range(600):
                if client.metadata().version == version:
                    break
                stop.wait(0.05)
            else:
                raise AssertionError(f"version {version} did not take over")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == []
