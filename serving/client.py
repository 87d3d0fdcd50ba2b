"""Typed synchronous client of a ranking model, the same for the embedded server and TF Serving.

Imports neither TensorFlow nor anything else that is heavy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from serving.api import tensors
from serving.connection import open_channel
from serving.contract import EXAMPLES_INPUT, PREDICT, SERVING_DEFAULT
from serving.conversation import (
    METHODS,
    Call,
    ClientSettings,
    Conversation,
    Steps,
    VersionStatus,
)
from serving.ranking import Ranking
from serving.signatures import ModelMetadata
from serving.snapshot_features import SnapshotFeatures

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from serving.conversation import ClientOptions

__all__ = ["RankingClient", "VersionStatus"]

T = TypeVar("T")


class RankingClient:
    """Asks one model of one server for scores. Safe to share between threads.

    Inputs are checked against the model's metadata before anything is sent. The metadata is
    fetched once, and again when another version answers. One connection serves all calls.

    Example:
        >>> client = RankingClient("localhost:8500", "ranker", timeout_seconds=0.2)
        >>> client.rank({"user_id": "u1"}, [{"item_id": "a"}, {"item_id": "b"}],
        ...             id_key="item_id").ids  # doctest: +SKIP

    Args:
        target: ``host:port``.
        model: Name of the model.
        options: See `ClientSettings`: `timeout_seconds`, `version`, `label`, `retry`,
            `throttle`, `max_message_bytes`, `credentials`, `features`, `privacy`.

    Raises:
        InvalidRequestError: The options make no sense together.
    """

    def __init__(self, target: str, model: str, **options: Unpack[ClientOptions]) -> None:
        chosen = ClientSettings(target, model, **options)
        self._conversation = Conversation(chosen)
        self._channel = open_channel(grpc, target, chosen.credentials, chosen.max_message_bytes)
        self._stubs = {method: method.bind(self._channel) for method in METHODS}

    def __enter__(self) -> RankingClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def features(self) -> SnapshotFeatures | None:
        """Completes requests with as-of features; may be replaced by a newer one at any time."""
        return self._conversation.features

    @features.setter
    def features(self, newer: SnapshotFeatures | None) -> None:
        self._conversation.features = newer

    def close(self) -> None:
        """Closes the channel; calls under way end with CANCELLED."""
        self._channel.close()

    def predict(
        self, inputs: Any, signature: str = PREDICT, outputs: Sequence[str] | None = None
    ) -> dict[str, tensors.Array]:
        """Asks for the outputs of a signature.

        Args:
            inputs: Per input a list, array, or pandas or Arrow column, ``[N]`` or ``[N, L]``, in
                a dict, DataFrame or Table; ragged lists are padded.
            signature: Name of the signature.
            outputs: The outputs to compute; all if None.

        Returns:
            Per output an array, ``float32[N]`` for the outputs of a ranker.

        Raises:
            InvalidRequestError: The inputs do not fit the signature.
            ServingError: Any other way in which no answer came.
        """
        return self._carry_out(self._conversation.predict(inputs, signature, outputs))

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
        context: Any,
        candidates: Any,
        top_k: int | None = None,
        id_key: str | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Ranking:
        """Ranks candidates in one context (signature ``rank``).

        Args:
            context: Features with one value for the request; a list where it is a sequence.
            candidates: Columns ``{feature: N values}``, a DataFrame or Table, or N rows
                ``{feature: value}``.
            top_k: How many to return; all if None.
            id_key: The candidates' column to return as ids. It is sent to the model only if
                the model takes it.
            weights: Fusion weights of this request, by output; the model's own for the others.
                The model declares which may be set, and within what bounds (`score.bounds`).

        Returns:
            The candidates by descending score, ties in the order of the request.

        Raises:
            InvalidRequestError: The features do not fit the model, or a weight is not the
                caller's to set or out of bounds.
            ServingError: Any other way in which no answer came.
        """
        return self._carry_out(self._conversation.rank(context, candidates, top_k, id_key, weights))

    def metadata(self) -> ModelMetadata:
        """Asks what the model takes and returns.

        Raises:
            ServingError: No answer came.
        """
        return self._carry_out(self._conversation.metadata())

    def status(self) -> list[VersionStatus]:
        """Asks for the state of the model's versions (of the one asked for, if any).

        Labels are not resolved: with a label, all versions are listed.

        Raises:
            NotFoundError: The server knows no version of the model.
            ServingError: Any other way in which no answer came.
        """
        return self._carry_out(self._conversation.status())

    def wait_until_available(self, timeout_seconds: float = 60.0) -> int:
        """Waits until the server answers for the model.

        Args:
            timeout_seconds: How long to wait at most.

        Returns:
            The newest available version.

        Raises:
            DeadlineError: It did not become available; says what was seen last.
        """
        return self._carry_out(self._conversation.wait_until_available(timeout_seconds))

    def _carry_out(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Call):
                    try:
                        response = self._stubs[step.method](
                            step.request, timeout=step.timeout_seconds, metadata=step.metadata
                        )
                    except grpc.RpcError as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(response)
                else:
                    time.sleep(step.seconds)
                    step = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
