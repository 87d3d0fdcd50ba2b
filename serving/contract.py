"""The names that every exported model, the client and the servers agree on."""

from enum import IntEnum

SERVING_DEFAULT = "serving_default"
"""Signature that takes serialized tf.Examples."""

PREDICT = "predict"
"""Signature that takes one named tensor per request feature."""

RANK = "rank"
"""Signature that takes context features once and candidate features ``[N]``."""

EXAMPLES_INPUT = "examples"
"""The one input of `SERVING_DEFAULT`."""

SCORE_OUTPUT = "score"
"""The output that candidates are ordered by: the declared fusion of the served tasks."""

LENGTH_SUFFIX = "_length"
"""``<name>_length`` holds how many values of the padded sequence ``<name>`` are real."""

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where a SavedModel carries its warm-up requests."""

MANIFEST_FILE = "polyrank_manifest.json"
"""The push manifest inside a version's directory."""


class VersionState(IntEnum):
    """Where a version is in its life, with the numbers of TF Serving's ModelVersionStatus."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50
