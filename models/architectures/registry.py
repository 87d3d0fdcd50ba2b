"""Architectures by the name that configurations use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from models.architectures.abstract import Architecture
from models.architectures.aitm import AitmArchitecture
from models.architectures.cgc import CgcArchitecture
from models.architectures.cross_stitch import CrossStitchArchitecture
from models.architectures.mmoe import MmoeArchitecture
from models.architectures.omoe import OmoeArchitecture
from models.architectures.ple import PleArchitecture
from models.architectures.shared_bottom import SharedBottomArchitecture
from models.architectures.single_task import SingleTaskArchitecture
from models.architectures.sluice import SluiceArchitecture
from models.architectures.soft_sharing import SoftSharingArchitecture
from models.spec.architecture import ArchitectureConfig

ARCHITECTURES: MappingProxyType[str, type[Architecture]] = MappingProxyType(
    {
        "single_task": SingleTaskArchitecture,
        "shared_bottom": SharedBottomArchitecture,
        "soft_sharing": SoftSharingArchitecture,
        "mmoe": MmoeArchitecture,
        "omoe": OmoeArchitecture,
        "cross_stitch": CrossStitchArchitecture,
        "sluice": SluiceArchitecture,
        "cgc": CgcArchitecture,
        "ple": PleArchitecture,
        "aitm": AitmArchitecture,
    }
)


def build_architecture(
    config: ArchitectureConfig,
    tasks: Sequence[str],
    seed: int,
    parents: Mapping[str, str] | None = None,
) -> Architecture:
    """Builds the declared architecture.

    Args:
        config: Its settings.
        tasks: Names of the tasks.
        seed: Seed of initialisation, noise and dropout.
        parents: Task to the task that it is conditioned on.
    """
    name = config.architecture
    return ARCHITECTURES[name](config, tasks, seed=seed, parents=parents, name=name)
