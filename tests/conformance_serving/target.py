"""A server as the suite sees it, and the requests that it is asked."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.api import messages, services
from serving.api.services import Method
from serving.api.tensors import decode, encode

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
AVAILABLE, END = 30, 50
_WAIT_SECONDS = 60


@dataclass(frozen=True)
class Target:
    """A server, and how the suite reaches its models.

    Attributes:
        channel: To its gRPC port.
        rest: HOST:PORT of its REST API.
        first_models: Folder of the models that it serves from the start, as the server sees it.
        models: Folder beneath it for what this run of the suite pushes, as this process sees it.
        server_models: The same as the server sees it.
        is_embedded: Whether it is polyrank's own.
    """

    channel: grpc.Channel
    rest: str | None
    first_models: Path | None
    models: Path | None
    server_models: Path | None
    is_embedded: bool

    def call(self, method: Method, request: Any, timeout: float = 30) -> Any:
        return method.bind(self.channel)(request, timeout=timeout)

    def refusal(self, method: Method, request: Any, timeout: float = 30) -> tuple[Any, str]:
        """Returns code and text of a call that must fail."""
        with pytest.raises(grpc.RpcError) as failure:
            self.call(method, request, timeout)
        return failure.value.code(), failure.value.details()

    def predict(
        self, inputs: Mapping[str, Any], signature: str = "", **spec: Any
    ) -> dict[str, np.ndarray]:
        response = self.call(services.PREDICT, predict_request(inputs, signature, **spec))
        return {name: decode(proto) for name, proto in response.outputs.items()}

    def slope(self, name: str, **spec: Any) -> float:
        """Tells the versions of a line apart, by what they answer."""
        return float(self.predict({"x": floats(1)}, name=name, **spec)["y"][0, 0]) - 1.0

    def states(self, name: str) -> dict[int, int]:
        request = messages.GetModelStatusRequest()
        request.model_spec.name = name
        response = self.call(services.GET_MODEL_STATUS, request)
        return {each.version: each.state for each in response.model_version_status}

    def reload(self, *configs: Any) -> Any:
        """Replaces the server's list of models; those of the start stay in it."""
        return self.call(services.HANDLE_RELOAD_CONFIG_REQUEST, self.reload_request(*configs), 60)

    def reload_request(self, *configs: Any) -> Any:
        request = messages.ReloadConfigRequest()
        listed = request.config.model_config_list.config
        for name in ("line", "tf2_line"):
            listed.add().CopyFrom(self.config(name))
            listed[-1].base_path = str(self.first_models / name)
        for config in configs:
            listed.add().CopyFrom(config)
        return request

    def config(
        self,
        name: str,
        folder: str | None = None,
        *,
        latest: int | None = None,
        specific: tuple[int, ...] = (),
        all_versions: bool = False,
        labels: Mapping[str, int] | None = None,
    ) -> Any:
        """Makes the configuration of a model in a folder of the models' folder."""
        assert self.server_models is not None
        config = messages.message_class("tensorflow.serving.ModelConfig")(
            name=name,
            base_path=str(self.server_models / (folder or name)),
            model_platform="tensorflow",
            version_labels=labels,
        )
        if latest is not None:
            config.model_version_policy.latest.num_versions = latest
        if specific:
            config.model_version_policy.specific.versions.extend(specific)
        if all_versions:
            config.model_version_policy.all.SetInParent()
        return config

    def http(self, path: str, body: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
        """Returns status and parsed JSON of a GET, or of a POST if there is a body."""
        data = json.dumps(body).encode() if body is not None else raw
        request = urllib.request.Request(f"http://{self.rest}{path}", data)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1)


def with_spec(
    spec: Any,
    *,
    name: str = "line",
    signature: str = "",
    version: int | None = None,
    label: str | None = None,
) -> None:
    spec.name = name
    spec.signature_name = signature
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label


def predict_request(
    inputs: Mapping[str, Any], signature: str = "", outputs: tuple[str, ...] = (), **spec: Any
) -> Any:
    request = messages.PredictRequest(output_filter=outputs)
    with_spec(request.model_spec, signature=signature, **spec)
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(encode(value))
    return request


def example(**features: float) -> Any:
    made = messages.Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return made


def example_input(*examples: Any, context: Any = None) -> Any:
    made = messages.Input()
    if context is None:
        made.example_list.examples.extend(examples)
    else:
        made.example_list_with_context.examples.extend(examples)
        made.example_list_with_context.context.CopyFrom(context)
    return made


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            if is_so():
                return
        except grpc.RpcError as error:  # e.g. no version has been seen yet
            assert error.code() in (NOT_FOUND, grpc.StatusCode.UNAVAILABLE), error.details()
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)
