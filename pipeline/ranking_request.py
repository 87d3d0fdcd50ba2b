"""`polyrank rank`: one request from a JSON file, the answer as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.spec.errors import DataError


def read_request(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], str | None]:
    """Reads a request: context features once, candidate features per item.

    Args:
        path: A JSON file ``{"context": {...}, "candidates": [{...}, ...]}``, with ``"id"`` naming
            the column that identifies candidates in the answer (their positions if absent).

    Returns:
        Context, candidates, and the id column or None.

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
    if not isinstance(request, dict) or set(request) - {"id"} != {"context", "candidates"}:
        received = sorted(request) if isinstance(request, dict) else type(request).__name__
        raise DataError(f"{path} is not a request", constraint=shape, received=received)
    context, candidates = request["context"], request["candidates"]
    if (
        not isinstance(context, dict)
        or not isinstance(candidates, list)
        or not candidates
        or not all(isinstance(c, dict) for c in candidates)
    ):
        raise DataError(f"{path} is not a request", constraint=f"{shape} with a candidate or more")
    return context, candidates, request.get("id")


def rank_file(
    target: str, model: str, path: Path, *, top_k: int | None, timeout_seconds: float
) -> str:
    """Asks a server to rank a request and formats the answer.

    Args:
        target: HOST:PORT.
        model: Model name.
        path: The request.
        top_k: Keep the best K; all if None.
        timeout_seconds: Deadline of the call.

    Returns:
        A table: rank, place in the request, score and every output.
    """
    from serving.client import RankingClient

    context, candidates, id_key = read_request(path)
    with RankingClient(target, model, timeout_seconds=timeout_seconds) as client:
        ranking = client.rank(context, candidates, top_k=top_k, id_key=id_key)
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
