"""Which models to serve, from where, and which of their versions: a server's configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from models.spec.errors import ConfigError
from serving.api.messages import ModelServerConfig
from serving.server import errors

_PLATFORM = "tensorflow"


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions under a base path to serve. Without values: all of them.

    Attributes:
        num_latest: Serve so many of the newest versions.
        specific: Serve these versions.
    """

    num_latest: int | None = None
    specific: frozenset[int] | None = None

    def wanted(self, found: Iterable[int]) -> list[int]:
        """Chooses from the versions that are there, the newest first."""
        newest_first = sorted(found, reverse=True)
        if self.specific is not None:
            return [version for version in newest_first if version in self.specific]
        return newest_first if self.num_latest is None else newest_first[: self.num_latest]

    @property
    def may_go_back(self) -> bool:
        """Whether an older version may stand in when no wanted one loads."""
        return self.num_latest is not None


LATEST = VersionPolicy(num_latest=1)
"""TF Serving's default policy."""


@dataclass(frozen=True)
class ModelConfig:
    """One model of a server.

    Attributes:
        name: The name that requests ask for.
        base_path: Directory with one numbered directory per version.
        policy: Which versions to serve.
        labels: Versions by label, e.g. ``{"stable": 1, "canary": 2}``.
    """

    name: str
    base_path: Path
    policy: VersionPolicy = LATEST
    labels: Mapping[str, int] = field(default_factory=dict)


def model_configs(config_list: Any) -> list[ModelConfig]:
    """Reads a ModelConfigList.

    Raises:
        StatusError: INVALID_ARGUMENT for a model without name, a name that comes twice, a relative
            base path, a platform other than tensorflow, or an unusable policy.
    """
    configs: dict[str, ModelConfig] = {}
    for proto in config_list.config:
        if proto.name in configs:
            raise errors.repeated_model(proto.name)
        configs[proto.name] = _model_config(proto)
    return list(configs.values())


def _model_config(proto: Any) -> ModelConfig:
    if not proto.name:
        raise errors.invalid_config("a model has no name")
    if proto.model_platform != _PLATFORM:
        raise errors.invalid_config(
            f"model {proto.name} has platform {proto.model_platform!r}; "
            f"only {_PLATFORM!r} is supported"
        )
    if not proto.base_path.startswith("/") or "\0" in proto.base_path:
        raise errors.relative_base_path(proto.name, proto.base_path)
    return ModelConfig(
        name=proto.name,
        base_path=Path(proto.base_path),
        policy=_policy(proto),
        labels=dict(proto.version_labels),
    )


def _policy(proto: Any) -> VersionPolicy:
    policy = proto.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy()
    if choice == "specific":
        if not policy.specific.versions:
            raise errors.invalid_config(f"model {proto.name} asks for specific versions, but none")
        return VersionPolicy(specific=frozenset(policy.specific.versions))
    return VersionPolicy(num_latest=policy.latest.num_versions or 1)


def read_model_config_file(path: Path) -> list[ModelConfig]:
    """Reads TF Serving's model config file, a ModelServerConfig in text form.

    Raises:
        ConfigError: The file cannot be read, does not parse or describes no models.
    """
    remedy = "write model_config_list { config { name: ... base_path: ... } }"
    try:
        config = text_format.Parse(path.read_text(), ModelServerConfig())
        configs = model_configs(config.model_config_list)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", received=error.strerror) from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is no model config file", received=str(error), remedy=remedy
        ) from None
    except errors.StatusError as error:
        raise ConfigError(f"{path} is not valid", received=error.message) from None
    if not configs:
        raise ConfigError(f"{path} lists no model", remedy=remedy)
    return configs


def check_allowed(base_path: Path, roots: Sequence[Path]) -> None:
    """Confines a base path that came over the network to directories of the operator's choice.

    Links and ``..`` are followed first, so that neither leads outside.

    Args:
        base_path: The base path; it may not exist yet.
        roots: Directories beneath which base paths may lie.

    Raises:
        StatusError: PERMISSION_DENIED if it lies beneath none of them.
    """
    try:
        resolved = base_path.resolve()
    except (OSError, RuntimeError):  # links that lead in a circle lead nowhere
        raise errors.base_path_not_allowed(str(base_path)) from None
    for root in roots:
        if resolved.is_relative_to(root.resolve()):
            return
    raise errors.base_path_not_allowed(str(base_path))
