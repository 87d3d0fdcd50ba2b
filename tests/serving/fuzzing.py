"""Faulty requests from a seed: broken messages, broken tensors, broken examples.

``python tests/serving/fuzzing.py HOST:PORT MODEL NUM_INPUTS [SEED]`` sends them to a server.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # when run as a script

from serving.api import messages, services
from serving.api.tensors import encode

CLIENT_CODES = {
    grpc.StatusCode.OK,  # some changes leave a valid request
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}
"""Codes that say that the request is at fault; RESOURCE_EXHAUSTED only for its size."""

_DIMENSIONS = (-(1 << 63), -1, 0, 1, 2, 3, 7, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1)
_CALL_SECONDS = 20


def example(source: random.Random) -> bytes:
    """Makes a tf.Example that is valid or nearly so."""
    made = messages.Example()
    feature = made.features.feature
    for name in ("user_id", "item_id", "history", "colour"):
        kind = source.randrange(5)
        if kind == 0:
            feature[name].int64_list.value.append(source.getrandbits(62))
        elif kind < 4:
            feature[name].bytes_list.value.extend(
                source.randbytes(source.randrange(8)) for _ in range(source.randrange(4))
            )
    if source.random() < 0.8:
        feature["price"].float_list.value.extend(
            [source.choice([0.0, 1e38, float("nan"), float("inf")])] * source.randrange(3)
        )
    return damaged(made.SerializeToString(), source)


def damaged(content: bytes, source: random.Random) -> bytes:
    """Flips, cuts, inserts, repeats, or leaves bytes as they are."""
    changed = bytearray(content)
    for _ in range(source.choice([0, 0, 1, 1, 2, 5])):
        position = source.randrange(len(changed) + 1)
        kind = source.randrange(5)
        if kind == 0 and position < len(changed):
            changed[position] ^= 1 << source.randrange(8)
        elif kind == 1:
            del changed[position:]
        elif kind == 2:
            changed[position:position] = source.randbytes(source.randrange(1, 9))
        elif kind == 3:
            changed[position:position] = changed[: source.randrange(1, 65)]
        elif position < len(changed):
            changed[position] = source.choice([0x00, 0x7F, 0x80, 0xFF])
    return bytes(changed)


def tensor(source: random.Random) -> object:
    """Makes a tensor of any type and shape, whose content may not fit them."""
    proto = messages.TensorProto(dtype=source.choice(list(messages.DATA_TYPES.values())))
    if source.random() < 0.5:
        proto.dtype = source.choice([1, 7, 9])  # what the model takes
    for _ in range(source.choice([0, 1, 1, 2, 2, 3, 40])):
        proto.tensor_shape.dim.add().size = source.choice(_DIMENSIONS)
    proto.tensor_shape.unknown_rank = source.random() < 0.05
    kind = source.randrange(5)
    if kind == 0:
        proto.tensor_content = source.randbytes(source.choice([0, 1, 4, 8, 12, 64]))
    elif kind == 1:
        proto.float_val.extend([float("nan")] * source.randrange(4))
    elif kind == 2:
        proto.string_val.extend(source.randbytes(3) for _ in range(source.randrange(4)))
    elif kind == 3:
        proto.int64_val.extend([source.getrandbits(63)] * source.randrange(4))
    return proto


def requests(num_inputs: int, seed: int, model: str) -> Iterator[tuple[services.Method, bytes]]:
    """Yields methods and the bytes to send to them; the same for the same seed."""
    source = random.Random(seed)
    for _ in range(num_inputs):
        kind = source.randrange(4)
        if kind == 0:
            yield services.PREDICT, _predict_of_examples(source, model)
        elif kind == 1:
            yield services.PREDICT, damaged(_predict_of_tensors(source, model), source)
        elif kind == 2:
            yield services.PREDICT, _predict_of_tensors(source, model)
        else:
            method = source.choice(
                [services.CLASSIFY, services.REGRESS, services.GET_MODEL_METADATA]
            )
            request = method.request()
            request.model_spec.name = model
            if method is not services.GET_MODEL_METADATA:
                request.input.example_list.examples.add()
            yield method, damaged(request.SerializeToString(), source)


def _predict_of_examples(source: random.Random, model: str) -> bytes:
    request = messages.PredictRequest()
    request.model_spec.name = model
    rows = [example(source) for _ in range(source.randrange(1, 4))]
    request.inputs["examples"].CopyFrom(encode(np.array(rows, object)))
    return request.SerializeToString()


def _predict_of_tensors(source: random.Random, model: str) -> bytes:
    request = messages.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = source.choice(["predict", "rank", "typed", "", "absent"])
    valid = {
        "user_id": np.array([b"u"], object),
        "item_id": np.array([b"hat"], object),
        "price": np.ones(1, np.float32),
        "history": np.array([[b"hat"]], object),
    }
    for name, value in valid.items():
        if source.random() < 0.95:
            request.inputs[name].CopyFrom(encode(value))
    for name in source.sample([*valid, "count", "triple", "colour"], source.randrange(3)):
        request.inputs[name].CopyFrom(tensor(source))
    if source.random() < 0.2:
        request.output_filter.append(source.choice(["score", "click", "absent"]))
    return request.SerializeToString()


def send(target: str, model: str, num_inputs: int, seed: int) -> Counter[grpc.StatusCode]:
    """Sends them and counts the answers.

    Raises:
        AssertionError: An answer blames anything but the request; names the seed and position.
    """
    codes: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(target) as channel:
        calls = {
            method: channel.unary_unary(method.path)
            for method in (
                services.PREDICT, services.CLASSIFY, services.REGRESS, services.GET_MODEL_METADATA
            )
        }  # fmt: skip
        for position, (method, content) in enumerate(requests(num_inputs, seed, model)):
            try:
                calls[method](content, timeout=_CALL_SECONDS)
                code, details = grpc.StatusCode.OK, ""
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
            assert code in CLIENT_CODES, f"seed {seed} input {position}: {code} {details}"
            codes[code] += 1
    return codes


if __name__ == "__main__":
    found = send(
        sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0
    )
    print({code.name: count for code, count in found.most_common()})
