"""Thousands of faulty requests: only client-error codes, no crash, no hang, no payload in logs.

POLYRANK_FUZZ_INPUTS=100000 sends as many as a release is checked with (`make fuzz`).
"""

from __future__ import annotations

import logging
import os

import grpc
from fuzzing import requests, send

from serving.client import RankingClient
from serving.server.batching_options import BatchingOptions
from serving.server.server import EmbeddedServer

NUM_INPUTS = int(os.environ.get("POLYRANK_FUZZ_INPUTS", "4000"))


def check(target: str, num_inputs: int, seed: int) -> None:
    codes = send(target, "ranker", num_inputs, seed)
    assert sum(codes.values()) == num_inputs
    # Neither all are refused at the door nor does all of it pass.
    assert codes[grpc.StatusCode.OK] > num_inputs / 50
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > num_inputs / 5
    with RankingClient(target, "ranker") as client:
        answer = client.rank({"user_id": "u", "history": []}, {"item_id": ["hat"], "price": [1.0]})
    assert answer.scores["score"].tolist() == [1.0]


def test_the_same_seed_makes_the_same_inputs() -> None:
    assert list(requests(50, 7, "m")) == list(requests(50, 7, "m"))
    assert list(requests(50, 7, "m")) != list(requests(50, 8, "m"))


def test_faulty_requests(server, caplog) -> None:
    with caplog.at_level(logging.DEBUG):
        check(server.target, NUM_INPUTS, seed=0)
    assert "Could not parse" not in caplog.text


def test_faulty_requests_in_batches(base_path, server_options) -> None:
    with EmbeddedServer(server_options(base_path, batching=BatchingOptions())) as server:
        with RankingClient(server.target, "ranker") as client:
            client.wait_until_available(30)
        check(server.target, NUM_INPUTS // 4, seed=1)
