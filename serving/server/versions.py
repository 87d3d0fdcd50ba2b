"""The versions of one model: watching the base path, hot swap, and handles that outlive it."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from serving.contract import VersionState
from serving.server import errors
from serving.server.background import run_behind
from serving.server.base_path import fingerprint, version_directories
from serving.server.model_config import LATEST, ModelConfig, VersionPolicy

_LOG = logging.getLogger(__name__)
_MAX_ENDED_VERSIONS = 100


class Runtime(Protocol):
    """What a loaded version must offer."""

    def close(self) -> None:
        """Frees it, and cancels what still runs."""


@dataclass(frozen=True)
class VersionStatus:
    """State of one version.

    Attributes:
        version: The version.
        state: Where it is in its life.
        error: Why it did not load, if so.
    """

    version: int
    state: VersionState
    error: errors.StatusError | None


R = TypeVar("R", bound=Runtime)


@dataclass(frozen=True)
class Handle(Generic[R]):
    """A version that stays loaded as long as the handle is held.

    Attributes:
        version: The version.
        runtime: Its loaded model.
    """

    version: int
    runtime: R


@dataclass
class _Servable(Generic[R]):
    version: int
    state: VersionState = VersionState.START
    error: errors.StatusError | None = None
    failed_files: Hashable = None
    runtime: R | None = None
    num_handles: int = 0


class ModelVersions(Generic[R]):
    """Serves the wanted versions under a base path and follows what is pushed there.

    Availability is preserved: versions that are no longer wanted are retired only once a wanted
    one has loaded, and each is freed when its last handle is released. A version that fails to
    load is reported as END with the error and is tried again when its files change; meanwhile
    what was serving goes on serving.

    Differs from TF Serving: if nothing is serving and the newest versions fail, older versions
    are tried; failed loads are not retried on a timer.

    Args:
        name: Name of the model.
        base_path: Directory with one numbered directory per version.
        load: Loads a version from its directory; raises if it must not serve.
        policy: Which versions to serve.
        labels: Versions by label.
        poll_seconds: How often to look for versions.
        on_change: Called, without locks held, after what is available changed.
    """

    def __init__(
        self,
        name: str,
        base_path: Path,
        load: Callable[[Path], R],
        *,
        policy: VersionPolicy = LATEST,
        labels: Mapping[str, int] | None = None,
        poll_seconds: float = 0.5,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.base_path = base_path
        self._load = load
        self._policy = policy
        self._labels = dict(labels or {})
        self._poll_seconds = poll_seconds
        self._on_change = on_change
        self._lock = threading.Lock()
        self._servables: dict[int, _Servable[R]] = {}
        self._serving: _Servable[R] | None = None
        self._complaint = ""
        self._wake = threading.Event()
        self._stopping = False
        self._has_polled = False
        self._thread = threading.Thread(target=self._watch, name=f"versions-{name}", daemon=True)

    def start(self) -> None:
        """Starts to watch the base path in a thread."""
        self._thread.start()

    def stop_watching(self) -> None:
        """Begins no further load; returns without waiting for one that is under way."""
        self._stopping = True
        self._wake.set()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Stops watching and frees all versions.

        Args:
            drain_seconds: How long to wait for handles. What still runs then is cancelled.
        """
        self.stop_watching()
        if self._thread.ident is not None:
            self._thread.join()
        self._retire(keep=())
        end = time.monotonic() + drain_seconds
        while not self._free_drained() and time.monotonic() < end:
            self._wake.wait(min(0.05, drain_seconds))
            self._wake.clear()
        self._free(self._retired())

    def configure(self, config: ModelConfig) -> None:
        """Takes over another policy and other labels; versions follow at the next poll.

        Args:
            config: The model's configuration; its base path is this one's.
        """
        with self._lock:
            self._policy = config.policy
            self._labels = dict(config.labels)
        self._wake.set()

    def check_labels(self, config: ModelConfig) -> None:
        """Checks that labels point to versions that are available now, and that stay.

        Args:
            config: The model's configuration, with its labels and the policy that goes with them.

        Raises:
            StatusError: FAILED_PRECONDITION if one does not.
        """
        with self._lock:
            available = [
                version
                for version, servable in self._servables.items()
                if servable.state is VersionState.AVAILABLE
            ]
        kept = config.policy.wanted(available)
        for version in config.labels.values():
            if version not in kept:
                raise errors.label_of_unavailable_version(self.name, version)

    def labelled(self, label: str) -> int:
        """Returns the version that carries a label.

        Raises:
            StatusError: INVALID_ARGUMENT if none does.
        """
        with self._lock:
            try:
                return self._labels[label]
            except KeyError:
                raise errors.unknown_label(label) from None

    @contextmanager
    def acquire(self, version: int | None = None) -> Iterator[Handle[R]]:
        """Holds a version for the time of a request.

        Args:
            version: The version; the newest available one if None.

        Raises:
            StatusError: NOT_FOUND if it is not available.
        """
        with self._lock:
            servable = self._serving if version is None else self._servables.get(version)
            if servable is None or servable.state is not VersionState.AVAILABLE:
                raise errors.servable_not_found(self.name, version)
            assert servable.runtime is not None
            servable.num_handles += 1
        try:
            yield Handle(servable.version, servable.runtime)
        finally:
            self._release(servable)

    def _release(self, servable: _Servable[R]) -> None:
        with self._lock:
            servable.num_handles -= 1
            drained = servable.num_handles == 0 and servable.state is VersionState.UNLOADING
        if drained:
            self._wake.set()

    @property
    def has_polled(self) -> bool:
        """Whether the base path has been looked at, and what was found there loaded or refused."""
        return self._has_polled

    @property
    def is_available(self) -> bool:
        """Whether a version is serving."""
        return self._serving is not None

    def statuses(self) -> list[VersionStatus]:
        """Returns the state of every version seen, the newest first."""
        with self._lock:
            return [
                VersionStatus(servable.version, servable.state, servable.error)
                for _, servable in sorted(self._servables.items(), reverse=True)
            ]

    def poll(self) -> None:
        """Looks at the base path once and loads or retires what that asks for."""
        self._free_drained()
        try:
            found = version_directories(self.base_path)
        except OSError as error:
            # Gone for now, or for good: either way no reason to stop serving.
            self._complain(f"the base path cannot be read: {error}")
            return
        if not found:
            self._complain("no version under the base path")
            self._retire(keep=())
            return
        self._complain("")
        wanted = self._policy.wanted(found)
        # A wanted version that is still being unloaded is wanted back: once its old load is freed.
        blocked = any(self._state(version) is VersionState.UNLOADING for version in wanted)
        for version in wanted:
            if not self._stopping:
                self._load_unless_known(version, found[version])
        if self._policy.may_go_back and not blocked:
            for version in sorted(set(found) - set(wanted), reverse=True):
                if self.is_available or self._stopping:
                    break
                self._load_unless_known(version, found[version])
        if not wanted or any(self._state(v) is VersionState.AVAILABLE for v in wanted):
            self._retire(keep=wanted)

    def _state(self, version: int) -> VersionState:
        servable = self._servables.get(version)
        return VersionState.UNKNOWN if servable is None else servable.state

    def _watch(self) -> None:
        while not self._stopping:
            try:
                self.poll()
            except Exception as error:
                # Whatever it was, what is serving must go on, and later pushes be seen.
                _LOG.exception("model %s: polling failed: %s", self.name, type(error).__name__)
            self._has_polled = True
            self._wake.wait(self._poll_seconds)
            self._wake.clear()

    def _load_unless_known(self, version: int, path: Path) -> None:
        """Loads a version unless it serves, is being unloaded, or failed with these files."""
        if self._state(version) in (VersionState.AVAILABLE, VersionState.UNLOADING):
            return
        files = fingerprint(path)
        known = self._servables.get(version)
        if known is not None and known.error is not None and known.failed_files == files:
            return
        servable: _Servable[R] = _Servable(version)
        with self._lock:
            self._servables[version] = servable
            servable.state = VersionState.LOADING
        _LOG.info("model %s: loading version %d", self.name, version)
        # While another version answers, that goes first. The first version makes threads that
        # later requests of all versions compute in.
        is_swap = self.is_available
        try:
            runtime = run_behind(lambda: self._load(path)) if is_swap else self._load(path)
        except Exception as error:
            failure = errors.status_of(error)
            with self._lock:
                servable.state = VersionState.END
                servable.error = failure
                servable.failed_files = files
                self._forget_ended()
            _LOG.error(
                "model %s: version %d did not load and does not serve: %s",
                self.name,
                version,
                failure.log_text(),
            )
            return
        with self._lock:
            servable.runtime = runtime
            servable.state = VersionState.AVAILABLE
            self._choose_latest()
        _LOG.info("model %s: version %d is available", self.name, version)
        self._on_change()

    def _choose_latest(self) -> None:
        """Notes which version answers requests that name none; call it with the lock held."""
        available = [v for v, s in self._servables.items() if s.state is VersionState.AVAILABLE]
        self._serving = self._servables[max(available)] if available else None

    def _retire(self, keep: Collection[int]) -> None:
        with self._lock:
            retired = [
                servable
                for servable in self._servables.values()
                if servable.state is VersionState.AVAILABLE and servable.version not in keep
            ]
            for servable in retired:
                servable.state = VersionState.UNLOADING
            self._choose_latest()
        if retired:
            self._on_change()
            self._free_drained()

    def _retired(self) -> list[_Servable[R]]:
        with self._lock:
            return [
                servable
                for servable in self._servables.values()
                if servable.state is VersionState.UNLOADING
            ]

    def _free_drained(self) -> bool:
        """Frees retired versions without handles; returns whether none is left."""
        retired = self._retired()
        # No handle of a retired version can be taken any more, so a count of 0 stays 0.
        drained = [servable for servable in retired if servable.num_handles == 0]
        self._free(drained)
        return len(drained) == len(retired)

    def _free(self, servables: Sequence[_Servable[R]]) -> None:
        for servable in servables:
            assert servable.runtime is not None
            servable.runtime.close()
            servable.runtime = None
            with self._lock:
                servable.state = VersionState.END
                self._forget_ended()
            _LOG.info("model %s: version %d is unloaded", self.name, servable.version)
        if servables:
            gc.collect()  # TensorFlow's graph objects refer to each other

    def _forget_ended(self) -> None:
        ended = sorted(v for v, s in self._servables.items() if s.state is VersionState.END)
        for version in ended[:-_MAX_ENDED_VERSIONS]:
            del self._servables[version]

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            _LOG.warning("model %s: %s (%s)", self.name, complaint, self.base_path)
        self._complaint = complaint
