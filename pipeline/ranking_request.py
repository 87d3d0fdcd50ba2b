"""`polyrank rank`: one request from a JSON file, the answer as a table."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from models.spec.errors import ConfigError, DataError
from models.spec.strict import DurationMs
from serving.privacy import RequestPrivacy

_PII_KEYS = ("columns", "key_env", "hash_characters", "key_fingerprint")

if TYPE_CHECKING:
    from serving.credentials import Credentials
    from serving.ranking import Ranking
    from serving.snapshot_features import SnapshotFeatures


@dataclass(frozen=True)
class RankingRequest:
    """A request as its file tells it.

    Attributes:
        context: Context features, once.
        candidates: Candidate features, per item.
        id: Column that identifies candidates in the answer; their positions if None.
        weights: Fusion weights to override.
        pii: Which features are people's data and how they are hashed, as `polyrank run` writes
            it; with ``"hashed": true`` the values are hashes already.
    """

    context: dict[str, Any]
    candidates: list[dict[str, Any]]
    id: str | None = None
    weights: dict[str, float] = field(default_factory=dict)
    pii: dict[str, Any] | None = None

    @property
    def privacy(self) -> RequestPrivacy | None:
        """Hashes people's data before they are sent; None if there is nothing to hash.

        Raises:
            ConfigError: The key is missing or another one.
        """
        if self.pii is None or self.pii.get("hashed", False):
            return None
        return RequestPrivacy.from_record(self.pii)


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
    optional = {"id", "weights", "pii"}
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
    pii = request.get("pii")
    if pii is not None and not (isinstance(pii, dict) and set(_PII_KEYS) <= set(pii)):
        raise DataError(
            f"{path}: pii is not complete", constraint=f"a mapping with {', '.join(_PII_KEYS)}",
            received=type(pii).__name__, remedy="copy it from the request.json of a run",
        )  # fmt: skip
    return RankingRequest(**request)


def snapshot_features(path: str, max_age: str | None, at: str | None) -> SnapshotFeatures:
    """Opens a snapshot for `--snapshot`.

    Args:
        path: The look-up file or the features folder of a run.
        max_age: Limit of its age as a duration, such as ``36h``; none if None.
        at: Time of the request, ISO 8601, taken as UTC without a zone; now if None.

    Raises:
        ConfigError: `max_age` or `at` cannot be read.
        DataError: There is no whole snapshot at `path`.
    """
    from serving.snapshot import FeatureSnapshot
    from serving.snapshot_features import SnapshotFeatures

    try:
        limit_ms = None if max_age is None else TypeAdapter(DurationMs).validate_python(max_age)
    except ValueError as error:
        raise ConfigError(
            "--max-feature-age is not a duration",
            constraint="a number with a unit of ms, s, m, h or d, as in 36h",
            received=max_age,
        ) from error
    at_ms = _time_ms(at)
    return SnapshotFeatures(
        FeatureSnapshot.open(path),
        max_age_seconds=None if limit_ms is None else limit_ms / 1000,
        clock=lambda: at_ms,
    )


def _time_ms(text: str | None) -> int:
    if text is None:
        return round(time.time() * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            "--at is not a time", constraint="ISO 8601, as in 2026-01-31T12:00:00", received=text
        ) from error
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return round(zoned.timestamp() * 1000)


def rank_file(
    target: str,
    model: str,
    path: Path,
    *,
    top_k: int | None,
    timeout_seconds: float,
    credentials: Credentials | None = None,
    features: SnapshotFeatures | None = None,
) -> str:
    """Asks a server to rank a request and formats the answer.

    Args:
        target: HOST:PORT.
        model: Model name.
        path: The request.
        top_k: Keep the best K; all if None.
        timeout_seconds: Deadline of the call.
        credentials: TLS and token; none if None.
        features: Fills the as-of features that the request lacks.

    Returns:
        A table: rank, place in the request, score and every output; below it where looked-up
        features came from.
    """
    from serving.client import RankingClient
    from serving.credentials import Credentials

    request = read_request(path)
    with RankingClient(
        target,
        model,
        timeout_seconds=timeout_seconds,
        credentials=credentials or Credentials(),
        features=features,
        privacy=request.privacy,
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
    return captured.get() + _origin(ranking)


def _origin(ranking: Ranking) -> str:
    """Says in lines which features were looked up and how old they are."""
    filled = ranking.features
    if filled is None:
        return ""
    lines = [
        f"{len(filled.names)} features as of {filled.as_of}, {filled.age} the "
        f"request: {', '.join(filled.names) or 'none'}"
    ]
    lines += [
        f"{count} without events by {', '.join(columns)}: they have the defaults"
        for columns, count in filled.num_unknown.items()
        if count
    ]
    return "\n".join(lines) + "\n"
