"""Which models a server has, and how a request's ModelSpec finds one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from serving.server import errors
from serving.server.rpc import Call
from serving.server.runtime import SavedModelRuntime
from serving.server.versions import Handle, ModelVersions, VersionStatus

Versions = ModelVersions[SavedModelRuntime]


class ServedModels:
    """The models of a server by name.

    Each watches its own base path and loads in its own thread, so that none waits for another.

    Args:
        models: Their versions by model name.
    """

    def __init__(self, models: Mapping[str, Versions]) -> None:
        self._models = dict(models)

    def start(self) -> None:
        """Starts to watch the base paths."""
        for versions in self._models.values():
            versions.start()

    def stop(self, drain_seconds: float) -> None:
        """Stops watching and frees all versions.

        Args:
            drain_seconds: How long to wait for requests, of all models together. What still
                runs then is cancelled.
        """
        end = time.monotonic() + drain_seconds
        for versions in self._models.values():  # first, lest one loads while another drains
            versions.stop_watching()
        for versions in self._models.values():
            versions.stop(max(0.0, end - time.monotonic()))

    def availability(self) -> dict[str, bool]:
        """Returns, for each model, whether it has a serving version."""
        return {name: versions.is_available for name, versions in self._models.items()}

    @contextmanager
    def acquire(self, spec: Any, call: Call) -> Iterator[Handle[SavedModelRuntime]]:
        """Holds the version that a ModelSpec asks for, and notes it for the metrics.

        Raises:
            StatusError: No name, an unknown label, or a model or version that is not served.
        """
        if not spec.name:
            raise errors.missing_model_name()
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise errors.unknown_label(spec.version_label)
        version = spec.version.value if choice == "version" else None
        versions = self._models.get(spec.name)
        if versions is None:
            raise errors.servable_not_found(spec.name, version)
        call.model = spec.name
        with versions.acquire(version) as handle:
            call.version = str(handle.version)
            yield handle

    def statuses(self, spec: Any, call: Call) -> list[VersionStatus]:
        """Returns the states that a ModelSpec asks for; labels are not resolved.

        Raises:
            StatusError: NOT_FOUND if the model, or the version asked for, was never seen.
        """
        versions = self._models.get(spec.name)
        found = versions.statuses() if versions is not None else []
        if versions is not None:
            call.model = spec.name
        if spec.HasField("version"):
            wanted = spec.version.value
            found = [status for status in found if status.version == wanted]
            if not found:
                raise errors.no_version(spec.name, wanted)
        if not found:
            raise errors.no_versions(spec.name)
        return found
