"""A request made from a test slate, to try a pushed model with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models.spec.keys import key_feature
from models.spec.ranking import RankingSpec

_MAX_RECORDS = 4096
_MAX_CANDIDATES = 50


def sample_request(examples_folder: Path, ranking: RankingSpec) -> dict[str, Any]:
    """Builds the JSON of `polyrank rank` from the largest slate among the first test rows.

    Args:
        examples_folder: Examples of the test split.
        ranking: What is ranked.

    Returns:
        ``{"id": ..., "context": {...}, "candidates": [...]}``; missing values are null. Without
        slates the candidates are rows of one user.
    """
    group_key = key_feature(ranking.group_column)
    files = sorted(str(file) for file in examples_folder.iterdir())
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").take(_MAX_RECORDS)
    examples = [tf.train.Example.FromString(r) for r in records.as_numpy_iterator()]
    groups = [example.features.feature[group_key].bytes_list.value[0] for example in examples]
    largest = max(sorted(Counter(groups).items()), key=lambda item: min(item[1], _MAX_CANDIDATES))[
        0
    ]
    slate = [e for e, g in zip(examples, groups, strict=True) if g == largest][:_MAX_CANDIDATES]
    context = {
        f.name: _value(slate[0], f.name, f.length)
        for f in ranking.rank_inputs
        if f.scope == "context"
    }
    candidates = [
        {
            f.name: _value(example, f.name, f.length)
            for f in ranking.rank_inputs
            if f.scope == "candidate"
        }
        | {ranking.item: _value(example, key_feature(ranking.item), None)}
        for example in slate
    ]
    return {"id": ranking.item, "context": context, "candidates": candidates}


def _value(example: Any, name: str, length: int | None) -> Any:
    feature = example.features.feature[name]
    if feature.WhichOneof("kind") == "bytes_list":
        values: list[Any] = [v.decode() for v in feature.bytes_list.value]
    else:
        values = [None if np.isnan(v) else round(v, 6) for v in feature.float_list.value]
    if length is None:
        return values[0] if values else None
    while values and values[-1] in ("", None):
        values.pop()
    return values


def write_sample_request(
    examples_folder: Path, ranking: RankingSpec, privacy: dict[str, Any] | None, target: Path
) -> None:
    """Writes the request as a file for `polyrank rank --request`.

    Args:
        examples_folder: Examples of the test split.
        ranking: What is ranked.
        privacy: `RunPlan.privacy_record`; with it the file says that its values are hashes.
        target: The file.
    """
    request = sample_request(examples_folder, ranking)
    if privacy is not None:
        keys = ("columns", "key_env", "hash_characters", "key_fingerprint")
        request["pii"] = {key: privacy[key] for key in keys} | {"hashed": True}
    target.write_text(json.dumps(request, indent=1))
