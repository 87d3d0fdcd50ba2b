"""Writes the warm-up requests that a served model has to answer before it takes over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy.typing as npt

from serving.api.messages import PredictionLog
from serving.api.tensors import encode
from serving.contract import WARMUP_FILE

_MODEL_NAME = "warm-up"  # TF Serving looks at the signature only


def write_warmup(
    saved_model_dir: Path | str, requests: Mapping[str, Mapping[str, npt.ArrayLike]]
) -> Path:
    """Writes one warm-up request per signature into a SavedModel.

    TF Serving and the embedded server run them when they load the model and refuse a model that
    fails one. Synthesise them from the schema; never use people's data.

    Args:
        saved_model_dir: Directory of the SavedModel.
        requests: Per signature its inputs, as arrays of the signature's types.

    Returns:
        The path of the file, ``assets.extra/tf_serving_warmup_requests``.

    Raises:
        serving.api.tensors.TensorError: An input's type has no TensorFlow counterpart.
    """
    import tensorflow as tf

    path = Path(saved_model_dir) / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            log = PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = _MODEL_NAME
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(encode(value))
            writer.write(log.SerializeToString())
    return path
