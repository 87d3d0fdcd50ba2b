"""Errors a user can act on: what is wrong, the constraint, what was received, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PolyrankError(Exception):
    """A fault that the user can mend, told in one line.

    Args:
        what: What is wrong, naming the file, column, task or option.
        constraint: The rule that was broken.
        received: What was found instead.
        remedy: What to do about it.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, constraint: str = "", received: object = "", remedy: str = ""
    ) -> None:
        """Stores the parts and joins them into the message."""
        self.what = what
        self.constraint = constraint
        self.received = received
        self.remedy = remedy
        parts = [what.rstrip(".")]
        if constraint:
            parts.append(f"expected {constraint}")
        if received != "":
            parts.append(f"received {received}")
        if remedy:
            parts.append(f"remedy: {remedy}")
        super().__init__("; ".join(parts))


class ConfigError(PolyrankError):
    """The configuration is not valid (exit code 2)."""

    exit_code = 2


class DataError(PolyrankError):
    """The logs cannot be used as declared (exit code 2)."""

    exit_code = 2


class Refused(PolyrankError):
    """A gate refused before or after training (exit code 3)."""

    exit_code = 3


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Names the closest allowed value, for the end of an error message.

    Args:
        name: What the user wrote.
        allowed: The valid names.

    Returns:
        ``", did you mean 'x'?"`` or the empty string when nothing is close.
    """
    matches = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f", did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Says that a name is not known, what is allowed, and the nearest valid name.

    Args:
        kind: What is named: column, stream, task, ...
        name: What the user wrote.
        allowed: The valid names.
    """
    names = sorted(allowed)
    return f"unknown {kind} {name!r}; allowed: {', '.join(names) or 'none'}{nearest(name, names)}"
