"""Small architectures of every kind and setting, and what their tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.architectures.abstract import Architecture
from models.architectures.registry import ARCHITECTURES, build_architecture

TASKS = ("click", "watch", "buy", "like", "hide", "share")
PARENTS = {"buy": "click", "share": "buy", "hide": "click"}
WIDTH = 12


@dataclass(frozen=True)
class Case:
    """One architecture with one of the example settings of its settings class."""

    name: str
    number: int

    @property
    def settings(self) -> dict[str, Any]:
        return small(self.name) | dict(ARCHITECTURES[self.name].config_class.examples[self.number])

    def build(self, tasks: Sequence[str] = TASKS, seed: int = 3, **config: Any) -> Architecture:
        return build(self.name, tasks, seed, **(self.settings | config))

    def __str__(self) -> str:
        return f"{self.name}-{self.number}" if self.number else self.name


CASES = [
    Case(name, number)
    for name, architecture in sorted(ARCHITECTURES.items())
    for number in range(len(architecture.config_class.examples))
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def small(name: str) -> dict[str, Any]:
    """Every layer of an architecture, made narrow."""
    fields = ARCHITECTURES[name].config_class.model_fields
    found: dict[str, Any] = {
        n: [WIDTH] * len(f.default) for n, f in fields.items() if isinstance(f.default, tuple)
    }
    return found | ({"units": WIDTH} if "units" in fields else {})


def build(name: str, tasks: Sequence[str] = TASKS, seed: int = 3, **config: Any) -> Architecture:
    settings = ARCHITECTURES[name].config_class.model_validate({"architecture": name} | config)
    parents = {task: parent for task, parent in PARENTS.items() if {task, parent} <= set(tasks)}
    return build_architecture(settings, tasks, seed, parents)


def features(num_rows: int = 16, seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        group: tf.constant(rng.normal(size=(num_rows, width)), tf.float32)
        for group, width in (("main", 6), ("item", 5))
    }


def total(outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return tf.add_n(
        [tf.reduce_mean(tf.square(tf.cast(y, tf.float32) - 1)) for y in outputs.values()]
    )


def assert_same(
    a: Mapping[str, tf.Tensor], b: Mapping[str, tf.Tensor], tolerance: float = 0.0
) -> None:
    assert set(a) == set(b)
    for task in a:
        np.testing.assert_allclose(a[task].numpy(), b[task].numpy(), rtol=tolerance, atol=tolerance)


def copy_variables(to: Sequence[tf.Variable], source: Sequence[tf.Variable]) -> None:
    for a, b in zip(to, source, strict=True):
        a.assign(b)
