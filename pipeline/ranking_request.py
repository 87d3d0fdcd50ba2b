"""`polyrank rank`: one request from a JSON file, the answer as a table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from models.spec.errors import DataError

if TYPE_CHECKING:
    from serving.credentials import Credentials


@dataclass(frozen=True)
class RankingRequest:
    """A request as its file tells it.

    Attributes:
        context: Context features, once.
        candidates: Candidate features, per item.
        id: Column that identifies candidates in the answer; their positions if None.
        weights: Fusion weights to override.
    """

    context: dict[str, Any]
    candidates: list[dict[str, Any]]
    id: str | None = None
    weights: dict[str, float] = field(default_factory=dict)


def read_request(path: Path) -> RankingRequest:
    """Reads a request.

    Args:
        path: A JSON file ``{"context": {...}, "candidates": [{...}, ...]}``, with the other
            attributes of `RankingRequest` where wanted.

    Raises:
        DataError: It is missing, not JSON, or has another shape.
    """
    try:
        request = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read the request {path}", received=error.strerror or str(error),
            remedy="give a JSON file with --request",
        ) from error  # fmt: skip
    except ValueError as error:
        raise DataError(f"{path} is not JSON", received=str(error)) from error
    shape = '{"context": {feature: value}, "candidates": [{feature: value}, ...]}'
    optional = {"id", "weights"}
    if not isinstance(request, dict) or set(request) - optional != {"context", "candidates"}:
        received = sorted(request) if isinstance(request, dict) else type(request).__name__
        raise DataError(f"{path} is not a request", constraint=shape, received=received)
    context, candidates = request["context"], request["candidates"]
    if (
        not isinstance(context, dict)
        or not isinstance(candidates, list)
        or not candidates
        or not all(isinstance(c, dict) for c in candidates)
        or not isinstance(request.get("weights", {}), dict)
    ):
        raise DataError(f"{path} is not a request", constraint=f"{shape} with a candidate or more")
    return RankingRequest(**request)


def rank_file(
    target: str,
    model: str,
    path: Path,
    *,
    top_k: int | None,
    timeout_seconds: float,
    credentials: Credentials | None = None,
) -> str:
    """Asks a server to rank a request and formats the answer.

    Args:
        target: HOST:PORT.
        model: Model name.
        path: The request.
        top_k: Keep the best K; all if None.
        timeout_seconds: Deadline of the call.
        credentials: TLS and token; none if None.

    Returns:
        A table: rank, place in the request, score and every output.
    """
    from serving.client import RankingClient
    from serving.credentials import Credentials

    request = read_request(path)
    with RankingClient(
        target,
        model,
        timeout_seconds=timeout_seconds,
        credentials=credentials or Credentials(),
    ) as client:
        ranking = client.rank(
            request.context,
            request.candidates,
            top_k=top_k,
            id_key=request.id,
            weights=request.weights,
        )
    outputs = sorted(name for name in ranking.scores if name != "score")
    table = Table(title=f"{model}, version {ranking.version}")
    for heading in ("rank", "candidate", "score", *outputs):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(ranking.rows(), start=1):
        values = [f"{row[name]:.6g}" for name in ("score", *outputs)]
        table.add_row(str(place), str(row["id"]), *values)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
