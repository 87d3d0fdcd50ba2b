"""Versions come and go on disk.

file_system_storage_path_source_test, aspired_versions_manager_test,
availability_preserving_policy_test, saved_model_warmup_util_test.
"""

from __future__ import annotations

import re
import shutil

import grpc
import numpy as np
import pytest
import tensorflow as tf
from target import AVAILABLE, END, example, example_input, wait_until

from serving.api import messages, services
from serving.api.tensors import encode
from serving.contract import WARMUP_FILE


@pytest.fixture
def watched(pushing, push, request):
    """A model of the case's own, with version 1 (slope 5), and its folder."""
    name = re.sub(r"\W", "_", request.node.name)
    push(pushing.models / name, 1, slope=5.0)
    pushing.reload(pushing.config(name))
    return pushing, name, pushing.models / name


def error_of(target, name: str, version: int):
    request = messages.GetModelStatusRequest()
    request.model_spec.name = name
    request.model_spec.version.value = version
    (status,) = target.call(services.GET_MODEL_STATUS, request).model_version_status
    return status.status


def test_files_appear_after_startup(watched, push) -> None:
    target, name, folder = watched
    push(folder, 2, slope=6.0)
    wait_until(lambda: target.slope(name) == 6.0)
    wait_until(lambda: target.states(name) == {1: END, 2: AVAILABLE})
    with pytest.raises(grpc.RpcError, match=rf"Specific\({name}, 1\)"):
        target.slope(name, version=1)


def test_newest_by_number_not_by_name(watched, push) -> None:
    target, name, folder = watched
    push(folder, 9, slope=6.0)
    wait_until(lambda: target.slope(name) == 6.0)
    push(folder, 10, slope=7.0)
    wait_until(lambda: target.slope(name) == 7.0)


def test_leading_zeros_and_names_that_are_no_numbers(watched, push) -> None:
    target, name, folder = watched
    for ignored in ("x", "99.tmp", "-98", "97a"):
        push(folder, ignored, slope=8.0)
    (folder / "96").touch()
    push(folder, "0007", slope=6.0)
    wait_until(lambda: target.slope(name) == 6.0)
    assert target.slope(name, version=7) == 6.0


def test_revert_to_smaller_version_number(watched, push) -> None:
    target, name, folder = watched
    push(folder, 2, slope=6.0)
    wait_until(lambda: target.slope(name) == 6.0)
    shutil.rmtree(folder / "2")
    wait_until(lambda: target.slope(name) == 5.0)


def test_reaspired_after_it_was_removed(watched, push) -> None:
    target, name, folder = watched
    push(folder, 2, slope=6.0)
    wait_until(lambda: target.slope(name) == 6.0)
    shutil.rmtree(folder / "2")
    push(folder, 2, slope=7.0)  # perhaps before the server saw that it was gone
    wait_until(lambda: target.slope(name) in (6.0, 7.0))
    push(folder, 3, slope=8.0)
    wait_until(lambda: target.slope(name) == 8.0)


def test_a_vanished_base_path_unloads_nothing(watched, push) -> None:
    target, name, folder = watched
    moved = folder.with_name(folder.name + "_moved")
    folder.rename(moved)
    push(target.models / "line_of_time", 1)
    target.reload(target.config(name), target.config("line_of_time"))  # polls have passed
    assert target.slope(name) == 5.0
    moved.rename(folder)


def test_a_version_that_fails_leaves_the_old_one(watched, push) -> None:
    target, name, folder = watched
    staged = push(folder.with_name(f"{name}_staged"), 2)
    (staged / "saved_model.pb").write_bytes(b"\xff" * 100)
    staged.rename(folder / "2")
    wait_until(lambda: target.states(name).get(2) == END)
    assert error_of(target, name, 2).error_code != 0
    assert target.slope(name) == 5.0
    push(folder, 3, slope=7.0)
    wait_until(lambda: target.slope(name) == 7.0)


def warmed(watched, push, records) -> None:
    """Pushes version 2 with these warm-up records."""
    _, name, folder = watched
    staged = push(folder.with_name(f"{name}_staged"), 2, slope=6.0)
    path = staged / WARMUP_FILE
    path.unlink()
    if records is not None:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
    staged.rename(folder / "2")


def predict_log(**inputs: object) -> bytes:
    log = messages.PredictionLog()
    log.predict_log.request.model_spec.name = "any"
    for alias, value in inputs.items():
        log.predict_log.request.inputs[alias].CopyFrom(encode(value))
    return log.SerializeToString()


def example_log(kind: str, signature: str) -> bytes:
    log = messages.PredictionLog()
    request = getattr(log, kind).request
    if kind == "multi_inference_log":
        task = request.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name, task.model_spec.signature_name = "any", signature
    else:
        request.model_spec.name, request.model_spec.signature_name = "any", signature
    request.input.CopyFrom(example_input(example(x=1.0)))
    return log.SerializeToString()


@pytest.mark.parametrize("case", ["none", "empty", "all kinds"])
def test_warm_up_that_succeeds(watched, push, case) -> None:
    records = {
        "none": None,
        "empty": [],
        "all kinds": [
            predict_log(x=np.ones((1, 1), np.float32)),
            example_log("classify_log", "classify_x_to_y"),
            example_log("regress_log", "regress_x_to_y"),
            example_log("multi_inference_log", "regress_x_to_y"),
        ],
    }
    warmed(watched, push, records[case])
    target, name, _ = watched
    wait_until(lambda: target.slope(name) == 6.0)


@pytest.mark.parametrize("case", ["unparsable", "failing", "too many", "wrong file"])
def test_warm_up_that_fails_is_a_load_that_fails(watched, push, case) -> None:
    good = predict_log(x=np.ones((1, 1), np.float32))
    records = {
        "unparsable": [b"\xff\xff"],
        "failing": [good, predict_log(colour=np.ones((1, 1), np.float32))],
        "too many": [good] * 1001,
        "wrong file": [good],
    }
    target, name, folder = watched
    if case == "wrong file":
        staged = push(folder.with_name(f"{name}_staged"), 2, slope=6.0)
        (staged / WARMUP_FILE).write_bytes(b"no records at all")
        staged.rename(folder / "2")
    else:
        warmed(watched, push, records[case])
    wait_until(lambda: target.states(name).get(2) == END)
    assert error_of(target, name, 2).error_code != 0
    assert target.slope(name) == 5.0
