"""Architectures by the name that configurations use."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from models.architectures.abstract import Architecture
from models.architectures.cross_stitch import CrossStitchArchitecture
from models.architectures.mmoe import MmoeArchitecture
from models.architectures.shared_bottom import SharedBottomArchitecture
from models.architectures.single_task import SingleTaskArchitecture
from models.spec.architecture import ArchitectureConfig

ARCHITECTURES: MappingProxyType[str, type[Architecture]] = MappingProxyType(
    {
        "single_task": SingleTaskArchitecture,
        "shared_bottom": SharedBottomArchitecture,
        "mmoe": MmoeArchitecture,
        "cross_stitch": CrossStitchArchitecture,
    }
)


def build_architecture(config: ArchitectureConfig, tasks: Sequence[str], seed: int) -> Architecture:
    """Builds the declared architecture.

    Args:
        config: Its settings.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """
    return ARCHITECTURES[config.architecture](config, tasks, seed=seed, name=config.architecture)
