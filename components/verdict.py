"""The form every gate answers in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE_NAME = "gate.json"


@dataclass(frozen=True)
class Verdict:
    """What a gate decided.

    Attributes:
        gate: Name of the gate.
        passed: Whether it lets the run (or the candidate) go on.
        reasons: One sentence per refusal: what, the limit, the value, the remedy.
        details: Figures behind the decision, JSON values only.
    """

    gate: str
    passed: bool
    reasons: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def write_verdict(directory: str, verdict: Verdict) -> None:
    """Writes `gate.json` into an artifact's directory."""
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    (path / FILE_NAME).write_text(json.dumps(asdict(verdict), indent=1, sort_keys=True))


def read_verdict(directory: str) -> Verdict:
    """Reads `gate.json` from an artifact's directory.

    Raises:
        FileNotFoundError: The gate did not run.
    """
    raw = json.loads((Path(directory) / FILE_NAME).read_text())
    return Verdict(raw["gate"], raw["passed"], tuple(raw["reasons"]), raw["details"])
