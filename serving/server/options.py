"""What a server is told when it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.spec.errors import ConfigError
from serving.server.batching_options import BatchingOptions
from serving.server.limits import Limits
from serving.server.model_config import ModelConfig
from serving.server.tls import TlsOptions


@dataclass(frozen=True)
class ServerOptions:
    """What to serve, where, and to whom.

    Attributes:
        models: By the name that requests ask for, the base path: a directory with one numbered
            directory per version, of which the newest is served.
        configs: Models with a version policy or labels of their own.
        host: Address to listen on.
        port: gRPC port; 0 lets the operating system pick one.
        port_file: Where to write the port once the server listens.
        rest_port: Port of the REST API and of the metrics; none if None.
        metrics_port: Port of a Prometheus exporter alone (any path); none if None.
        num_threads: How many requests are worked on at once; None for 4, or 32 with batching, where
            a request that waits for its batch holds a thread. More of them rather compete for
            Python than compute; `--workers` uses more cores.
        intra_op_parallelism: How many threads an operation of TensorFlow's may use. More make large
            requests faster while there is nothing else to do, and every request dearer.
        max_queued_requests: How many more may wait; further ones are refused with UNAVAILABLE.
        limits: How large a request may be.
        batching: How to batch; None runs every request alone.
        tls: For TLS on gRPC and REST; None listens in the clear.
        token: What callers must bring as bearer token; none if empty.
        admin_token: What callers of HandleReloadConfigRequest must bring.
        allowed_roots: Directories beneath which the base paths of a reload may lie; those that
            hold the base paths given here if empty.
        require_manifest: Whether a version without polyrank's push manifest is refused. What has a
            manifest is compared with it in any case.
        may_reload: Whether HandleReloadConfigRequest is answered.
        reuse_port: Whether other worker processes listen on the same ports.
        poll_seconds: How often to look for new versions.
        drain_seconds: How long requests under way may take after SIGTERM; then they are cancelled.
    """

    models: Mapping[str, Path] = field(default_factory=dict)
    configs: tuple[ModelConfig, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    port_file: Path | None = None
    rest_port: int | None = None
    metrics_port: int | None = None
    num_threads: int | None = None
    intra_op_parallelism: int = 1
    max_queued_requests: int = 64
    limits: Limits = field(default_factory=Limits)
    batching: BatchingOptions | None = None
    tls: TlsOptions | None = None
    token: str = field(default="", repr=False)
    admin_token: str = field(default="", repr=False)
    allowed_roots: tuple[Path, ...] = ()
    require_manifest: bool = False
    may_reload: bool = True
    reuse_port: bool = False
    poll_seconds: float = 0.5
    drain_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: There is no model, one has no name, a name comes twice, or a value is out
                of range.
        """
        # What is served stays what it was checked to be, whatever the caller does to its own.
        object.__setattr__(self, "models", dict(self.models))
        names = [config.name for config in self.model_configs()]
        if not names:
            raise _invalid("models", "at least one model", "none")
        if not all(names) or len(set(names)) < len(names):
            raise _invalid("models", "names that are not empty and all different", repr(names))
        if self.request_threads <= 0:
            raise _invalid("num_threads", "a positive number", self.num_threads)
        for name in ("intra_op_parallelism", "poll_seconds"):
            # Finite: no thread can wait for ever by a clock, nor for NaN.
            if not 0 < getattr(self, name) < math.inf:
                raise _invalid(name, "a positive, finite number", getattr(self, name))
        for name in ("drain_seconds", "max_queued_requests"):
            if not 0 <= getattr(self, name) < math.inf:
                raise _invalid(name, "0 or more, and finite", getattr(self, name))
        for name in ("port", "rest_port", "metrics_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise _invalid(name, "0 to 65535", getattr(self, name))

    def model_configs(self) -> list[ModelConfig]:
        """Returns all models: those with defaults, and those with configurations."""
        return [ModelConfig(name, path) for name, path in self.models.items()] + list(self.configs)

    @property
    def request_threads(self) -> int:
        """How many requests are worked on at once."""
        if self.num_threads is not None:
            return self.num_threads
        return 4 if self.batching is None else 32

    def reload_roots(self) -> list[Path]:
        """Returns the directories beneath which the base paths of a reload may lie."""
        if self.allowed_roots:
            return list(self.allowed_roots)
        return [config.base_path.resolve().parent for config in self.model_configs()]


def _invalid(option: str, constraint: str, received: object) -> ConfigError:
    return ConfigError(
        f"server option {option} is not valid", constraint=constraint, received=received
    )
