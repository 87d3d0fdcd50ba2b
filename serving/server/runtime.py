"""A SavedModel in a TensorFlow session, as TF Serving itself runs it.

One session per version. A request runs a callable that is cached per inputs and outputs. Only the
part of the graph that the outputs need runs.

What a graph without loops computes is bounded by the request's rows: its time limit is looked at
when it has run. TensorFlow itself watches the time of graphs with loops only: that takes one more
thread a run, and a callable per limit, which no warm-up has warmed.
"""

from __future__ import annotations

import dataclasses
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np

from serving.api.messages import DATA_TYPE_NAMES, SignatureDef
from serving.api.tensors import Array, TensorError, decode
from serving.contract import RANK
from serving.server import errors
from serving.server.allowed_ops import LOOPS
from serving.server.example_check import example_inputs
from serving.server.graph_places import GraphPlaces
from serving.server.model_scan import SERVE_TAG

# TensorFlow reads these when it is imported, so they come first.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Below level 2 TensorFlow's C++ code writes failing requests, payload and all, to stderr.
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") in ("0", "1"):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

_INFERENCE_METHODS = frozenset(
    f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress")
)
_MAX_CACHED_CALLABLES = 64
_SHORTEST_LIMIT_MS = 32
_LONGEST_LIMIT_MS = 1 << 22

RunCallable = Callable[..., Sequence[Any]]
_CallableKey = tuple[tuple[str, ...], tuple[str, ...], int]


@dataclass(frozen=True)
class InputInfo:
    """One input of a signature.

    Attributes:
        tensor: Name of the graph's tensor.
        data_type: TensorFlow data type number.
        shape: Sizes, -1 where any fits; None if the rank is unknown.
        message: Class of the messages that its strings are; None if the graph parses none.
    """

    tensor: str
    data_type: int
    shape: tuple[int, ...] | None
    message: Any = None

    def check(self, alias: str, data_type: int, shape: tuple[int, ...]) -> None:
        """Checks a tensor that was sent; the session itself does not check shapes.

        Raises:
            StatusError: INVALID_ARGUMENT for another type or a shape that does not fit.
        """
        if data_type != self.data_type:
            expected, received = (
                DATA_TYPE_NAMES.get(number, str(number)) for number in (self.data_type, data_type)
            )
            raise errors.wrong_input_type(alias, expected, received)
        if self.shape is not None and (
            len(shape) != len(self.shape)
            or any(size not in (-1, sent) for size, sent in zip(self.shape, shape, strict=True))
        ):
            raise errors.wrong_input_shape(alias, str(list(self.shape)), str(list(shape)))


@dataclass(frozen=True)
class Signature:
    """One signature of a loaded model.

    Attributes:
        name: Name of the signature.
        inputs: Inputs by alias.
        outputs: Graph tensor names by alias.
        defaults: Values of inputs that may be left out.
        is_inference: Whether Predict may run it.
        method_name: What kind of signature it is.
        is_batchable: Whether rows of several requests may be computed together: every input and
            output has its rows in the first dimension, and the rows do not see each other.
    """

    name: str
    inputs: Mapping[str, InputInfo]
    outputs: Mapping[str, str]
    defaults: Mapping[str, Array]
    is_inference: bool
    method_name: str
    is_batchable: bool

    @classmethod
    def from_proto(
        cls, name: str, definition: Any, messages: Mapping[str, Any] | None = None
    ) -> Signature:
        """Reads a SignatureDef.

        Args:
            name: Name of the signature.
            definition: The SignatureDef.
            messages: Message classes by the nodes of the inputs that the graph parses.
        """
        messages = messages or {}
        return cls(
            name=name,
            inputs={
                alias: InputInfo(
                    info.name,
                    info.dtype,
                    _shape(info.tensor_shape),
                    messages.get(info.name.split(":")[0]),
                )
                for alias, info in sorted(definition.inputs.items())
            },
            outputs={alias: info.name for alias, info in sorted(definition.outputs.items())},
            defaults={alias: decode(proto) for alias, proto in definition.defaults.items()},
            is_inference=definition.method_name in _INFERENCE_METHODS,
            method_name=definition.method_name,
            # The candidates of `rank` are compared with each other, even where its shapes allow
            # more.
            is_batchable=name != RANK
            and all(
                _has_rows(info)
                for infos in (definition.inputs, definition.outputs)
                for info in infos.values()
            ),
        )


def _shape(proto: Any) -> tuple[int, ...] | None:
    return None if proto.unknown_rank else tuple(dim.size for dim in proto.dim)


def _has_rows(info: Any) -> bool:
    shape = _shape(info.tensor_shape)
    return bool(shape) and shape is not None and shape[0] == -1


class LoadedModel(Protocol):
    """A loaded version that answers from several threads at once.

    Attributes:
        signatures: What it can be asked, by name.
        signature_defs: The same as SignatureDef messages.
    """

    signatures: Mapping[str, Signature]
    signature_defs: Mapping[str, Any]

    def run(
        self,
        feeds: Mapping[str, Array],
        fetches: Sequence[str],
        timeout_seconds: float | None = None,
        *,
        is_batchable: bool = False,
    ) -> list[Array]:
        """Computes tensors of the graph; see `SavedModelRuntime.run`."""

    def close(self) -> None:
        """Frees it, and cancels what still runs."""


class SavedModelRuntime:
    """A loaded SavedModel that answers from several threads at once.

    Args:
        path: Directory of the SavedModel.
        places: Its served graph, from `serving.server.model_scan.scan_model`; None if it has none.

    Raises:
        StatusError: The model cannot be loaded: files missing, cut or damaged.
    """

    def __init__(self, path: Path, places: GraphPlaces | None) -> None:
        graph = tf.Graph()
        session_config = config_pb2.ConfigProto()
        # Two versions share the device during a swap: take memory as needed, not all of it.
        session_config.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=graph, config=session_config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, [SERVE_TAG], str(path))
            self.signature_defs: Mapping[str, Any] = {
                name: SignatureDef.FromString(definition.SerializeToString())
                for name, definition in meta_graph.signature_def.items()
            }
            assert places is not None, "the loader found a graph that the scan did not"
            messages = example_inputs(places)
            self._has_loops = any(n.proto.op in LOOPS for n in places.requested_nodes())
            with graph.as_default():
                self.signatures: Mapping[str, Signature] = {
                    name: _prunable(Signature.from_proto(name, definition, messages))
                    for name, definition in self.signature_defs.items()
                }
        except Exception as error:
            self._session.close()
            raise _load_failure(error) from None
        self._callables: OrderedDict[_CallableKey, RunCallable] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self,
        feeds: Mapping[str, Array],
        fetches: Sequence[str],
        timeout_seconds: float | None = None,
        *,
        is_batchable: bool = False,
    ) -> list[Array]:
        """Computes tensors of the graph.

        Args:
            feeds: Values by the names of the tensors to feed.
            fetches: Names of the tensors to compute; only what they need is run.
            timeout_seconds: Time limit; None for no limit. Of a graph with loops it is rounded up
                to a power of two of milliseconds, so that few callables serve all limits.
            is_batchable: Ignored: every run is one of its own.

        Returns:
            One array per fetch.

        Raises:
            StatusError: The runtime's code and text. The text may echo the inputs.
        """
        limit_ms = _limit_ms(timeout_seconds) if self._has_loops else 0
        key = (tuple(feeds), tuple(fetches), limit_ms)
        start = time.monotonic()
        try:
            values = [np.asarray(value) for value in self._callable(key)(*feeds.values())]
        except tf.errors.OpError as error:
            raise errors.StatusError(
                errors.code_of_number(error.error_code), error.message, echoes_data=True
            ) from None
        except UnicodeDecodeError as error:
            # TensorFlow's binding cannot tell of an error whose text quotes bytes that are not
            # UTF-8. Bytes of the request's, so the request is at fault.
            raise errors.StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                bytes(error.object).decode(errors="replace"),
                echoes_data=True,
            ) from None
        if timeout_seconds is not None and time.monotonic() - start > timeout_seconds:
            raise errors.timed_out()
        return values

    def close(self) -> None:
        """Frees the session. What still runs ends with CANCELLED; nothing may start any more."""
        with self._lock:
            self._callables.clear()
        self._session.close()

    def _callable(self, key: _CallableKey) -> RunCallable:
        with self._lock:
            run = self._callables.get(key)
            if run is None:
                feeds, fetches, limit_ms = key
                run = make_callable(self._session, feeds, fetches, limit_ms)
                self._callables[key] = run
                if len(self._callables) > _MAX_CACHED_CALLABLES:
                    self._callables.popitem(last=False)
            else:
                self._callables.move_to_end(key)
            return run


def _prunable(signature: Signature) -> Signature:
    """Puts an identity behind every output, in the default graph.

    A signature is one call of a function, and TensorFlow keeps a call whole whose own outputs are
    fetched. Fetched from behind, it is inlined, and what an output does not need is cut away.
    """
    if not signature.is_inference:
        return signature
    graph = tf.compat.v1.get_default_graph()
    outputs = {
        # Composite tensors have no name, and cannot be fetched: that is the request's error.
        alias: tf.identity(graph.get_tensor_by_name(name)).name if name else name
        for alias, name in signature.outputs.items()
    }
    return dataclasses.replace(signature, outputs=outputs)


def make_callable(
    session: Any, feeds: Sequence[str], fetches: Sequence[str], limit_ms: int
) -> RunCallable:
    """Makes a function from feed values to fetched values.

    Args:
        session: A tf.compat.v1.Session.
        feeds: Names of the tensors to feed.
        fetches: Names of the tensors to compute.
        limit_ms: Time limit; 0 for none.

    Returns:
        A function that takes the feeds' values in order and returns the fetches' values.
    """
    run_options = config_pb2.RunOptions(timeout_in_ms=limit_ms)
    # The fast path is private to TensorFlow (40 us instead of 280 us a call): do without it
    # where it is gone.
    make = getattr(session, "_make_callable_from_options", None)
    if make is not None:
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches, run_options=run_options)
        fast: RunCallable = make(options)
        return fast

    def run(*values: Array) -> Sequence[Any]:
        found: Sequence[Any] = session.run(
            list(fetches), dict(zip(feeds, values, strict=True)), options=run_options
        )
        return found

    return run


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
        StatusError: DATA_LOSS where the file is cut or damaged.
    """
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    try:
        yield from records
    except tf.errors.OpError as error:
        raise errors.damaged_warmup_file(error.message) from None


def _limit_ms(timeout_seconds: float | None) -> int:
    if timeout_seconds is None or timeout_seconds * 1000 > _LONGEST_LIMIT_MS:
        return 0
    exact_ms = max(timeout_seconds * 1000, _SHORTEST_LIMIT_MS)
    return 1 << math.ceil(math.log2(exact_ms))


def _load_failure(error: Exception) -> errors.StatusError:
    """The loader reports damaged files with whatever its parsers raise."""
    if isinstance(error, tf.errors.OpError):
        return errors.StatusError(errors.code_of_number(error.error_code), error.message)
    if isinstance(error, (ValueError, TypeError, KeyError, RuntimeError, TensorError)):
        return errors.invalid_saved_model(str(error))
    return errors.status_of(error)
