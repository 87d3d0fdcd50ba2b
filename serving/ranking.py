"""Ranking requests and answers: context once, candidates as columns, an order back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.spec.errors import nearest
from models.spec.keys import WEIGHT_INPUT_PREFIX
from serving.api.tensors import Array
from serving.columns import as_columns, plain
from serving.contract import LENGTH_SUFFIX, RANK, SCORE_OUTPUT
from serving.errors import InvalidRequestError, ServerFaultError
from serving.inputs import encode_inputs
from serving.signatures import SignatureSpec
from serving.snapshot_features import FilledFeatures


@dataclass(frozen=True)
class Ranking:
    """Candidates in ranked order, best first; all arrays have length K.

    Attributes:
        ids: The `id_key` values of the candidates, or their positions in the request.
        order: ``int64``, positions of the candidates in the request.
        scores: Per output ``float32`` values in natural units, `score` among them.
        model: Name of the model that answered.
        version: Its version.
        features: Where looked-up features came from and how old they were; None without them.
    """

    ids: Array
    order: Array
    scores: Mapping[str, Array]
    model: str
    version: int
    features: FilledFeatures | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Returns one dict a candidate, ``id`` and the outputs, best first."""
        names = list(self.scores)
        columns = [self.scores[name].tolist() for name in names]
        return [
            {"id": identity, **dict(zip(names, values, strict=True))}
            for identity, *values in zip(self.ids.tolist(), *columns, strict=True)
        ]


@dataclass(frozen=True)
class Slate:
    """The candidates of a request as columns.

    Attributes:
        columns: Per feature its N values.
        ids: What identifies the candidates in the answer, ``[N]``.
    """

    columns: Mapping[str, Any]
    ids: Array

    @property
    def num_candidates(self) -> int:
        """N."""
        return len(self.ids)


def read_slate(candidates: Any, id_key: str | None) -> Slate:
    """Reads candidates given as columns or as rows.

    Args:
        candidates: ``{feature: values}``, a pandas DataFrame, an Arrow Table, or
            ``[{feature: value}]``.
        id_key: Column that identifies the candidates; positions 0 to N-1 if None.

    Raises:
        InvalidRequestError: No candidates, columns of different lengths, rows with different
            features, or no column `id_key`.
    """
    rows = isinstance(candidates, (list, tuple))
    columns = _columns(candidates) if rows else as_columns(candidates)
    columns = {name: plain(values) for name, values in columns.items()}
    num_candidates = _num_candidates(columns)
    if id_key is None:
        return Slate(columns, np.arange(num_candidates))
    if id_key not in columns:
        raise InvalidRequestError(
            f"the candidates have no id column {id_key!r}{nearest(id_key, columns)}",
            constraint=f"one of {', '.join(sorted(columns))}",
            received=repr(id_key),
            remedy="correct id_key, or leave it out to get positions",
        )
    ids = columns[id_key]
    if not isinstance(ids, np.ndarray):
        listed = list(ids)
        ids = np.empty(num_candidates, object)
        ids[:] = listed
    return Slate(columns, ids)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    if not rows:
        raise _no_candidates()
    for position, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidRequestError(
                f"candidate {position} has no named features",
                constraint="{feature: value}",
                received=type(row).__name__,
                remedy="pass a dict for each candidate, or {feature: values} for all",
            )
    names = rows[0].keys()
    for position, row in enumerate(rows):
        differing = sorted(row.keys() ^ names)
        if differing:
            raise InvalidRequestError(
                f"candidate {position} and candidate 0 differ in {', '.join(differing)}",
                constraint="the same features in every candidate",
                received=", ".join(map(str, row)) or "no features",
                remedy="use None for a missing value",
            )
    return {name: [row[name] for row in rows] for name in names}


def _num_candidates(columns: Mapping[str, Any]) -> int:
    sizes: dict[str, int] = {}
    for name, values in columns.items():
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise InvalidRequestError(
                f"candidate feature {name!r} is a single value",
                constraint="one value per candidate",
                received=type(values).__name__,
                remedy="pass it in the context if it is the same for all candidates",
            )
        sizes[name] = len(values)
    if not sizes or set(sizes.values()) == {0}:
        raise _no_candidates()
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{name}: {size}" for name, size in sorted(sizes.items()))
        raise InvalidRequestError(
            "candidate features have different numbers of values",
            constraint="one value per candidate",
            received=counts,
            remedy="use None for a missing value",
        )
    return next(iter(sizes.values()))


def _no_candidates() -> InvalidRequestError:
    return InvalidRequestError(
        "there are no candidates",
        constraint="at least one",
        received="none",
        remedy="answer such a request without asking the model",
    )


def encode_rank(
    context: Mapping[str, Any],
    slate: Slate,
    id_key: str | None,
    weights: Mapping[str, float],
    signature: SignatureSpec,
) -> dict[str, Array]:
    """Builds the inputs of the ``rank`` signature.

    Args:
        context: Per context feature a scalar, or a list for sequences.
        slate: The candidates.
        id_key: Sent only if the signature has an input of this name.
        weights: Fusion weights by output; only those that the signature has an input for.
        signature: The model's ``rank`` signature.

    Returns:
        Context tensors ``[1]`` or ``[1, L]``, candidate tensors ``[N]`` or ``[N, L]``.

    Raises:
        InvalidRequestError: A feature is in both, unknown, missing, or does not fit.
    """
    both = sorted(context.keys() & slate.columns.keys())
    if both:
        raise InvalidRequestError(
            f"{', '.join(both)} given both in the context and for the candidates",
            constraint="every feature in one of the two",
            received=f"{len(context)} in the context, {len(slate.columns)} for the candidates",
            remedy="leave it out of one",
        )
    candidates = {
        name: values
        for name, values in slate.columns.items()
        if name != id_key or name in signature.inputs
    }
    once = {
        name: _once(value, name, signature)
        for name, value in {**context, **_weight_inputs(weights, signature)}.items()
    }
    arrays = encode_inputs({**once, **candidates}, signature)
    for name, array in arrays.items():
        feature = name if name in once or name in candidates else name.removesuffix(LENGTH_SUFFIX)
        expected = 1 if feature in once else slate.num_candidates
        if array.ndim == 0 or len(array) != expected:
            place = "context" if feature in once else "candidate"
            raise InvalidRequestError(
                f"{place} feature {name!r} has the wrong number of values",
                constraint=f"{expected} (signature {RANK!r})",
                received=f"shape {list(array.shape)}",
                remedy="move it to the other part of the request, or correct its values",
            )
    return arrays


def _weight_inputs(weights: Mapping[str, float], signature: SignatureSpec) -> dict[str, float]:
    """Checks that these weights are the caller's to set; their bounds are in the graph."""
    settable = sorted(
        name.removeprefix(WEIGHT_INPUT_PREFIX)
        for name in signature.inputs
        if name.startswith(WEIGHT_INPUT_PREFIX)
    )
    for name, value in weights.items():
        if name not in settable:
            raise InvalidRequestError(
                f"the fusion weight of {name!r} cannot be set{nearest(name, settable)}",
                constraint=f"one of {', '.join(settable) or 'none: the model declares no bounds'}",
                received=repr(name),
                remedy="leave it out, or declare score.bounds for it in the model's configuration",
            )
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise InvalidRequestError(
                f"the fusion weight of {name!r} is no number",
                constraint="a number within the bounds that the model declares",
                received=type(value).__name__,
                remedy="pass {output: number}",
            )
    return {f"{WEIGHT_INPUT_PREFIX}{name}": float(value) for name, value in weights.items()}


def _once(value: Any, name: str, signature: SignatureSpec) -> Any:
    """Adds the leading dimension of 1 to a context value that comes without it."""
    spec = signature.inputs.get(name)
    if spec is None or spec.shape is None:
        return value
    depth = np.ndim(value) if isinstance(value, np.ndarray) else _depth(value)
    # None is a missing value of any depth.
    return [value] if value is None or depth == len(spec.shape) - 1 else value


def _depth(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if value else 0)
    return np.ndim(value)


def rank_outputs(
    outputs: Mapping[str, Array], slate: Slate, *, top_k: int | None, model: str, version: int
) -> Ranking:
    """Orders the candidates by descending `score`; equal scores keep the request's order.

    NaN scores come last.

    Raises:
        ServerFaultError: An output is not one value per candidate.
    """
    for name, values in outputs.items():
        if values.shape != (slate.num_candidates,):
            raise ServerFaultError(
                f"output {name!r} of signature {RANK!r} is not one value per candidate",
                constraint=f"shape [{slate.num_candidates}]",
                received=f"shape {list(values.shape)}",
            )
    order = np.argsort(-outputs[SCORE_OUTPUT], kind="stable")[:top_k]
    return Ranking(
        ids=slate.ids[order],
        order=order,
        scores={name: values[order] for name, values in outputs.items()},
        model=model,
        version=version,
    )
