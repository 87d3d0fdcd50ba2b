"""Writes the descriptors of the TF Serving API that `serving.api.messages` loads.

Run ``python -m serving.api.generate`` after moving the tensorflow-serving-api pin. Only this
module imports that package (and TensorFlow with it).
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from serving.api import DESCRIPTOR_FILE

ROOTS = ("model_service", "prediction_log", "prediction_service")
"""The API files whose transitive imports make up everything that client and server speak."""


def collect() -> descriptor_pb2.FileDescriptorSet:
    """Collects the API's files from the installed package, dependencies before dependants.

    Raises:
        KeyError: The installed package lacks one of the API's files.
    """
    collected: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for root in ROOTS:
        # The service files of tensorflow-serving-api 2.19 were generated for protobuf 3 and fail
        # under protobuf 6, but only after their descriptor has entered the pool.
        with contextlib.suppress(AttributeError):
            importlib.import_module(f"tensorflow_serving.apis.{root}_pb2")
        name = f"tensorflow_serving/apis/{root}.proto"
        _add(descriptor_pool.Default().FindFileByName(name), collected)
    return descriptor_pb2.FileDescriptorSet(file=list(collected.values()))


def _add(file: FileDescriptor, collected: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    if file.name in collected:
        return
    for dependency in file.dependencies:
        _add(dependency, collected)
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    collected[file.name] = proto


def main(path: Path = DESCRIPTOR_FILE) -> None:
    """Writes the descriptors to `path`."""
    content = collect().SerializeToString(deterministic=True)
    path.write_bytes(content)
    sys.stdout.write(f"{path.name}: {len(content)} bytes\n")


if __name__ == "__main__":
    main()
