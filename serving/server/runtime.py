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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np

from serving.api.messages import DATA_TYPE_NAMES, SignatureDef
from serving.api.tensors import DT_STRING, Array, TensorError, decode
from serving.contract import RANK
from serving.server import errors
from serving.server.allowed_ops import LOOPS
from serving.server.example_check import example_inputs
from serving.server.graph_places import GraphPlaces
from serving.server.model_scan import SERVE_TAG
from serving.server.sent_strings import SentStrings, Value

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
# Values of RunOptions.inter_op_thread_pool.
_THREAD_POOL, _CALLING_THREAD = 0, -1
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
        feeds: Mapping[str, Value],
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
        intra_op_parallelism: How many threads an operation may use; all sessions of a process
            share the first one's threads. With 1, a graph without loops runs in the thread that
            calls, operation after operation: handing its small steps around costs more than they
            take. With more, operations run side by side as well.

    Raises:
        StatusError: The model cannot be loaded: files missing, cut or damaged.
    """

    def __init__(
        self, path: Path, places: GraphPlaces | None, intra_op_parallelism: int = 1
    ) -> None:
        if places is None:
            raise errors.invalid_saved_model(f"it has no graph with the tag {SERVE_TAG!r}")
        graph = tf.Graph()
        session_config = config_pb2.ConfigProto(intra_op_parallelism_threads=intra_op_parallelism)
        # Two versions share the device during a swap: take memory as needed, not all of it.
        session_config.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=graph, config=session_config)
        try:
            messages = example_inputs(places)
            self.signature_defs: Mapping[str, Any] = {
                name: SignatureDef.FromString(definition.SerializeToString())
                for name, definition in places.signature_defs.items()
            }
            signatures = {
                name: Signature.from_proto(name, definition, messages)
                for name, definition in self.signature_defs.items()
            }
            with graph.as_default():
                self._decoders = _string_decoders(signatures.values())
                tf.compat.v1.saved_model.load(
                    self._session,
                    [SERVE_TAG],
                    str(path),
                    input_map={name: d.decoded for name, d in self._decoders.items()},
                )
                self.signatures: Mapping[str, Signature] = {
                    name: self._prunable(signature) for name, signature in signatures.items()
                }
            self._has_loops = any(n.proto.op in LOOPS for n in places.requested_nodes())
            # Who computes a loop cannot watch its time as well.
            is_pooled = intra_op_parallelism > 1 or self._has_loops
            self._thread_pool = _THREAD_POOL if is_pooled else _CALLING_THREAD
        except Exception as error:
            self._session.close()
            raise _load_failure(error) from None
        self._callables: OrderedDict[_CallableKey, RunCallable] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self,
        feeds: Mapping[str, Value],
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
        fed = dict(self._fed(name, value) for name, value in feeds.items())
        key = (tuple(fed), tuple(fetches), limit_ms)
        start = time.monotonic()
        try:
            values = [np.asarray(value) for value in self._callable(key)(*fed.values())]
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

    def _prunable(self, signature: Signature) -> Signature:
        """Puts an identity behind every output, in the default graph.

        A signature is one call of a function, and TensorFlow keeps a call whole whose own outputs
        are fetched. Fetched from behind, it is inlined, and what an output does not need is cut
        away.
        """
        if not signature.is_inference:
            return signature
        return dataclasses.replace(
            signature,
            outputs={alias: self._behind(name) for alias, name in signature.outputs.items()},
        )

    def _behind(self, name: str) -> str:
        if not name:  # composite tensors cannot be fetched: that is the request's error
            return name
        decoder = self._decoders.get(name)  # an output can be an input, as it is
        graph = tf.compat.v1.get_default_graph()
        tensor = graph.get_tensor_by_name(name) if decoder is None else decoder.decoded
        return str(tf.identity(tensor).name)

    def close(self) -> None:
        """Frees the session. What still runs ends with CANCELLED; nothing may start any more."""
        with self._lock:
            self._callables.clear()
        self._session.close()

    def _fed(self, name: str, value: Value) -> tuple[str, Array]:
        """Returns which tensor is fed for an input, and with what."""
        decoder = self._decoders.get(name)
        if not isinstance(value, SentStrings):
            return (name if decoder is None else decoder.decoded.name), value
        if decoder is None:
            return name, value.array()
        # As an object: NumPy's own strings lose the zeros that they end with.
        return decoder.sent, np.array(value.serialized(), object)

    def _callable(self, key: _CallableKey) -> RunCallable:
        with self._lock:
            run = self._callables.get(key)
            if run is None:
                run = self._callables[key] = self._make_callable(*key)
                if len(self._callables) > _MAX_CACHED_CALLABLES:
                    self._callables.popitem(last=False)
            else:
                self._callables.move_to_end(key)
            return run

    def _make_callable(
        self, feeds: Sequence[str], fetches: Sequence[str], limit_ms: int
    ) -> RunCallable:
        """Makes a function from the feeds' values, in order, to the fetches' values."""
        run_options = config_pb2.RunOptions(
            timeout_in_ms=limit_ms, inter_op_thread_pool=self._thread_pool
        )
        # The fast path is private to TensorFlow (40 us instead of 280 us a call): do without it
        # where it is gone.
        make = getattr(self._session, "_make_callable_from_options", None)
        if make is not None:
            options = config_pb2.CallableOptions(feed=feeds, fetch=fetches, run_options=run_options)
            fast: RunCallable = make(options)
            return fast

        def run(*values: Array) -> Sequence[Any]:
            found: Sequence[Any] = self._session.run(
                list(fetches), dict(zip(feeds, values, strict=True)), options=run_options
            )
            return found

        return run


@dataclass(frozen=True)
class _StringDecoder:
    """What the graph begins with in place of a string input.

    Attributes:
        sent: Name of the tensor to feed with the bytes of a TensorProto.
        decoded: Its strings, which may be fed instead.
    """

    sent: str
    decoded: Any


def _string_decoders(signatures: Iterable[Signature]) -> dict[str, _StringDecoder]:
    """Adds decoders to the default graph; returns them by the tensors that they stand for.

    TensorFlow turns a message into strings in a small part of the time that it takes to make
    objects for Python and strings of those, and other requests have Python meanwhile.
    """
    inputs = {
        info.tensor: info
        for signature in signatures
        for info in signature.inputs.values()
        # Composite tensors have no name.
        if info.data_type == DT_STRING and info.tensor
    }
    found = {}
    for name, info in inputs.items():
        with tf.name_scope("sent_strings"):
            sent = tf.compat.v1.placeholder(tf.string, [])
            decoded = tf.io.parse_tensor(sent, tf.string)
        if info.shape is not None:
            decoded.set_shape([None if size < 0 else size for size in info.shape])
        found[name] = _StringDecoder(sent.name, decoded)
    return found


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
