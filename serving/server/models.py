"""Which models a server has, how a request's ModelSpec finds one, and how the set changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from serving.contract import VersionState
from serving.server import errors
from serving.server.call import Call
from serving.server.model_config import ModelConfig
from serving.server.runtime import LoadedModel
from serving.server.versions import Handle, ModelVersions, VersionStatus

Versions = ModelVersions[LoadedModel]

_LOG = logging.getLogger(__name__)
_LONGEST_RELOAD_SECONDS = 600.0


class ServedModels:
    """The models of a server by name.

    Each watches its own base path and loads in its own thread, so that none waits for another.

    Args:
        configs: The models to begin with.
        make: Makes the versions of a model; they are not started.
        on_change: Called after the set of models changed.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        make: Callable[[ModelConfig], Versions],
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._make = make
        self._on_change = on_change
        self._models = {config.name: make(config) for config in configs}
        self._reloading = threading.Lock()
        self._is_stopping = False

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
        self._is_stopping = True
        _stop_all(list(self._models.values()), drain_seconds)

    def availability(self) -> dict[str, bool]:
        """Returns, for each model, whether it has a serving version."""
        return {name: versions.is_available for name, versions in self._models.items()}

    @contextmanager
    def acquire(self, spec: Any, call: Call) -> Iterator[Handle[LoadedModel]]:
        """Holds the version that a ModelSpec asks for, and notes it for the metrics.

        Raises:
            StatusError: No name, an unknown label, or a model or version that is not served.
        """
        if not spec.name:
            raise errors.missing_model_name()
        choice = spec.WhichOneof("version_choice")
        version = spec.version.value if choice == "version" else None
        versions = self._models.get(spec.name)
        if choice == "version_label":
            if versions is None:
                raise errors.unknown_label(spec.version_label)
            version = versions.labelled(spec.version_label)
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

    def reload(self, configs: Sequence[ModelConfig], seconds: float | None) -> None:
        """Replaces the whole set of models, or leaves all as it is.

        Models that are new, or whose base path moved, are loaded beside what serves; only when
        each has an available version does anything change. Moving a label of a model that serves
        takes two reloads: one that brings the version, one that moves the label.

        Args:
            configs: The models to serve from now on.
            seconds: How long it may take.

        Raises:
            StatusError: FAILED_PRECONDITION for a label of a version that is not available or that
                the policy drops,
                UNKNOWN if a new model has no version that loads, DEADLINE_EXCEEDED.
        """
        end = time.monotonic() + min(seconds or _LONGEST_RELOAD_SECONDS, _LONGEST_RELOAD_SECONDS)
        if not self._reloading.acquire(timeout=max(0.0, end - time.monotonic())):
            raise errors.reload_under_way()
        try:
            self._reload(configs, end)
        finally:
            self._reloading.release()

    def _reload(self, configs: Sequence[ModelConfig], end: float) -> None:
        kept: list[tuple[Versions, ModelConfig]] = []
        fresh: dict[str, Versions] = {}
        for config in configs:
            versions = self._models.get(config.name)
            if versions is not None and versions.base_path == config.base_path:
                versions.check_labels(config)
                kept.append((versions, config))
            else:
                fresh[config.name] = self._make(config)
        for versions in fresh.values():
            versions.start()
        try:
            _wait_until_available(fresh, end)
            for config in configs:
                if config.name in fresh:
                    fresh[config.name].check_labels(config)
            if self._is_stopping:
                raise errors.stopping()
        except BaseException:
            _stop_in_background(list(fresh.values()), 0.0)
            raise
        for versions, config in kept:
            versions.configure(config)
        before = self._models
        # One assignment: a request sees the old set or the new one.
        self._models = {
            config.name: fresh.get(config.name) or before[config.name] for config in configs
        }
        self._on_change()
        gone = [v for name, v in before.items() if self._models.get(name) is not v]
        _LOG.info("reloaded: serving %s", ", ".join(self._models) or "no model")
        # Requests that hold them may go on; the caller need not wait for that.
        _stop_in_background(gone, _LONGEST_RELOAD_SECONDS)


def _stop_all(all_versions: Sequence[Versions], drain_seconds: float) -> None:
    end = time.monotonic() + drain_seconds
    for versions in all_versions:  # first, lest one loads while another drains
        versions.stop_watching()
    for versions in all_versions:
        versions.stop(max(0.0, end - time.monotonic()))


def _stop_in_background(all_versions: Sequence[Versions], drain_seconds: float) -> None:
    threading.Thread(target=_stop_all, args=(all_versions, drain_seconds), daemon=True).start()


def _wait_until_available(models: dict[str, Versions], end: float) -> None:
    while True:
        waiting = {name: v for name, v in models.items() if not v.is_available}
        if not waiting:
            return
        failed = {
            name: _fault(versions) for name, versions in waiting.items() if versions.has_polled
        }
        # Asked again: it may have become available between the two questions.
        failed = {name: fault for name, fault in failed.items() if not models[name].is_available}
        if failed:
            raise errors.models_not_available(failed)
        if time.monotonic() >= end:
            raise errors.models_not_available(dict.fromkeys(waiting, "still loading"))
        time.sleep(0.02)


def _fault(versions: Versions) -> str:
    for status in versions.statuses():
        if status.state is VersionState.END and status.error is not None:
            return f"version {status.version}: {status.error.message}"
    return "no versions of servable found under base path"
