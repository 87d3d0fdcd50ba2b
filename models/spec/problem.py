"""Faults of a configuration, each with its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault of a configuration: where it is and what is wrong."""

    path: tuple[str | int, ...]
    message: str


class SpecProblems(ValueError):
    """Carries every fault found in a specification, with its place."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keeps the problems for the loader, which knows files and lines."""
        self.problems = problems
        super().__init__("; ".join(f"{'.'.join(map(str, p.path))}: {p.message}" for p in problems))
