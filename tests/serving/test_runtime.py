"""The session runtime: values, pruning, time limits, and life without the fast path."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.api.messages import TensorProto
from serving.api.tensors import TensorError, decode, encode
from serving.server import runtime as runtime_module
from serving.server.errors import StatusError
from serving.server.model_scan import scan_model
from serving.server.runtime import SavedModelRuntime
from serving.server.sent_strings import SentStrings, concatenated, repeated_first


def run(runtime, signature: str, inputs, outputs, seconds: float | None = None):
    """Runs a signature with inputs and outputs by their aliases."""
    found = runtime.signatures[signature]
    feeds = {found.inputs[alias].tensor: value for alias, value in inputs.items()}
    return runtime.run(feeds, [found.outputs[alias] for alias in outputs], seconds)


@pytest.fixture(scope="module")
def path(base_path, export):
    return export(base_path, 5)


@pytest.fixture
def runtime(path):
    loaded = SavedModelRuntime(path, scan_model(path))
    yield loaded
    loaded.close()


def inputs(num_rows: int = 3) -> dict[str, np.ndarray]:
    return {
        "user_id": np.array([b"u"] * num_rows, object),
        "item_id": np.array([b"shoe", b"coat", b"never seen"][:num_rows], object),
        "price": np.array([1.0, 2.0, 3.0][:num_rows], np.float32),
        "history": np.array([[b"", b""], [b"hat", b""], [b"hat", b"hat"]][:num_rows], object),
    }


def test_values(runtime) -> None:
    click, watch, generation = run(
        runtime, "predict", inputs(), ["click", "watch_seconds", "generation"]
    )
    logits = np.array([0.5, 1.5 + 0.1, 0.0 + 0.2])
    np.testing.assert_allclose(click, 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert watch.tolist() == [2.0, 4.0, 6.0]
    assert generation.tolist() == [5.0, 5.0, 5.0]


def test_outputs_that_are_not_asked_for_are_not_computed(tmp_path) -> None:
    class Parts(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def predict(self, text):
            return {
                "length": tf.strings.length(text) + self.zero,
                "number": tf.strings.to_number(text) + tf.cast(self.zero, tf.float32),
            }

    module = Parts()
    module.zero = tf.Variable(0)  # a function that reads a variable is called as a stateful one
    tf.saved_model.save(module, str(tmp_path), signatures={"predict": module.predict})
    loaded = SavedModelRuntime(tmp_path, scan_model(tmp_path))
    words = {"text": np.array([b"no number"], object)}
    try:
        assert [v.tolist() for v in run(loaded, "predict", words, ["length"])] == [[9]]
        with pytest.raises(StatusError, match="StringToNumberOp"):
            run(loaded, "predict", words, ["length", "number"])
    finally:
        loaded.close()


def test_without_the_private_fast_path_the_answers_are_the_same(runtime, monkeypatch) -> None:
    outputs = list(runtime.signatures["predict"].outputs)
    fast = run(runtime, "predict", inputs(), outputs)

    class Session:
        """Offers only what TensorFlow documents."""

        def __init__(self, session) -> None:
            self.run = session.run

        def close(self) -> None:
            pass

    monkeypatch.setattr(runtime, "_session", Session(runtime._session))
    runtime._callables.clear()
    slow = run(runtime, "predict", inputs(), outputs)
    for left, right in zip(fast, slow, strict=True):
        assert left.tolist() == right.tolist()
    with pytest.raises(StatusError, match="Timed out waiting for notification"):
        run(runtime, "slow", {"num_steps": np.array([10**12])}, ["total"], 0.05)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_sent_strings_are_the_strings_that_were_sent(path, num_rows) -> None:
    """Alone and joined, also with zeros at the end."""
    loaded = SavedModelRuntime(path, scan_model(path))
    arrays = inputs(num_rows)
    arrays["user_id"][-1] = b"zeros at the end\0\0"
    sent = {
        alias: SentStrings(encode(value), 10_000) if value.dtype == object else value
        for alias, value in arrays.items()
    }
    both = {alias: concatenated([value, repeated_first(value, 2)]) for alias, value in sent.items()}
    again = {
        alias: np.concatenate([value, np.repeat(value[:1], 2, 0)])
        for alias, value in arrays.items()
    }
    outputs = list(loaded.signatures["predict"].outputs)
    try:
        for left, right in ((sent, arrays), (both, again)):
            for a, b in zip(
                *(run(loaded, "predict", x, outputs) for x in (left, right)), strict=True
            ):
                assert a.tolist() == b.tolist()
        # Two ways to feed and one set of outputs: strings were not decoded on the way.
        assert len(loaded._callables) == 2
    finally:
        loaded.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"string_val": []},
        {"string_val": [b"a"]},
        {"string_val": [b"a", b"b", b"", b"d"]},
        {"tensor_content": b"\1\0\1" + b"ac"},
        {"tensor_content": b"\1\0\1" + b"ac", "string_val": [b"x", b"y", b"z"]},
    ],
)
def test_what_is_checked_of_an_unusual_message_is_what_tensorflow_decodes(changes) -> None:
    proto = TensorProto(dtype=7, **changes)
    proto.tensor_shape.dim.add().size = 3
    meant = tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy().tolist()
    sent = SentStrings(proto, 1000)
    decoded = tf.io.parse_tensor(sent.serialized(), tf.string).numpy().tolist()
    assert sent.strings() == decoded == meant == decode(proto).tolist()
    assert (sent.shape, sent.ndim, len(sent), sent.nbytes) == ((3,), 1, 3, 72)


def test_strings_beyond_their_bytes_or_with_damaged_content_are_refused() -> None:
    with pytest.raises(TensorError, match="exceeds 71 bytes"):
        SentStrings(encode(["a", "b", "c"]), 71)
    proto = TensorProto(dtype=7, tensor_content=b"\5a")
    proto.tensor_shape.dim.add().size = 1
    with pytest.raises(TensorError, match="malformed"):
        SentStrings(proto, 1000)


def test_requests_run_in_their_own_thread_but_for_loops_and_where_more_are_allowed(
    path, tmp_path
) -> None:
    class Doubler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def double(self, x):
            return {"y": 2.0 * x}

    module = Doubler()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"predict": module.double})
    one = {"x": np.ones(1, np.float32)}
    pools = {}
    for name, directory, parallelism in (
        ("plain", tmp_path / "1", 1), ("more", tmp_path / "1", 2), ("loops", path, 1)
    ):  # fmt: skip
        runtime = SavedModelRuntime(directory, scan_model(directory), parallelism)
        made = []
        session = runtime._session
        make = session._make_callable_from_options
        session._make_callable_from_options = lambda options, made=made, make=make: (
            made.append(options.run_options.inter_op_thread_pool) or make(options)
        )
        if name == "loops":
            assert len(run(runtime, "predict", inputs(), ["score"])[0]) == 3
        else:
            assert run(runtime, "predict", one, ["y"])[0].tolist() == [2.0]
        pools[name] = made
        runtime.close()
    assert pools == {"plain": [-1], "more": [0], "loops": [0]}


def test_time_limit(runtime) -> None:
    with pytest.raises(StatusError, match="Timed out waiting for notification") as failure:
        run(runtime, "slow", {"num_steps": np.array([10**12])}, ["total"], 0.1)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_graph_without_loops_has_one_callable_for_all_limits(tmp_path) -> None:
    class Doubler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def double(self, x):
            return {"y": 2.0 * x}

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
        def never_served(self, n):
            return tf.while_loop(lambda i: i < n, lambda i: i + 1, [tf.constant(0, tf.int64)])

    module = Doubler()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"predict": module.double})
    runtime = SavedModelRuntime(tmp_path / "1", scan_model(tmp_path / "1"))
    one = {"x": np.ones(1, np.float32)}
    for seconds in (None, 5.0, 0.5):
        assert run(runtime, "predict", one, ["y"], seconds)[0].tolist() == [2.0]
    assert len(runtime._callables) == 1
    with pytest.raises(StatusError, match="Timed out waiting for notification") as failure:
        run(runtime, "predict", one, ["y"], 1e-9)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    runtime.close()


@pytest.mark.parametrize(
    ("timeout_seconds", "limit_ms"),
    [(None, 0), (1e9, 0), (0.0, 32), (0.032, 32), (0.033, 64), (1.0, 1024), (1.5, 2048)],
)
def test_time_limits_are_rounded_up(timeout_seconds, limit_ms) -> None:
    assert runtime_module._limit_ms(timeout_seconds) == limit_ms


def test_parts_of_the_graph_that_no_output_needs_do_not_run(tmp_path) -> None:
    path = tmp_path / "graph_model"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None])
        outputs = {"double": 2 * x, "finite": tf.debugging.check_numerics(x, "not finite")}
        tf.compat.v1.saved_model.simple_save(session, str(path), {"x": x}, outputs)
    runtime = SavedModelRuntime(path, scan_model(path))
    infinite = {"x": np.array([np.inf], np.float32)}
    assert run(runtime, "serving_default", infinite, ["double"])[0].tolist() == [np.inf]
    with pytest.raises(StatusError, match="not finite"):
        run(runtime, "serving_default", infinite, ["finite"])
    runtime.close()


def test_cached_callables_are_bounded(runtime, monkeypatch) -> None:
    monkeypatch.setattr(runtime_module, "_MAX_CACHED_CALLABLES", 2)
    for _ in range(2):
        for output in ("click", "score", "watch_seconds"):
            assert len(run(runtime, "predict", inputs(), [output])) == 1
            assert len(runtime._callables) <= 2


def test_threads_share_a_runtime(runtime) -> None:
    failures = []

    def work() -> None:
        for num_rows in (1, 2, 3) * 20:
            (score,) = run(runtime, "predict", inputs(num_rows), ["score"])
            if score.tolist() != [1.0, 2.0, 3.0][:num_rows]:
                failures.append(score)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_messages_that_quote_bytes_that_are_not_utf8(runtime) -> None:
    examples = {"examples": np.array([b"\nXQM\xcc\xff"], object)}
    with pytest.raises(StatusError, match="Could not parse") as failure:
        run(runtime, "serving_default", examples, ["click"])
    assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.value.echoes_data


def test_messages_of_the_runtime_are_marked_as_echoing_data(runtime) -> None:
    examples = {"examples": np.array([b"SECRET"], object)}
    with pytest.raises(StatusError) as failure:
        run(runtime, "serving_default", examples, ["click"])
    assert "SECRET" in failure.value.message
    assert "SECRET" not in failure.value.log_text()
