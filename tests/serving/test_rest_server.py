"""What the REST server answers to requests that no client of good sense sends, and while it stops."""

from __future__ import annotations

import http.client
import json
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
