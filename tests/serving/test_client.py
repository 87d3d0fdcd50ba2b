"""The clients against a live server: every test asks through both, blocking and by asyncio."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

from serving import errors
from serving.api import services
from serving.async_client import AsyncRankingClient
from serving.client import RankingClient
from serving.contract import VersionState
from serving.retry import RetryPolicy
from serving.server.server import EmbeddedServer

CONTEXT = {"user_id": "u1", "history": ["hat", "shoe"]}
CANDIDATES = {
    "id": ["a", "b", "c", "d"],
    "item_id": ["shoe", "hat", "coat", "unseen"],
    "price": [5.0, 9.0, 5.0, 1.0],
}
TYPED = {"count": [1], "triple": [[0.0] * 3], "visits": [[1.0]], "flag": [True]}
LOGITS = np.array([0.5, -0.25, 1.5, 0.0]) + 0.2


class Blocking:
    """The asyncio client with the face of the synchronous one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()

        async def make() -> AsyncRankingClient:
            return AsyncRankingClient(*arguments, **options)

        try:
            self.client = self.loop.run_until_complete(make())
        except BaseException:
            self.loop.close()
            raise

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)
        return lambda *arguments, **named: self.loop.run_until_complete(method(*arguments, **named))

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        self.loop.close()


@pytest.fixture(scope="module", params=[RankingClient, Blocking], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a client of one kind."""
    return request.param


@pytest.fixture
def client(server: EmbeddedServer, connect: Callable[..., Any]) -> Iterator[Any]:
    with connect(server.target, "ranker") as connected:
        yield connected


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def columns(num_rows: int = 4) -> dict[str, list]:
    return {
        "user_id": ["u1"] * num_rows,
        "history": [["hat", "shoe"]] * num_rows,
        "item_id": CANDIDATES["item_id"][:num_rows],
        "price": CANDIDATES["price"][:num_rows],
    }


def example(**features: list) -> bytes:
    proto = tf.train.Example()
    for name, values in features.items():
        if isinstance(values[0], str):
            proto.features.feature[name].bytes_list.value.extend(v.encode() for v in values)
        else:
            proto.features.feature[name].float_list.value.extend(values)
    return proto.SerializeToString()


def test_predict(client) -> None:
    answer = client.predict(columns())
    np.testing.assert_allclose(answer["click"], sigmoid(LOGITS), rtol=1e-6)
    assert answer["watch_seconds"].tolist() == [10.0, 18.0, 10.0, 2.0]
    assert answer["click"].dtype == np.float32
    assert answer["generation"].tolist() == [3.0] * 4


def test_the_three_signatures_agree(client) -> None:
    by_name = client.predict(columns())
    by_example = client.predict_examples(
        [
            example(user_id=["u1"], history=["hat", "shoe"], item_id=[item], price=[price])
            for item, price in zip(CANDIDATES["item_id"], CANDIDATES["price"], strict=True)
        ]
    )
    ranked = client.rank(CONTEXT, CANDIDATES, id_key="id")
    for name, values in by_name.items():
        np.testing.assert_array_equal(by_example[name], values)
        np.testing.assert_array_equal(ranked.scores[name], values[ranked.order])


def test_missing_values_are_none(client) -> None:
    answer = client.predict({**columns(1), "price": [None], "user_id": [None]})
    assert answer["watch_seconds"].tolist() == [0.0]
    assert np.isnan(answer["score"]).all()


def test_outputs_can_be_chosen(client) -> None:
    assert list(client.predict(columns(), outputs=["score"])) == ["score"]


def test_rank_orders_by_score_with_stable_ties(client) -> None:
    ranking = client.rank(CONTEXT, CANDIDATES, id_key="id")
    assert ranking.ids.tolist() == ["b", "a", "c", "d"]
    assert ranking.order.tolist() == [1, 0, 2, 3]
    assert ranking.scores["score"].tolist() == [9.0, 5.0, 5.0, 1.0]
    np.testing.assert_allclose(ranking.scores["click"], sigmoid(LOGITS)[[1, 0, 2, 3]], rtol=1e-6)
    assert (ranking.model, ranking.version) == ("ranker", 3)


def test_rank_takes_rows_and_returns_rows(client) -> None:
    names = list(CANDIDATES)
    rows = [
        dict(zip(names, values, strict=True)) for values in zip(*CANDIDATES.values(), strict=True)
    ]
    ranking = client.rank(CONTEXT, rows, top_k=2, id_key="id")
    assert [row["id"] for row in ranking.rows()] == ["b", "a"]
    assert ranking.rows()[0]["watch_seconds"] == 18.0
    without_ids = client.rank(CONTEXT, [{k: r[k] for k in r if k != "id"} for r in rows], top_k=1)
    assert without_ids.ids.tolist() == [1]


def test_columns_of_pandas_and_arrow(client) -> None:
    expected = client.rank(CONTEXT, CANDIDATES, top_k=3, id_key="id")
    frame = pd.DataFrame(CANDIDATES)
    batch = pa.RecordBatch.from_pydict(CANDIDATES)
    for candidates in (frame, pa.Table.from_pandas(frame), batch, dict(frame.items())):
        ranking = client.rank(CONTEXT, candidates, top_k=3, id_key="id")
        assert ranking.ids.tolist() == expected.ids.tolist() == ["b", "a", "c"]
        np.testing.assert_array_equal(ranking.scores["click"], expected.scores["click"])
    for whole in (pd.DataFrame(columns()), pa.table(columns())):
        np.testing.assert_array_equal(
            client.predict(whole)["click"], client.predict(columns())["click"]
        )


@pytest.mark.parametrize("num_candidates", [1, 500])
def test_rank_of_slates_of_any_size(client, num_candidates) -> None:
    rng = np.random.default_rng(7)
    prices = rng.permutation(num_candidates).astype(np.float32)
    candidates = {"item_id": ["hat"] * num_candidates, "price": prices}
    ranking = client.rank(CONTEXT, candidates)
    assert ranking.scores["score"].tolist() == sorted(prices.tolist(), reverse=True)


def test_sequences_and_numbers_of_every_kind(client) -> None:
    answer = client.predict(
        {
            "count": [1, 2],
            "triple": [[1.0, 2.0, 3.0], [0.0, 0.0, 0.5]],
            "visits": [[1.0], [2.0, 3.0]],
            "flag": [True, False],
        },
        signature="typed",
    )
    assert answer["score"].tolist() == [7.0, 2.5]
    assert answer["visits_sum"].tolist() == [1.0, 5.0]
    assert answer["not_flag"].tolist() == [False, True]


def test_metadata(client) -> None:
    metadata = client.metadata()
    assert (metadata.model, metadata.version) == ("ranker", 3)
    assert set(metadata.signatures) == {"serving_default", "predict", "rank", "slow", "typed"}
    rank = metadata.signature("rank")
    assert rank.inputs["user_id"].shape == (1,)
    assert rank.inputs["price"].shape == (None,)
    assert rank.inputs["price"].dtype_name == "float"
    assert set(rank.outputs) == {"click", "watch_seconds", "score", "generation"}


def test_status(client) -> None:
    (status,) = client.status()
    assert (status.version, status.state) == (3, VersionState.AVAILABLE)
    assert (status.error_code, status.error_message) == (0, "")


def test_pinned_version(server, connect) -> None:
    with connect(server.target, "ranker", version=3) as client:
        assert client.rank(CONTEXT, CANDIDATES, id_key="id").version == 3
    with (
        connect(server.target, "ranker", version=4) as client,
        pytest.raises(errors.NotFoundError, match=r"Specific\(ranker, 4\)"),
    ):
        client.predict(columns())


def test_label(server, connect) -> None:
    with (
        connect(server.target, "ranker", label="canary") as client,
        pytest.raises(errors.InvalidRequestError, match="label: canary"),
    ):
        client.predict(columns())


FAULTS = {
    "unknown input": (
        lambda c: c.predict({**columns(), "prize": [1.0]}), "did you mean 'price'"
    ),
    "missing inputs": (lambda c: c.predict({"price": [1.0]}), "lacks history, item_id, user_id"),
    "type": (lambda c: c.predict({**columns(), "price": ["1"] * 4}), "wrong type.*received text"),
    "number of rows": (lambda c: c.predict({**columns(), "price": [1.0]}), "price: 1"),
    "shape": (lambda c: c.predict({**columns(), "price": [[1.0]] * 4}), "wrong shape"),
    "sequence too long": (
        lambda c: c.predict({**TYPED, "triple": [[0.0] * 4]}, signature="typed"), "too long"
    ),
    "sequence too short": (
        lambda c: c.predict({**TYPED, "triple": np.zeros((1, 2))}, signature="typed"),
        "wrong shape",
    ),
    "out of range": (
        lambda c: c.predict({**TYPED, "count": np.array([2**63], np.uint64)}, signature="typed"),
        "out of range",
    ),
    "ragged rows": (
        lambda c: c.predict({**columns(), "price": [[1.0], [1.0, 2.0]]}), "different shapes"
    ),
    "unknown output": (lambda c: c.predict(columns(), outputs=["clik"]), "did you mean 'click'"),
    "output twice": (lambda c: c.predict(columns(), outputs=["click", "click"]), "twice"),
    "unnamed": (lambda c: c.predict([1.0, 2.0]), "not given by name"),
    "no text name": (lambda c: c.predict({3: [1.0]}), "name is not usable"),
    "id sent": (lambda c: c.rank(CONTEXT, CANDIDATES), "unknown input 'id'"),
    "no id": (lambda c: c.rank(CONTEXT, CANDIDATES, id_key="idd"), "did you mean 'id'"),
    "top_k": (lambda c: c.rank(CONTEXT, CANDIDATES, top_k=0, id_key="id"), "top_k"),
    "part of a candidate": (
        lambda c: c.rank(CONTEXT, CANDIDATES, top_k=1.5, id_key="id"),
        "an integer, 1 or more",
    ),
    "no candidates": (lambda c: c.rank(CONTEXT, []), "no candidates"),
    "candidates differ": (
        lambda c: c.rank(CONTEXT, [{"item_id": "a", "price": 1.0}, {"item_id": "b"}]),
        "candidate 1 and candidate 0 differ in price",
    ),
    "candidate unnamed": (lambda c: c.rank(CONTEXT, ["a"]), "candidate 0 has no named"),
    "candidates single": (
        lambda c: c.rank(CONTEXT, {"item_id": "a", "price": [1.0]}), "is a single value"
    ),
    "numbers of candidates": (
        lambda c: c.rank(CONTEXT, {"item_id": ["a"], "price": [1.0, 2.0]}), "different numbers"
    ),
    "on both sides": (
        lambda c: c.rank({**CONTEXT, "price": 1.0}, CANDIDATES, id_key="id"), "given both"
    ),
    "context of many": (
        lambda c: c.rank({**CONTEXT, "user_id": ["a", "b"]}, CANDIDATES, id_key="id"),
        "wrong shape",
    ),
    "weight of no bounds": (
        lambda c: c.rank(CONTEXT, CANDIDATES, id_key="id", weights={"click": 1.0}),
        "the model declares no bounds",
    ),
    "examples": (lambda c: c.predict_examples(["text", 3]), "wrong type"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_requests_are_not_sent(fault, client, server) -> None:
    client.metadata()
    before = predict_count(server)
    ask, text = FAULTS[fault]
    with pytest.raises(errors.InvalidRequestError, match=text) as failure:
        ask(client)
    assert predict_count(server) == before
    told = failure.value
    assert told.what and told.constraint and told.received != "" and told.remedy


def test_unknown_signatures_are_not_asked(client, server) -> None:
    before = predict_count(server)
    with pytest.raises(errors.PreconditionError, match="did you mean 'predict'"):
        client.predict(columns(), signature="predicts")
    assert predict_count(server) == before


def predict_count(server) -> int:
    return sum(
        int(sample.value)
        for metric in server.metrics.registry.collect()
        for sample in metric.samples
        if sample.name.endswith("request_count") and sample.labels["API"] == "Predict"
    )


def test_malformed_example_is_the_callers_fault(client) -> None:
    with pytest.raises(errors.InvalidRequestError, match="Could not parse example") as failure:
        client.predict_examples([b"nonsense"])
    assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "remedy" in str(failure.value)


def test_deadline(server, connect) -> None:
    with connect(server.target, "ranker", timeout_seconds=0.3) as client:
        client.metadata()
        with pytest.raises(errors.DeadlineError, match="timeout_seconds"):
            client.predict({"num_steps": [10**12]}, signature="slow")


def test_time_without_end(server, connect) -> None:
    patient = connect(server.target, "ranker", timeout_seconds=float("inf"))
    assert patient.metadata().version == 3
    assert patient.wait_until_available(float("inf")) == 3


def test_message_too_large_for_the_server(client) -> None:
    with pytest.raises(errors.ResourceExhaustedError, match="fewer candidates"):
        client.predict({**columns(1), "item_id": ["x" * (2 << 20)]})


def test_message_too_large_for_the_client(server, connect) -> None:
    with (
        connect(server.target, "ranker", max_message_bytes=3000) as client,
        pytest.raises(errors.ResourceExhaustedError),
    ):
        client.predict(columns(1) | {"item_id": ["x" * 5000]})


def test_nobody_listens(connect) -> None:
    retry = RetryPolicy(max_retries=1, first_seconds=0.01)
    with (
        connect("127.0.0.1:1", "ranker", retry=retry) as client,
        pytest.raises(errors.UnavailableError, match="wait_until_available"),
    ):
        client.predict(columns())


def test_wait_until_available_says_what_it_saw(server, connect) -> None:
    with (
        connect(server.target, "ranker", version=9) as client,
        pytest.raises(errors.DeadlineError, match="Could not find version 9"),
    ):
        client.wait_until_available(0.2)
    with (
        connect("127.0.0.1:1", "ranker") as client,
        pytest.raises(errors.DeadlineError, match="available version within 0.2 s"),
    ):
        client.wait_until_available(0.2)


@pytest.mark.parametrize(
    "settings", [{"version": 1, "label": "a"}, {"timeout_seconds": 0}, {"timeout_seconds": -1.0}]
)
def test_settings_that_make_no_sense(settings, connect) -> None:
    with pytest.raises(errors.InvalidRequestError):
        connect("127.0.0.1:1", "ranker", **settings)


class Flaky:
    """A server whose GetModelStatus fails with given codes before it answers."""

    def __init__(self, codes: list[grpc.StatusCode]) -> None:
        self.codes = codes
        self.num_calls = 0
        self.peers: set[str] = set()
        self.lock = threading.Lock()
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        method = services.GET_MODEL_STATUS
        handler = grpc.unary_unary_rpc_method_handler(
            self.answer, method.request.FromString, method.response.SerializeToString
        )
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(method.service, {method.name: handler}),)
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def answer(self, request, context):
        with self.lock:
            position = self.num_calls
            self.num_calls += 1
            self.peers.add(context.peer())
        if position < len(self.codes):
            context.abort(self.codes[position], "flaky")
        response = services.GET_MODEL_STATUS.response()
        response.model_version_status.add(version=1, state=30)
        return response

    def __enter__(self) -> Flaky:
        self.server.start()
        return self

    def __exit__(self, *exc) -> None:
        self.server.stop(0).wait()


QUICK = RetryPolicy(max_retries=2, first_seconds=0.01)


def test_unavailable_is_retried(connect) -> None:
    with Flaky([grpc.StatusCode.UNAVAILABLE] * 2) as flaky:
        with connect(f"127.0.0.1:{flaky.port}", "m", retry=QUICK) as client:
            assert client.status()[0].version == 1
        assert flaky.num_calls == 3


def test_calls_share_a_connection(connect) -> None:
    with Flaky([]) as flaky:
        with connect(f"127.0.0.1:{flaky.port}", "m") as client:
            for _ in range(20):
                client.status()
        assert flaky.num_calls == 20
        assert len(flaky.peers) == 1


def test_retries_are_bounded(connect) -> None:
    with Flaky([grpc.StatusCode.UNAVAILABLE] * 9) as flaky:
        with (
            connect(f"127.0.0.1:{flaky.port}", "m", retry=QUICK) as client,
            pytest.raises(errors.UnavailableError) as failure,
        ):
            client.status()
        assert flaky.num_calls == 3
    assert failure.value.details == "flaky"


def test_retries_end_with_the_budget(connect) -> None:
    patient = RetryPolicy(max_retries=50, first_seconds=100.0, factor=1.0)
    with Flaky([grpc.StatusCode.UNAVAILABLE] * 99) as flaky:
        target = f"127.0.0.1:{flaky.port}"
        with (
            connect(target, "m", timeout_seconds=0.5, retry=patient) as client,
            pytest.raises(errors.UnavailableError),
        ):
            client.status()
        assert flaky.num_calls <= 3


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        (grpc.StatusCode.INTERNAL, errors.ServerFaultError),
        (grpc.StatusCode.DATA_LOSS, errors.ServerFaultError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.ResourceExhaustedError),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequestError),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.PreconditionError),
        (grpc.StatusCode.NOT_FOUND, errors.NotFoundError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.UnimplementedError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.DeniedError),
        (grpc.StatusCode.UNAUTHENTICATED, errors.DeniedError),
    ],
)
def test_other_codes_are_typed_and_not_retried(code, error_class, connect) -> None:
    with Flaky([code]) as flaky:
        with (
            connect(f"127.0.0.1:{flaky.port}", "m", retry=QUICK) as client,
            pytest.raises(error_class) as failure,
        ):
            client.status()
        assert flaky.num_calls == 1
    assert failure.value.code is code


def test_a_changed_model_is_noticed(
    tmp_path_factory, export, edit_saved_model, server_options, connect
) -> None:
    def remove_score(signatures) -> None:
        del signatures["rank"].outputs["score"]

    base = tmp_path_factory.mktemp("changing")
    export(base, 1, signatures=("predict", "typed"))
    with (
        EmbeddedServer(server_options(base)) as server,
        connect(server.target, "ranker") as client,
    ):
        client.wait_until_available(30)
        client.predict(TYPED, signature="typed")
        export(base, 2, signatures=("predict", "rank"))
        wait_for_version(client, 2)
        assert client.rank(CONTEXT, CANDIDATES, id_key="id").version == 2  # not in version 1
        with pytest.raises(errors.PreconditionError, match="'typed'"):
            client.predict(TYPED, signature="typed")
        export(base, 3, change=lambda path: edit_saved_model(path, remove_score))
        wait_for_version(client, 3)
        with pytest.raises(errors.PreconditionError, match="no output 'score'"):
            client.rank(CONTEXT, CANDIDATES, id_key="id")


def wait_for_version(client: RankingClient, version: int) -> None:
    for _ in range(2000):
        if client.metadata().version == version:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"version {version} did not come")


def test_asyncio_requests_run_side_by_side(server) -> None:
    async def ask() -> list[float]:
        async with AsyncRankingClient(server.target, "ranker", timeout_seconds=60.0) as client:
            answers = await asyncio.gather(
                *(client.predict({**columns(1), "price": [float(n)]}) for n in range(40))
            )
        return [answer["score"].item() for answer in answers]

    assert asyncio.run(ask()) == list(range(40))


def test_a_cancelled_task_cancels_its_call(server) -> None:
    async def ask() -> None:
        async with AsyncRankingClient(server.target, "ranker", timeout_seconds=60.0) as client:
            await client.metadata()
            slow = asyncio.ensure_future(client.predict({"num_steps": [10**9]}, signature="slow"))
            await asyncio.sleep(0.1)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert (await client.predict(columns(1)))["score"].tolist() == [5.0]

    asyncio.run(ask())


def test_the_two_clients_offer_the_same() -> None:
    def offered(client: type) -> dict[str, Any]:
        return {
            name: list(inspect.signature(member).parameters) if callable(member) else type(member)
            for name, member in vars(client).items()
            if not name.startswith("_")
        }

    assert offered(RankingClient) == offered(AsyncRankingClient)
    assert offered(RankingClient)["features"] is property


RANK_WITHOUT_TENSORFLOW = """
import sys
import serving.async_client
from serving.client import RankingClient
with RankingClient(sys.argv[1], "ranker") as client:
    ranking = client.rank(
        {"user_id": "u", "history": ["hat"]}, [{"item_id": "hat", "price": 1.0}]
    )
print(ranking.scores["score"].tolist())
heavy = ("tensorflow", "tensorflow_serving", "tf_keras", "tfx", "apache_beam", "pandas", "pyarrow",
         "pydantic", "duckdb", "scipy", "sklearn", "prometheus_client")
print([name for name in sys.modules if name.split(".")[0] in heavy])
print([name for name in sys.modules
       if name.split(".")[0] in ("models", "pipeline", "components")])
print([name for name in sys.modules if name.startswith("serving.server")])
"""


def test_the_client_works_without_tensorflow_and_modelling_code(server) -> None:
    found = subprocess.run(
        [sys.executable, "-c", RANK_WITHOUT_TENSORFLOW, server.target],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    scores, heavy, ours, server_modules = found.stdout.splitlines()
    assert scores == "[1.0]"
    assert heavy == "[]"
    assert set(eval(ours)) == {
        "models",
        "models.spec",
        "models.spec.errors",
        "models.spec.keys",
        "models.spec.pii_key",
    }
    assert server_modules == "[]"
