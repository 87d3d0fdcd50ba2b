"""What a version has to pass before it serves: manifest, scan, load, warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.api.messages import PredictionLog
from serving.contract import MANIFEST_FILE, WARMUP_FILE
from serving.server import errors
from serving.server.call import Call
from serving.server.examples import run_classify, run_multi_inference, run_regress
from serving.server.limits import Limits
from serving.server.manifest import verify_manifest
from serving.server.model_scan import scan_model
from serving.server.predict import run_predict
from serving.server.runtime import LoadedModel, SavedModelRuntime, read_records

MAX_WARMUP_RECORDS = 1000

_RUN: dict[str | None, Callable[[LoadedModel, Any, Call, Limits], Any]] = {
    "predict_log": run_predict,
    "classify_log": run_classify,
    "regress_log": run_regress,
    "multi_inference_log": run_multi_inference,
}


def load_version(
    directory: Path,
    on_warmup: Callable[[str, float], None] = lambda code, seconds: None,
    *,
    require_manifest: bool = False,
    intra_op_parallelism: int = 1,
) -> SavedModelRuntime:
    """Loads a version and has it answer its own warm-up requests.

    Args:
        directory: Directory of the version.
        on_warmup: Told the status code of the warm-up and its seconds, if there was one.
        require_manifest: Whether a version without a push manifest is refused.
        intra_op_parallelism: How many threads an operation may use.

    Returns:
        The runtime, ready to serve.

    Raises:
        StatusError: The files are not what was pushed, can do more than compute or do not load,
            or a warm-up request fails.
    """
    if not verify_manifest(directory) and require_manifest:
        raise errors.no_manifest(directory.name, MANIFEST_FILE)
    if not (directory / "saved_model.pb").is_file():
        raise errors.no_saved_model(directory.name)
    runtime = SavedModelRuntime(directory, scan_model(directory), intra_op_parallelism)
    start = time.perf_counter()
    try:
        num_run = warm_up(runtime, directory / WARMUP_FILE)
    except BaseException as error:
        on_warmup(errors.status_of(error).code.name, time.perf_counter() - start)
        runtime.close()
        raise
    if num_run:
        on_warmup("OK", time.perf_counter() - start)
    return runtime


def warm_up(runtime: SavedModelRuntime, path: Path) -> int:
    """Runs the warm-up requests of a model, a TFRecord of PredictionLog.

    Args:
        runtime: The model.
        path: The file; warm-up is optional, so it may be absent.

    Returns:
        How many requests were run.

    Raises:
        StatusError: The file is damaged, holds more than 1,000 records or other kinds,
            or a request fails.
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
        run = _RUN.get(kind)
        if run is None:
            raise errors.unsupported_warmup_record(num_run, kind)
        try:
            run(runtime, getattr(log, kind).request, Call(), Limits())
        except errors.StatusError as error:
            raise errors.warmup_failed(num_run, error) from None
        num_run += 1
    return num_run
