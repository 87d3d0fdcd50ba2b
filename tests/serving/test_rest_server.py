"""What the REST server answers to senseless requests, and to those under way when it stops."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from serving.client import RankingClient
from serving.server.server import EmbeddedServer

PREDICT = "/v1/models/ranker:predict"


@pytest.fixture(scope="module")
def port(base_path, export, server_options) -> Iterator[int]:
    export(base_path, 3)
    with EmbeddedServer(server_options(base_path, rest_port=0)) as server:
        with RankingClient(server.target, "ranker") as client:
            client.wait_until_available(30)
        assert server.rest_port is not None
        yield server.rest_port


def answer(
    port: int, method: str, path: str, body: str | None = None, **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


@pytest.mark.parametrize("digits", [19, 5000])
def test_versions_that_no_integer_holds(digits, port) -> None:
    version = "9" * digits
    for method, rest in (("GET", ""), ("GET", "/metadata"), ("POST", ":predict")):
        body = "{}" if method == "POST" else None
        code, said = answer(port, method, f"/v1/models/ranker/versions/{version}{rest}", body)
        assert (code, "Failed to convert version" in said["error"]) == (400, True)


def test_a_version_may_have_leading_zeros(port) -> None:
    assert answer(port, "GET", "/v1/models/ranker/versions/0003")[0] == 200


def test_a_length_that_no_integer_holds(port) -> None:
    headers = {"Content-Length": "9" * 5000}
    assert answer(port, "POST", PREDICT, **headers)[0] == 413


def test_a_signature_name_that_is_no_text(port) -> None:
    code, said = answer(port, "POST", PREDICT, r'{"signature_name": "\ud800", "instances": [1]}')
    assert (code, "surrogate" in said["error"]) == (400, True)


def test_requests_under_way_are_answered_before_it_ends(tmp_path, export, server_options) -> None:
    export(tmp_path, 1)
    slow = json.dumps({"signature_name": "slow", "inputs": {"num_steps": [1_000_000]}})
    row = {"user_id": "u", "item_id": "hat", "price": 1.0, "history": ["a"]}
    quick = json.dumps({"signature_name": "predict", "instances": [row]})
    server = EmbeddedServer(server_options(tmp_path, rest_port=0, num_threads=1, drain_seconds=60))
    with server:
        with RankingClient(server.target, "ranker") as client:
            client.wait_until_available(30)
        assert server.rest_port is not None
        port = server.rest_port
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        kept.request("GET", "/v1/models/ranker")
        assert kept.getresponse().read()
        codes: list[int] = []

        def call(body: str) -> None:
            codes.append(answer(port, "POST", PREDICT, body)[0])

        callers = [
            threading.Thread(target=call, args=(body,)) for body in (slow, quick, quick, quick)
        ]
        for number, caller in enumerate(callers):
            caller.start()
            while server._pool._num_unfinished < number + 1:
                time.sleep(0.001)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        while not server._rest._server.is_stopping:
            time.sleep(0.001)
        kept.request("GET", "/v1/models/ranker")
        refused = kept.getresponse()
        assert (refused.status, refused.getheader("Connection")) == (503, "close")
        for thread in (*callers, stopping):
            thread.join(60)
        assert codes == [200] * 4
