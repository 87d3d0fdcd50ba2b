"""Typed synchronous client of a ranking model, the same for the embedded server and TF Serving.

Imports neither TensorFlow nor anything else that is heavy.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

from serving.api import messages, services, tensors
from serving.contract import (
    EXAMPLES_INPUT,
    PREDICT,
    RANK,
    SCORE_OUTPUT,
    SERVING_DEFAULT,
    VersionState,
)
from serving.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    ServerFaultError,
    ServingError,
    UnavailableError,
    from_status,
)
from serving.inputs import check_batch, encode_inputs
from serving.ranking import Ranking, encode_rank, rank_outputs, read_slate
from serving.retry import Budget, RetryPolicy
from serving.signatures import ModelMetadata, SignatureSpec

Inputs = dict[str, tensors.Array]

_FIRST_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class VersionStatus:
    """State of one version of a model.

    Attributes:
        version: The version.
        state: Where it is in its life.
        error_code: gRPC status code number, 0 unless loading it failed.
        error_message: Why loading it failed.
    """

    version: int
    state: VersionState
    error_code: int
    error_message: str


class RankingClient:
    """Asks one model of one server for scores. Safe to share between threads.

    Inputs are checked against the model's metadata before anything is sent. The metadata is
    fetched once, and again when another version answers.

    Example:
        >>> client = RankingClient("localhost:8500", "ranker", timeout_seconds=0.2)
        >>> client.rank({"user_id": "u1"}, [{"item_id": "a"}, {"item_id": "b"}],
        ...             id_key="item_id").ids  # doctest: +SKIP

    Args:
        target: ``host:port``.
        model: Name of the model.
        timeout_seconds: Budget of each call, retries and metadata included.
        version: Ask this version only; the newest if None.
        label: Ask the version that carries this label.
        retry: When to try again after UNAVAILABLE.
        max_message_bytes: Largest request and response.

    Raises:
        InvalidRequestError: Both `version` and `label` are given, or a limit is not positive.
    """

    def __init__(
        self,
        target: str,
        model: str,
        *,
        timeout_seconds: float = 5.0,
        version: int | None = None,
        label: str | None = None,
        retry: RetryPolicy | None = None,
        max_message_bytes: int = 64 << 20,
    ) -> None:
        if version is not None and label is not None:
            raise InvalidRequestError(
                "both a version and a label are given", constraint="at most one of them"
            )
        if timeout_seconds <= 0:
            raise InvalidRequestError("timeout_seconds is not positive", received=timeout_seconds)
        self._target = target
        self._model = model
        self._timeout_seconds = timeout_seconds
        self._version = version
        self._label = label
        self._retry = retry or RetryPolicy()
        # Clients that fail together must not retry together, so this one has no fixed seed.
        self._jitter = random.Random()
        self._metadata: ModelMetadata | None = None
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
                # gRPC's own waits between connection attempts grow to two minutes.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._predict = services.PREDICT.bind(self._channel)
        self._get_metadata = services.GET_MODEL_METADATA.bind(self._channel)
        self._get_status = services.GET_MODEL_STATUS.bind(self._channel)

    def __enter__(self) -> RankingClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel; calls under way end with CANCELLED."""
        self._channel.close()

    def predict(
        self,
        inputs: Mapping[str, Any],
        signature: str = PREDICT,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, tensors.Array]:
        """Asks for the outputs of a signature.

        Args:
            inputs: Per input a list or array, ``[N]`` or ``[N, L]``; ragged lists are padded.
            signature: Name of the signature.
            outputs: The outputs to compute; all if None.

        Returns:
            Per output an array, ``float32[N]`` for the outputs of a ranker.

        Raises:
            InvalidRequestError: The inputs do not fit the signature.
            ServingError: Any other way in which no answer came.
        """

        def encode(spec: SignatureSpec) -> Inputs:
            arrays = encode_inputs(inputs, spec)
            if signature != RANK:
                check_batch(arrays)
            return arrays

        answered, _ = self._ask(signature, encode, outputs)
        return answered

    def predict_examples(
        self, examples: Sequence[bytes], outputs: Sequence[str] | None = None
    ) -> dict[str, tensors.Array]:
        """Asks for the outputs of serialized tf.Examples (signature ``serving_default``).

        Args:
            examples: Serialized tf.Examples of request features.
            outputs: The outputs to compute; all if None.

        Returns:
            Per output ``float32[N]``.

        Raises:
            InvalidRequestError: An example does not parse or lacks a feature.
            ServingError: Any other way in which no answer came.
        """
        return self.predict({EXAMPLES_INPUT: list(examples)}, SERVING_DEFAULT, outputs)

    def rank(
        self,
        context: Mapping[str, Any],
        candidates: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        top_k: int | None = None,
        id_key: str | None = None,
    ) -> Ranking:
        """Ranks candidates in one context (signature ``rank``).

        Args:
            context: Features with one value for the request; a list where it is a sequence.
            candidates: Columns ``{feature: N values}`` or N rows ``{feature: value}``.
            top_k: How many to return; all if None.
            id_key: The candidates' column to return as ids. It is sent to the model only if
                the model takes it.

        Returns:
            The candidates by descending score, ties in the order of the request.

        Raises:
            InvalidRequestError: The features do not fit the model.
            ServingError: Any other way in which no answer came.
        """
        if top_k is not None and top_k < 1:
            raise InvalidRequestError("top_k is not positive", received=top_k)
        slate = read_slate(candidates, id_key)

        def encode(spec: SignatureSpec) -> Inputs:
            if SCORE_OUTPUT not in spec.outputs:
                raise PreconditionError(
                    f"model {self._model!r} has no output {SCORE_OUTPUT!r} to rank by",
                    received=", ".join(spec.outputs),
                )
            return encode_rank(context, slate, id_key, spec)

        answered, version = self._ask(RANK, encode, None)
        if SCORE_OUTPUT not in answered:
            raise ServerFaultError(f"the answer lacks the output {SCORE_OUTPUT!r}")
        return rank_outputs(answered, slate, top_k=top_k, model=self._model, version=version)

    def metadata(self) -> ModelMetadata:
        """Asks what the model takes and returns.

        Raises:
            ServingError: No answer came.
        """
        return self._fetch_metadata(Budget(self._timeout_seconds))

    def status(self) -> list[VersionStatus]:
        """Asks for the state of the model's versions (of the one asked for, if any).

        Labels are not resolved: with a label, all versions are listed.

        Raises:
            NotFoundError: The server knows no version of the model.
            ServingError: Any other way in which no answer came.
        """
        return self._fetch_status(Budget(self._timeout_seconds), self._retry)

    def wait_until_available(self, timeout_seconds: float = 60.0) -> int:
        """Waits until the server answers for the model.

        Args:
            timeout_seconds: How long to wait at most.

        Returns:
            The newest available version.

        Raises:
            DeadlineError: It did not become available; says what was seen last.
        """
        budget = Budget(timeout_seconds)
        poll_seconds = _FIRST_POLL_SECONDS
        seen = "no answer"
        while True:
            try:
                states = self._fetch_status(budget, RetryPolicy(max_retries=0))
                available = [s.version for s in states if s.state is VersionState.AVAILABLE]
                if available:
                    return max(available)
                seen = ", ".join(
                    f"version {s.version} {s.state.name} {s.error_message}".rstrip() for s in states
                )
            except (NotFoundError, UnavailableError) as error:
                seen = error.details
            except DeadlineError:
                pass  # the budget is spent: say below what was seen before
            if budget.left_seconds() <= poll_seconds:
                raise DeadlineError(
                    f"model {self._model!r} at {self._target} is not available "
                    f"after {timeout_seconds:g} s",
                    received=seen,
                    remedy="check the server's log and the model's base path",
                )
            time.sleep(poll_seconds)
            poll_seconds = min(2 * poll_seconds, _LONGEST_POLL_SECONDS)

    def _ask(
        self,
        signature: str,
        encode: Callable[[SignatureSpec], Inputs],
        outputs: Sequence[str] | None,
    ) -> tuple[dict[str, tensors.Array], int]:
        """Encodes, sends and decodes one Predict; returns the outputs and the version."""
        budget = Budget(self._timeout_seconds)
        arrays, metadata = self._encode(signature, encode, outputs, budget)
        request = messages.PredictRequest(output_filter=outputs or ())
        request.model_spec.CopyFrom(self._model_spec())
        request.model_spec.signature_name = signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(tensors.encode(array))
        try:
            response = self._call(self._predict, request, budget, self._retry)
        except (InvalidRequestError, PreconditionError, NotFoundError):
            self._metadata = None  # it may describe a version that is served no more
            raise
        version = response.model_spec.version.value
        if version != metadata.version:
            self._metadata = None
        try:
            answered = {name: tensors.decode(proto) for name, proto in response.outputs.items()}
        except tensors.TensorError as error:
            raise ServerFaultError(
                f"{self._target} answered an unreadable tensor: {error}"
            ) from None
        return answered, version

    def _encode(
        self,
        signature: str,
        encode: Callable[[SignatureSpec], Inputs],
        outputs: Sequence[str] | None,
        budget: Budget,
    ) -> tuple[Inputs, ModelMetadata]:
        def attempt(metadata: ModelMetadata) -> Inputs:
            spec = metadata.signature(signature)
            spec.check_output_names(outputs or ())
            return encode(spec)

        cached = self._metadata
        if cached is not None:
            try:
                return attempt(cached), cached
            except (InvalidRequestError, PreconditionError):
                pass  # the model may have changed since: judge by what is served now
        metadata = self._fetch_metadata(budget)
        return attempt(metadata), metadata

    def _fetch_metadata(self, budget: Budget) -> ModelMetadata:
        request = messages.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        response = self._call(self._get_metadata, request, budget, self._retry)
        self._metadata = ModelMetadata.from_proto(response)
        return self._metadata

    def _fetch_status(self, budget: Budget, retry: RetryPolicy) -> list[VersionStatus]:
        request = messages.GetModelStatusRequest()
        request.model_spec.name = self._model
        if self._version is not None:
            request.model_spec.version.value = self._version
        response = self._call(self._get_status, request, budget, retry)
        return [
            VersionStatus(
                version=each.version,
                state=VersionState(each.state),
                error_code=each.status.error_code,
                error_message=each.status.error_message,
            )
            for each in response.model_version_status
        ]

    def _model_spec(self) -> Any:
        spec = messages.ModelSpec(name=self._model)
        if self._version is not None:
            spec.version.value = self._version
        elif self._label is not None:
            spec.version_label = self._label
        return spec

    def _call(
        self, method: Callable[..., Any], request: Any, budget: Budget, retry: RetryPolicy
    ) -> Any:
        for attempt in range(retry.max_retries + 1):
            try:
                return method(request, timeout=budget.left_seconds())
            except grpc.RpcError as error:
                failure = self._failure(error)
            wait_seconds = retry.wait_seconds(attempt, self._jitter)
            if (
                not isinstance(failure, UnavailableError)
                or attempt == retry.max_retries
                or wait_seconds >= budget.left_seconds()
            ):
                raise failure
            time.sleep(wait_seconds)
        raise AssertionError("the loop returns or raises")

    def _failure(self, error: grpc.RpcError) -> ServingError:
        assert isinstance(error, grpc.Call)
        return from_status(
            f"model {self._model!r} at {self._target} did not answer",
            error.code(),
            error.details() or "",
        )
