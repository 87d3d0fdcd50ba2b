"""The port that a server listens on: where it cannot, and how others learn of it."""

from __future__ import annotations

import os
from pathlib import Path

from models.spec.errors import ConfigError
from serving.errors import UnavailableError


def cannot_listen(host: str, port: int) -> UnavailableError:
    """Says that a port is taken, or that the host is not this machine's."""
    return UnavailableError(
        f"cannot listen on {host}:{port}",
        constraint="a free port of this machine",
        remedy="choose another port, or 0 to have one picked",
    )


def write_port_file(path: Path, port: int) -> None:
    """Writes a port to a file, whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        write_whole(path, f"{port}\n")
    except OSError as error:
        raise ConfigError(
            f"the port file {path} cannot be written",
            received=error.strerror,
            remedy="name a file in a directory that exists",
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Writes a file that readers see whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
