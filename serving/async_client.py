"""The client for asyncio: the same questions and answers as `serving.client`, awaited."""

from __future__ import annotations

import asyncio
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

__all__ = ["AsyncRankingClient", "VersionStatus"]

T = TypeVar("T")


class AsyncRankingClient:
    """Asks one model of one server for scores, from one event loop.

    Every method is the coroutine of the method of the same name of
    `serving.client.RankingClient`, with the same arguments, answers and errors. A task that is
    cancelled cancels its call. Make the client where the event loop runs.

    Example:
        >>> async def best(item_ids: list[str]) -> list[str]:
        ...     async with AsyncRankingClient("localhost:8500", "ranker") as client:
        ...         ranking = await client.rank({"user_id": "u1"}, {"item_id": item_ids}, top_k=3)
        ...     return [item_ids[place] for place in ranking.order]

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
        self._channel = open_channel(grpc.aio, target, chosen.credentials, chosen.max_message_bytes)
        self._stubs = {method: method.bind(self._channel) for method in METHODS}

    async def __aenter__(self) -> AsyncRankingClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def features(self) -> SnapshotFeatures | None:
        """Completes requests with as-of features; may be replaced by a newer one at any time."""
        return self._conversation.features

    @features.setter
    def features(self, newer: SnapshotFeatures | None) -> None:
        self._conversation.features = newer

    async def close(self) -> None:
        """Closes the channel; calls under way are cancelled."""
        await self._channel.close()

    async def predict(
        self, inputs: Any, signature: str = PREDICT, outputs: Sequence[str] | None = None
    ) -> dict[str, tensors.Array]:
        """Asks for the outputs of a signature."""
        return await self._carry_out(self._conversation.predict(inputs, signature, outputs))

    async def predict_examples(
        self, examples: Sequence[bytes], outputs: Sequence[str] | None = None
    ) -> dict[str, tensors.Array]:
        """Asks for the outputs of serialized tf.Examples (signature ``serving_default``)."""
        return await self.predict({EXAMPLES_INPUT: list(examples)}, SERVING_DEFAULT, outputs)

    async def rank(
        self,
        context: Any,
        candidates: Any,
        top_k: int | None = None,
        id_key: str | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Ranking:
        """Ranks candidates in one context (signature ``rank``)."""
        return await self._carry_out(
            self._conversation.rank(context, candidates, top_k, id_key, weights)
        )

    async def metadata(self) -> ModelMetadata:
        """Asks what the model takes and returns."""
        return await self._carry_out(self._conversation.metadata())

    async def status(self) -> list[VersionStatus]:
        """Asks for the state of the model's versions (of the one asked for, if any)."""
        return await self._carry_out(self._conversation.status())

    async def wait_until_available(self, timeout_seconds: float = 60.0) -> int:
        """Waits until the server answers for the model."""
        return await self._carry_out(self._conversation.wait_until_available(timeout_seconds))

    async def _carry_out(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Call):
                    try:
                        response = await self._stubs[step.method](
                            step.request, timeout=step.timeout_seconds, metadata=step.metadata
                        )
                    except grpc.RpcError as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(response)
                else:
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
