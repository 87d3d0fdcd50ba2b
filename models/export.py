"""The SavedModel that is served: the parts a request needs, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from models.fusion import fused_score
from models.ranking_model import RankingModel
from models.request_inputs import dense_features, parse_examples, slate_features, tensor_specs
from models.request_transform import RequestTransform
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate

SCORE = "score"
DESCRIPTION = "assets.extra/polyrank.json"


class ServedModel(tf.Module):
    """The served tasks of a ranking model behind three signatures.

    Only variables that the signatures read are attached, so the saved model holds no auxiliary
    head, no optimizer and no input but request features. Features of decision columns, which a
    model may learn from, are fixed to missing.

    Args:
        model: The trained model.
        transform: The transform graph, cut to request features.
    """

    def __init__(self, model: RankingModel, transform: RequestTransform) -> None:
        """Traces the signatures."""
        super().__init__(name="served_model")
        self.transform = transform
        ranking = model.ranking
        request, rank = ranking.request_features, ranking.rank_inputs

        def scores(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            outputs = model.predictions(transform(features), tasks=ranking.served_tasks)
            outputs = {o.name: tf.cast(outputs[o.name], tf.float32) for o in ranking.outputs}
            outputs[SCORE] = fused_score(ranking, outputs)
            return {name: tf.identity(values, name=name) for name, values in outputs.items()}

        @tf.function(autograph=False)
        def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return scores(parse_examples(examples, request))

        @tf.function(autograph=False)
        def predict(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return scores(dense_features(inputs, request))

        @tf.function(autograph=False)
        def rank_candidates(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return scores(slate_features(ranking, dense_features(inputs, rank)))

        self.signatures: dict[str, Any] = {
            "serving_default": serving_default.get_concrete_function(
                tf.TensorSpec([None], tf.string, name="examples")
            ),
            "predict": predict.get_concrete_function(**tensor_specs(request)),
            "rank": rank_candidates.get_concrete_function(**tensor_specs(rank)),
        }
        read = {id(v): v for s in self.signatures.values() for v in s.graph.variables}
        self.weights = list(read.values())


def export_model(
    model: RankingModel,
    transform_graph: str,
    export_dir: str,
    *,
    candidate: Candidate,
    name: str,
) -> None:
    """Saves the served part of a model.

    Signatures: ``serving_default`` (``examples``, serialized tf.Examples of request features),
    ``predict`` (one tensor per request feature) and ``rank`` (context once, candidates [N];
    slate-relative features are computed). Outputs: one float32 [N] per served output, in natural
    units, and ``score``. Beside it, `DESCRIPTION` holds the ranking and the candidate.

    Args:
        model: The trained model.
        transform_graph: Folder that Transform wrote.
        export_dir: Folder of the SavedModel.
        candidate: What was trained.
        name: Its name.
    """
    served = ServedModel(model, RequestTransform(transform_graph, model.ranking))
    signatures = served.signatures
    # A SavedModel keeps functions that hang on the module besides its signatures: twice the size.
    del served.signatures
    tf.saved_model.save(served, export_dir, signatures=signatures)
    description = Path(export_dir, DESCRIPTION)
    description.parent.mkdir(parents=True, exist_ok=True)
    description.write_text(_description(model.ranking, candidate, name), encoding="utf-8")


def _description(ranking: RankingSpec, candidate: Candidate, name: str) -> str:
    content = {
        "name": name,
        "ranking": ranking.model_dump(mode="json"),
        "candidate": candidate.model_dump(mode="json"),
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
