"""What a client says to a server, step by step, without sending anything itself.

Each method is a generator of steps: a call to make, or a pause. The synchronous client and the
asyncio client carry the steps out, each in its way, and hand back the answers; what is asked, when
it is tried again and what the answers mean is decided here, once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, TypedDict, TypeVar

import grpc

from serving.api import messages, services, tensors
from serving.columns import as_columns
from serving.contract import PREDICT, RANK, SCORE_OUTPUT, VersionState
from serving.credentials import Credentials
from serving.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    ResourceExhaustedError,
    ServerFaultError,
    ServingError,
    UnavailableError,
    from_status,
)
from serving.inputs import check_batch, encode_inputs
from serving.privacy import RequestPrivacy
from serving.ranking import Ranking, encode_rank, rank_outputs, read_slate
from serving.retry import Budget, RetryPolicy
from serving.signatures import ModelMetadata, SignatureSpec
from serving.snapshot_features import FilledFeatures, SnapshotFeatures
from serving.throttle import Throttle, ThrottlePolicy

T = TypeVar("T")
Inputs = dict[str, tensors.Array]

Encode = Callable[[SignatureSpec, Mapping[str, str]], Inputs]
"""Makes the inputs of a signature; given what the model takes its as-of features to mean."""

METHODS = (services.PREDICT, services.GET_MODEL_METADATA, services.GET_MODEL_STATUS)
"""The methods that calls are made of."""

_FIRST_POLL_SECONDS = 0.02
_LONGEST_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Call:
    """A step: send a request and answer with the response, or raise the `grpc.RpcError`.

    Attributes:
        method: The method.
        request: Its request message.
        timeout_seconds: Deadline of this attempt.
        metadata: What to send along.
    """

    method: services.Method
    request: Any
    timeout_seconds: float
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pause:
    """A step: wait.

    Attributes:
        seconds: How long.
    """

    seconds: float


Steps = Generator[Call | Pause, Any, T]
"""Steps to carry out, and what they come to."""


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


@dataclass(frozen=True)
class ClientSettings:
    """Whom a client asks, and how patiently.

    Attributes:
        target: ``host:port``.
        model: Name of the model.
        timeout_seconds: Budget of each call, retries and metadata included.
        version: Ask this version only; the newest if None.
        label: Ask the version that carries this label.
        retry: When to try again after UNAVAILABLE.
        throttle: What not to send while the server refuses for want of room; None sends all.
        max_message_bytes: Largest request and response.
        credentials: TLS and token.
        features: Completes requests with as-of features; None if requests carry them.
        privacy: Hashes people's data of `rank` and `predict` before they are sent; without it
            callers send hashes themselves.

    Raises:
        InvalidRequestError: Both `version` and `label` are given, a limit is not positive, or a
            token would cross a network unencrypted.
    """

    target: str
    model: str
    timeout_seconds: float = 5.0
    version: int | None = None
    label: str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    throttle: ThrottlePolicy | None = field(default_factory=ThrottlePolicy)
    max_message_bytes: int = 64 << 20
    credentials: Credentials = field(default_factory=Credentials)
    features: SnapshotFeatures | None = None
    privacy: RequestPrivacy | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise InvalidRequestError(
                "both a version and a label are given",
                constraint="at most one of them",
                received=f"version {self.version} and label {self.label!r}",
                remedy="leave one out",
            )
        for name in ("timeout_seconds", "max_message_bytes"):
            if not getattr(self, name) > 0:
                raise InvalidRequestError(
                    f"{name} is not positive",
                    constraint="more than 0",
                    received=getattr(self, name),
                    remedy="raise it, or leave it out for the default",
                )
        self.credentials.check_target(self.target)


class ClientOptions(TypedDict, total=False):
    """The optional part of `ClientSettings`, as keyword arguments of a client."""

    timeout_seconds: float
    version: int | None
    label: str | None
    retry: RetryPolicy
    throttle: ThrottlePolicy | None
    max_message_bytes: int
    credentials: Credentials
    features: SnapshotFeatures | None
    privacy: RequestPrivacy | None


class Conversation:
    """The steps of every question to one model of one server. Safe to share between threads.

    Inputs are checked against the model's metadata before anything is sent. The metadata is
    fetched once, and again when another version answers.

    Args:
        settings: Whom to ask, and how patiently.

    Attributes:
        features: Completes requests; a newer one may take its place between calls.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self.features = settings.features
        # Clients that fail together must not retry together, so this one has no fixed seed.
        self._jitter = random.Random()
        self._throttle = (
            None if settings.throttle is None else Throttle(settings.throttle, self._jitter)
        )
        self._metadata: ModelMetadata | None = None

    def predict(
        self, inputs: Any, signature: str, outputs: Sequence[str] | None
    ) -> Steps[dict[str, tensors.Array]]:
        """Asks for the outputs of a signature; see `RankingClient.predict`."""
        columns = self._hidden(as_columns(inputs))
        features = self.features if signature == PREDICT else None

        def encode(spec: SignatureSpec, definitions: Mapping[str, str]) -> Inputs:
            complete = columns
            if features is not None:
                complete, _ = features.fill_rows(columns, spec.inputs, definitions)
            arrays = encode_inputs(complete, spec)
            if signature != RANK:
                check_batch(arrays)
            return arrays

        answered, _ = yield from self._ask(signature, encode, outputs)
        return answered

    def rank(
        self,
        context: Any,
        candidates: Any,
        top_k: int | None,
        id_key: str | None,
        weights: Mapping[str, float] | None,
    ) -> Steps[Ranking]:
        """Ranks candidates in one context; see `RankingClient.rank`."""
        if top_k is not None and not (isinstance(top_k, Integral) and top_k >= 1):
            raise InvalidRequestError(
                "top_k is no number of candidates",
                constraint="an integer, 1 or more",
                received=top_k,
                remedy="leave it out for all candidates",
            )
        once = self._hidden(as_columns(context))
        slate = read_slate(candidates, id_key)
        features = self.features
        filled: FilledFeatures | None = None
        # Ids are returned as the caller wrote them.
        hidden = replace(slate, columns=self._hidden(slate.columns))

        def encode(spec: SignatureSpec, definitions: Mapping[str, str]) -> Inputs:
            if SCORE_OUTPUT not in spec.outputs:
                raise PreconditionError(
                    f"model {self._settings.model!r} has no output {SCORE_OUTPUT!r} to rank by",
                    constraint=f"an output {SCORE_OUTPUT!r} of signature {RANK!r}",
                    received=", ".join(spec.outputs),
                    remedy="use predict() and order by an output of your own",
                )
            if features is None:
                return encode_rank(once, hidden, id_key, weights or {}, spec)
            nonlocal filled
            context, columns, filled = features.fill_slate(
                once, hidden.columns, spec.inputs, definitions
            )
            complete = replace(hidden, columns=columns)
            return encode_rank(context, complete, id_key, weights or {}, spec)

        answered, version = yield from self._ask(RANK, encode, None)
        if SCORE_OUTPUT not in answered:
            raise ServerFaultError(f"the answer lacks the output {SCORE_OUTPUT!r}")
        ranking = rank_outputs(
            answered, slate, top_k=top_k, model=self._settings.model, version=version
        )
        return replace(ranking, features=filled)

    def metadata(self) -> Steps[ModelMetadata]:
        """Asks what the model takes and returns."""
        self._check_room()
        return (yield from self._fetch_metadata(Budget(self._settings.timeout_seconds)))

    def status(self) -> Steps[list[VersionStatus]]:
        """Asks for the state of the model's versions (of the one asked for, if any)."""
        budget = Budget(self._settings.timeout_seconds)
        return (yield from self._fetch_status(budget, self._settings.retry))

    def wait_until_available(self, timeout_seconds: float) -> Steps[int]:
        """Asks for the state until a version is available; see `RankingClient`."""
        budget = Budget(timeout_seconds)
        poll_seconds = _FIRST_POLL_SECONDS
        seen = "no answer"
        while True:
            try:
                states = yield from self._fetch_status(budget, RetryPolicy(max_retries=0))
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
                    f"model {self._settings.model!r} at {self._settings.target} is not available",
                    constraint=f"an available version within {timeout_seconds:g} s",
                    received=seen,
                    remedy="check the server's log and the model's base path",
                )
            yield Pause(poll_seconds)
            poll_seconds = min(2 * poll_seconds, _LONGEST_POLL_SECONDS)

    def _hidden(self, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        privacy = self._settings.privacy
        return columns if privacy is None else privacy.hidden(columns)

    def _ask(
        self,
        signature: str,
        encode: Encode,
        outputs: Sequence[str] | None,
    ) -> Steps[tuple[dict[str, tensors.Array], int]]:
        """Encodes, sends and decodes one Predict; comes to the outputs and the version."""
        self._check_room()
        budget = Budget(self._settings.timeout_seconds)
        arrays, metadata = yield from self._encode(signature, encode, outputs, budget)
        request = messages.PredictRequest(output_filter=outputs or ())
        request.model_spec.CopyFrom(self._model_spec())
        request.model_spec.signature_name = signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(tensors.encode(array))
        try:
            response = yield from self._call(
                services.PREDICT, request, budget, self._settings.retry
            )
        except (InvalidRequestError, PreconditionError, NotFoundError):
            self._metadata = None  # it may describe a version that is served no more
            raise
        version = response.model_spec.version.value
        if version != metadata.version:
            self._metadata = None
            if self.features is not None:
                # What was filled in fitted the version before; does it fit the one that answered?
                newer = yield from self._fetch_metadata(budget)
                encode(newer.signature(signature), newer.definitions)
        try:
            answered = {name: tensors.decode(proto) for name, proto in response.outputs.items()}
        except tensors.TensorError as error:
            raise ServerFaultError(
                f"{self._settings.target} answered an unreadable tensor: {error}"
            ) from None
        return answered, version

    def _encode(
        self,
        signature: str,
        encode: Encode,
        outputs: Sequence[str] | None,
        budget: Budget,
    ) -> Steps[tuple[Inputs, ModelMetadata]]:
        def attempt(metadata: ModelMetadata) -> Inputs:
            spec = metadata.signature(signature)
            spec.check_output_names(outputs or ())
            return encode(spec, metadata.definitions)

        cached = self._metadata
        if cached is not None:
            try:
                return attempt(cached), cached
            except (InvalidRequestError, PreconditionError):
                pass  # the model may have changed since: judge by what is served now
        metadata = yield from self._fetch_metadata(budget)
        return attempt(metadata), metadata

    def _fetch_metadata(self, budget: Budget) -> Steps[ModelMetadata]:
        request = messages.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        response = yield from self._call(
            services.GET_MODEL_METADATA, request, budget, self._settings.retry
        )
        metadata = ModelMetadata.from_proto(response)
        self._metadata = metadata
        return metadata

    def _fetch_status(self, budget: Budget, retry: RetryPolicy) -> Steps[list[VersionStatus]]:
        request = messages.GetModelStatusRequest()
        request.model_spec.name = self._settings.model
        if self._settings.version is not None:
            request.model_spec.version.value = self._settings.version
        response = yield from self._call(services.GET_MODEL_STATUS, request, budget, retry)
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
        spec = messages.ModelSpec(name=self._settings.model)
        if self._settings.version is not None:
            spec.version.value = self._settings.version
        elif self._settings.label is not None:
            spec.version_label = self._settings.label
        return spec

    def _call(
        self, method: services.Method, request: Any, budget: Budget, retry: RetryPolicy
    ) -> Steps[Any]:
        """Calls, and calls again after UNAVAILABLE, all within the budget."""
        metadata = self._settings.credentials.call_metadata()
        # GetModelStatus is answered apart from predictions, and tells nothing of their room.
        throttle = self._throttle if method.service == services.PREDICTION_SERVICE else None
        for attempt in range(retry.max_retries + 1):
            try:
                response = yield Call(method, request, budget.left_seconds(), metadata)
            except grpc.RpcError as error:
                failure = from_status(
                    f"model {self._settings.model!r} at {self._settings.target} did not answer",
                    error.code(),
                    error.details() or "",
                )
            else:
                if throttle is not None:
                    throttle.note(accepted=True)
                return response
            if throttle is not None:
                _note(throttle, failure)
            wait_seconds = retry.wait_seconds(attempt, self._jitter)
            if (
                not isinstance(failure, UnavailableError)
                or attempt == retry.max_retries
                or wait_seconds >= budget.left_seconds()
            ):
                raise failure
            yield Pause(wait_seconds)
            if throttle is not None and not throttle.admits():
                raise failure
        raise AssertionError("the loop returns or raises")

    def _check_room(self) -> None:
        """Raises OverloadedError for a question to hold back, before any work goes into it."""
        if self._throttle is None or self._throttle.admits():
            return
        raise OverloadedError(
            f"model {self._settings.model!r} at {self._settings.target} was not asked",
            constraint="a server that accepts what it is sent",
            received="refusals for want of room, of late",
            remedy=OverloadedError.advice,
        )


def _note(throttle: Throttle, failure: ServingError) -> None:
    if isinstance(failure, OverloadedError):
        throttle.note(accepted=False)
    elif not isinstance(failure, (UnavailableError, DeadlineError, ResourceExhaustedError)):
        # Without an answer, or where it came too late, nobody knows whether there was room.
        throttle.note(accepted=True)
