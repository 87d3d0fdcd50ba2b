"""The SavedModel that is served: the parts a request needs, and nothing else."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from models.embedding import Packed
from models.fusion import bounded_weights, fused_score, weight_inputs
from models.ranking_model import RankingModel
from models.request_inputs import dense_features, parse_examples, slate_features, tensor_specs
from models.request_transform import RequestTransform
from models.spec.definition import feature_definitions
from models.spec.keys import DEFINITIONS
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate

SCORE = "score"
DESCRIPTION = "assets.extra/polyrank.json"


def export_model(
    model: RankingModel,
    transform_graph: str,
    export_dir: str,
    *,
    candidate: Candidate,
    name: str,
    xla: bool = False,
) -> None:
    """Saves the served part of a model.

    Signatures: ``serving_default`` (``examples``, serialized tf.Examples of request features),
    ``predict`` (one tensor per request feature) and ``rank`` (context once, candidates [N];
    slate-relative features are computed; ``score_weight__<output>`` [1] where the score declares
    bounds, optional); where as-of features are taken also ``feature_definitions`` (see
    `models.spec.keys.DEFINITIONS`). Outputs: one float32 [N] per served output, in natural
    units, and ``score``.

    What is saved is a new module with the tables, vocabularies and weights that the signatures
    read: no auxiliary head, no optimizer, no tower of decision columns, no input but request
    features. `DESCRIPTION` holds the ranking
    and the candidate as JSON.

    Args:
        model: The trained model.
        transform_graph: Folder that Transform wrote.
        export_dir: Folder of the SavedModel.
        candidate: What was trained.
        name: Its name.
        xla: Whether XLA compiles what lies between looked-up ids and outputs.
    """
    served = tf.Module(name="served_model")
    served.transform = RequestTransform(transform_graph, model.ranking)
    signatures = _signatures(model, served.transform, xla=xla)
    # Half-precision layers wrap their variables: what is read is known by its handle.
    read = {
        id(variable.handle)
        for signature in signatures.values()
        for variable in signature.get_concrete_function().graph.variables
    }
    served.weights = [v for v in model.variables if id(v.handle) in read]
    tf.saved_model.save(served, export_dir, signatures=signatures)
    description = Path(export_dir, DESCRIPTION)
    description.parent.mkdir(parents=True, exist_ok=True)
    description.write_text(_description(model.ranking, candidate, name), encoding="utf-8")


def _signatures(model: RankingModel, transform: RequestTransform, *, xla: bool) -> dict[str, Any]:
    """Traces the signatures, each down to the served tasks alone."""
    ranking = model.ranking
    request, rank = ranking.request_features, ranking.rank_inputs

    def predict_packed(packed: Packed) -> dict[str, tf.Tensor]:
        return model.predictions(packed, tasks=ranking.served_tasks)

    if xla:
        predict_packed = tf.function(predict_packed, autograph=False, jit_compile=True)

    def scores(
        features: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor] | None = None
    ) -> dict[str, tf.Tensor]:
        # XLA knows no strings: what looks ids up stays outside.
        predictions = predict_packed(transform(features))
        outputs = {o.name: predictions[o.name] for o in ranking.outputs}
        outputs[SCORE] = fused_score(ranking, outputs, weights)
        return {name: tf.identity(values, name=name) for name, values in outputs.items()}

    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return scores(parse_examples(examples, request))

    def predict(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return scores(dense_features(inputs, request))

    def rank_candidates(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features = slate_features(ranking, dense_features(inputs, rank))
        return scores(features, bounded_weights(ranking, inputs))

    def told(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {DEFINITIONS: tf.identity(inputs[DEFINITIONS])}

    examples = tf.TensorSpec([None], tf.string, name="examples")
    signatures = {
        "serving_default": _traced(serving_default, {"examples": examples}),
        "predict": _traced(predict, tensor_specs(request)),
        "rank": _traced(rank_candidates, tensor_specs(rank), weight_inputs(ranking)),
    }
    if definitions := feature_definitions(ranking):
        text = tf.constant([json.dumps(definitions)])
        signatures[DEFINITIONS] = _traced(told, {}, {DEFINITIONS: text})
    return signatures


def _traced(
    function: Callable[..., dict[str, tf.Tensor]],
    specs: Mapping[str, tf.TensorSpec],
    defaults: Mapping[str, tf.Tensor] | None = None,
) -> Any:
    """Traces a function of named tensors; inputs with a default may be left out of a request.

    TensorFlow learns of defaults from a Python signature alone, so one is made.
    """
    optional = defaults or {}
    names = (*specs, *optional)

    def in_order(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(**dict(zip(names, values, strict=True)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    in_order.__name__ = function.__name__
    in_order.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in specs]
        + [inspect.Parameter(name, kind, default=value) for name, value in optional.items()]
    )
    traced = tf.function(
        in_order,
        autograph=False,
        input_signature=[
            *specs.values(),
            *(tf.TensorSpec(v.shape, v.dtype, name=name) for name, v in optional.items()),
        ],
    )
    traced.get_concrete_function()
    return traced


def _description(ranking: RankingSpec, candidate: Candidate, name: str) -> str:
    content = {
        "name": name,
        "ranking": ranking.model_dump(mode="json"),
        "candidate": candidate.model_dump(mode="json"),
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
