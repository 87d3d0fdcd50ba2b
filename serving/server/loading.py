"""What a version has to pass before it serves: manifest, load, warm-up."""

from __future__ import annotations

from pathlib import Path

from serving.api.messages import PredictionLog
from serving.contract import WARMUP_FILE
from serving.server import errors
from serving.server.manifest import verify_manifest
from serving.server.predict import run_predict
from serving.server.runtime import SavedModelRuntime, read_records

MAX_WARMUP_RECORDS = 1000


def load_version(directory: Path) -> SavedModelRuntime:
    """Loads a version and has it answer its own warm-up requests.

    Args:
        directory: Directory of the version.

    Returns:
        The runtime, ready to serve.

    Raises:
        StatusError: The files are not what was pushed, do not load, or a warm-up request fails.
    """
    verify_manifest(directory)
    if not (directory / "saved_model.pb").is_file():
        raise errors.no_saved_model(directory.name)
    runtime = SavedModelRuntime(directory)
    try:
        warm_up(runtime, directory / WARMUP_FILE)
    except BaseException:
        runtime.close()
        raise
    return runtime


def warm_up(runtime: SavedModelRuntime, path: Path) -> int:
    """Runs the warm-up requests of a model, a TFRecord of PredictionLog.

    Args:
        runtime: The model.
        path: The file; warm-up is optional, so it may be absent.

    Returns:
        How many requests were run.

    Raises:
        StatusError: The file is damaged, holds more than 1,000 records or kinds other than
            Predict, or a request fails.
    """
    if not path.is_file():
        return 0
    num_run = 0
    for record in read_records(path):
        if num_run == MAX_WARMUP_RECORDS:
            raise errors.too_many_warmup_records(MAX_WARMUP_RECORDS)
        try:
            log = PredictionLog.FromString(record)
        except Exception:  # protobuf's DecodeError; its text would echo the record
            raise errors.unparsable_warmup_record(num_run) from None
        kind = log.WhichOneof("log_type")
        if kind != "predict_log":
            raise errors.unsupported_warmup_record(num_run, kind)
        try:
            run_predict(runtime, log.predict_log.request)
        except errors.StatusError as error:
            raise errors.warmup_failed(num_run, error) from None
        num_run += 1
    return num_run
