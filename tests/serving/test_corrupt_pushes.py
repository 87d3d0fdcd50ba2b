"""A version that is not whole never serves; the old one answers meanwhile."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from serving.api.messages import PredictionLog
from serving.client import RankingClient, VersionStatus
from serving.contract import MANIFEST_FILE, WARMUP_FILE, VersionState
from serving.server.errors import StatusError
from serving.server.loading import load_version, warm_up
from serving.server.manifest import verify_manifest
from serving.server.model_scan import scan_model
from serving.server.runtime import SavedModelRuntime
from serving.server.server import EmbeddedServer
from serving.warmup import write_warmup

CODES = grpc.StatusCode


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def shard(directory: Path) -> Path:
    (found,) = (directory / "variables").glob("variables.data-*")
    return found


def write_manifest(directory: Path, **files: str) -> None:
    listed = {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    (directory / MANIFEST_FILE).write_text(json.dumps({"files": {**listed, **files}}))


def with_manifest(damage):
    def change(directory: Path) -> None:
        write_manifest(directory)
        damage(directory)

    return change


def failing_warmup(directory: Path) -> None:
    """One row too many in one feature."""
    requests = {
        "predict": {
            "user_id": np.array(["u"] * 2, object),
            "item_id": np.array(["hat"] * 2, object),
            "price": np.array([1.0, 2.0], np.float32),
            "history": np.array([["hat"]] * 3, object),
        }
    }
    write_warmup(directory, requests)


def warmup_of_another_model(directory: Path) -> None:
    write_warmup(directory, {"predict": {"colour": np.array(["red"], object)}})


def warmup_of_another_kind(directory: Path) -> None:
    log = PredictionLog()
    log.session_run_log.request.model_spec.name = "m"
    with tf.io.TFRecordWriter(str(directory / WARMUP_FILE)) as writer:
        writer.write(log.SerializeToString())


def planted(function):
    """Replaces the graph by one whose `predict` and `rank` do what they should not."""

    def change(directory: Path) -> None:
        module = tf.Module()
        module.call = tf.function(
            lambda x: {"score": function(x)},
            input_signature=[tf.TensorSpec([None], tf.string, name="x")],
        )
        shutil.rmtree(directory)
        tf.saved_model.save(module, str(directory), signatures={"predict": module.call})

    return change


def writing(x: tf.Tensor) -> tf.Tensor:
    tf.io.write_file("planted", x[0])
    return x


def edit_signatures(directory: Path, change) -> None:
    """Rewrites the signatures of the only meta graph."""
    path = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved.meta_graphs[0].signature_def)
    path.write_bytes(saved.SerializeToString())


def no_signature(directory: Path) -> None:
    edit_signatures(directory, lambda signatures: signatures.pop("predict"))


def signature_of_an_absent_tensor(directory: Path) -> None:
    def change(signatures) -> None:
        signatures["predict"].outputs["score"].name = "absent:0"

    edit_signatures(directory, change)


def signature_of_another_type(directory: Path) -> None:
    def change(signatures) -> None:
        signatures["predict"].inputs["price"].dtype = 7  # the graph's placeholder takes floats

    edit_signatures(directory, change)


def half_copied(directory: Path) -> None:
    (directory / "saved_model.pb").unlink()
    (directory / "variables" / "variables.index").unlink()


PUSHES = {
    "truncated pb": (lambda d: cut(d / "saved_model.pb"), CODES.DATA_LOSS, "parse"),
    "no pb": (lambda d: (d / "saved_model.pb").unlink(), CODES.NOT_FOUND, "saved_model.pb"),
    "garbage pb": (
        lambda d: (d / "saved_model.pb").write_bytes(b"\xff" * 100), CODES.DATA_LOSS, "parse"
    ),
    "empty pb": (
        lambda d: (d / "saved_model.pb").write_bytes(b""), CODES.INVALID_ARGUMENT, "SavedModel"
    ),
    "no variables": (
        lambda d: shutil.rmtree(d / "variables"), CODES.INVALID_ARGUMENT, "checkpoint"
    ),
    "no shard": (lambda d: shard(d).unlink(), CODES.UNKNOWN, "No such file"),
    "truncated shard": (lambda d: cut(shard(d)), CODES.OUT_OF_RANGE, ""),
    "flipped bit in variables": (lambda d: flip_bit(shard(d), 3), CODES.DATA_LOSS, "Checksum"),
    "no assets": (lambda d: shutil.rmtree(d / "assets"), CODES.NOT_FOUND, "items.txt"),
    "half copied": (half_copied, CODES.NOT_FOUND, "saved_model.pb"),
    "no signature": (no_signature, CODES.FAILED_PRECONDITION, "warm-up request 0 failed"),
    "signature of an absent tensor": (
        signature_of_an_absent_tensor, CODES.INVALID_ARGUMENT, "'absent:0'"
    ),
    "signature of another type": (
        signature_of_another_type, CODES.INVALID_ARGUMENT, "incompatible with expected float"
    ),
    "failing warm-up": (failing_warmup, CODES.INVALID_ARGUMENT, "warm-up request 0 failed"),
    "warm-up of another model": (
        warmup_of_another_model, CODES.INVALID_ARGUMENT, "input size does not match"
    ),
    "warm-up of another kind": (warmup_of_another_kind, CODES.UNIMPLEMENTED, "session_run_log"),
    "truncated warm-up": (lambda d: cut(d / WARMUP_FILE), CODES.DATA_LOSS, "warm-up file"),
    "flipped bit in warm-up": (
        lambda d: flip_bit(d / WARMUP_FILE, 20), CODES.DATA_LOSS, "warm-up file"
    ),
    "planted reading": (
        planted(lambda x: tf.io.read_file(x[0])), CODES.PERMISSION_DENIED, "operation ReadFile"
    ),
    "planted writing": (planted(writing), CODES.PERMISSION_DENIED, "operation WriteFile"),
    "planted Python": (
        planted(lambda x: tf.py_function(lambda v: v, [x], tf.string)),
        CODES.PERMISSION_DENIED,
        "operation EagerPyFunc",
    ),
    # Only the manifest can see these: the model would load and answer.
    "flipped bit in an asset, manifest": (
        with_manifest(lambda d: flip_bit(d / "assets" / "items.txt", 0)),
        CODES.DATA_LOSS,
        "assets/items.txt is not what was pushed",
    ),
    "flipped bit in the graph, manifest": (
        with_manifest(lambda d: flip_bit(d / "saved_model.pb", -40)),
        CODES.DATA_LOSS,
        "saved_model.pb is not what was pushed",
    ),
    "file missing, manifest": (
        with_manifest(lambda d: (d / WARMUP_FILE).unlink()), CODES.DATA_LOSS, "is missing"
    ),
    "file planted, manifest": (
        with_manifest(lambda d: (d / "assets" / "planted.txt").write_text("x")),
        CODES.DATA_LOSS,
        "assets/planted.txt is not listed",
    ),
    "folder linked, manifest": (
        with_manifest(lambda d: (d / "assets" / "planted").symlink_to(d.parent)),
        CODES.DATA_LOSS,
        "assets/planted is not listed",
    ),
    "manifest cut": (
        with_manifest(lambda d: cut(d / MANIFEST_FILE)), CODES.DATA_LOSS, "does not hold"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def next_version() -> list[int]:
    return [100]


def wait_for_end(client: RankingClient, version: int) -> VersionStatus:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for status in client.status():
            if status.version == version and status.state is VersionState.END:
                return status
        time.sleep(0.02)
    raise AssertionError(f"version {version} did not end")


@pytest.mark.parametrize("push", PUSHES)
def test_corrupt_push(push, base_path, client, export, next_version) -> None:
    damage, code, text = PUSHES[push]
    version = next_version[0]
    next_version[0] += 1
    path = export(base_path, version, change=damage)
    status = wait_for_end(client, version)
    assert status.error_code == code.value[0], status
    assert text in status.error_message
    answer = client.rank({"user_id": "u", "history": []}, {"item_id": ["hat"], "price": [1.0]})
    assert answer.version == 3
    assert answer.scores["generation"].tolist() == [3.0]
    shutil.rmtree(path)


def test_a_whole_push_with_a_manifest_serves(tmp_path, export) -> None:
    path = export(tmp_path, 1, change=write_manifest)
    assert verify_manifest(path)
    loaded = SavedModelRuntime(path, scan_model(path))
    assert warm_up(loaded, path / WARMUP_FILE) == 2
    loaded.close()


def test_without_a_manifest_nothing_is_verified(tmp_path) -> None:
    assert not verify_manifest(tmp_path)


def test_a_manifest_may_be_required(tmp_path, export, server_options) -> None:
    export(tmp_path, 1, change=write_manifest)
    export(tmp_path, 2)
    with (
        EmbeddedServer(server_options(tmp_path, require_manifest=True)) as server,
        RankingClient(server.target, "ranker") as client,
    ):
        assert client.wait_until_available(30) == 1
        refused = wait_for_end(client, 2)
        assert refused.error_code == grpc.StatusCode.PERMISSION_DENIED.value[0]
        assert "version 2 has no polyrank_manifest.json" in refused.error_message
    load_version(tmp_path / "2").close()


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"files": ["a"]}', "\xff", '{"files": null}', '"x"', ""]
)
def test_manifests_that_are_none(tmp_path, content) -> None:
    (tmp_path / MANIFEST_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(StatusError, match="does not hold"):
        verify_manifest(tmp_path)


def test_a_manifest_cannot_point_outside(tmp_path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("x")
    inside = tmp_path / "model"
    inside.mkdir()
    write_manifest(inside, **{"../outside.txt": hashlib.sha256(b"x").hexdigest()})
    with pytest.raises(StatusError, match="is missing"):
        verify_manifest(inside)


def test_warm_up_is_bounded(tmp_path, export) -> None:
    path = export(tmp_path, 1, signatures=("predict",))
    (record,) = tf.data.TFRecordDataset(str(path / WARMUP_FILE)).as_numpy_iterator()
    loaded = SavedModelRuntime(path, scan_model(path))
    for num_records, fits in ((1000, True), (1001, False)):
        with tf.io.TFRecordWriter(str(path / WARMUP_FILE)) as writer:
            for _ in range(num_records):
                writer.write(record)
        if fits:
            assert warm_up(loaded, path / WARMUP_FILE) == num_records
        else:
            with pytest.raises(StatusError, match="exceeds the maximum"):
                warm_up(loaded, path / WARMUP_FILE)
    loaded.close()


def test_tensorflow_serving_reads_the_warm_up_requests(tmp_path) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    path = write_warmup(tmp_path, {"predict": {"x": np.array([1.5], np.float32)}})
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    log = prediction_log_pb2.PredictionLog.FromString(record)
    request = log.predict_log.request
    assert request.model_spec.signature_name == "predict"
    assert tf.make_ndarray(request.inputs["x"]).tolist() == [1.5]
