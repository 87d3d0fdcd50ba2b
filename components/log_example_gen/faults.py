"""Carries a user's error out of Beam, whose workers report exceptions as text."""

from __future__ import annotations

import base64
import json
import re

from models.spec.errors import ConfigError, DataError, PolyrankError, Refused

_MARK = re.compile(r"polyrank-fault:([A-Za-z0-9+/=]+):end")
_KINDS: dict[str, type[PolyrankError]] = {
    kind.__name__: kind for kind in (PolyrankError, ConfigError, DataError, Refused)
}


class WorkerFault(RuntimeError):
    """A `PolyrankError` on its way out of a worker; its text holds the error."""

    def __init__(self, error: PolyrankError | str) -> None:
        """Writes the error down, or keeps the text that Beam made of it."""
        super().__init__(error if isinstance(error, str) else f"{error} {_written(error)}")


def find_fault(error: BaseException) -> PolyrankError | None:
    """Finds the user's error in whatever Beam raised.

    Args:
        error: What the pipeline raised.

    Returns:
        The error that a worker had raised as `WorkerFault`, or None.
    """
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, PolyrankError):
            return current
        match = _MARK.search(str(current))
        if match is not None:
            kind, what, constraint, received, remedy = json.loads(base64.b64decode(match[1]))
            return _KINDS[kind](what, constraint=constraint, received=received, remedy=remedy)
        current = current.__cause__ or current.__context__
    return None


def _written(error: PolyrankError) -> str:
    kind = next((k.__name__ for k in type(error).__mro__ if k.__name__ in _KINDS), "PolyrankError")
    parts = [kind, error.what, error.constraint, str(error.received), error.remedy]
    return f"polyrank-fault:{base64.b64encode(json.dumps(parts).encode()).decode()}:end"
