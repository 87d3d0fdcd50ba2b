"""What the pipeline tells the trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.spec.balancer import BalancerConfig, Fixed, TunedScalarization
from models.spec.errors import ConfigError
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate, Training


@dataclass(frozen=True)
class TrainerSettings:
    """The parsed `custom_config` of the Trainer.

    Attributes:
        name: Name of the candidate.
        ranking: Features and tasks.
        training: Settings shared by the candidates.
        candidate: The candidate's own.
        objective: Weight by ``<output>.<metric>``.
        checkpoint_dir: Folder of checkpoints, outside the artifacts.
    """

    name: str
    ranking: RankingSpec
    training: Training
    candidate: Candidate
    objective: dict[str, float]
    checkpoint_dir: Path

    @property
    def balancer(self) -> BalancerConfig:
        """The balancer of this candidate."""
        return self.candidate.balancer or self.training.balancer

    def with_balancer(self, balancer: BalancerConfig) -> TrainerSettings:
        """Returns these settings with another balancer."""
        return replace(self, candidate=self.candidate.model_copy(update={"balancer": balancer}))

    def trial(self, weights: Fixed, index: int) -> TrainerSettings:
        """Returns the settings of one trial of a search for weights: shorter, on its own."""
        assert isinstance(self.balancer, TunedScalarization)
        return replace(
            self.with_balancer(weights),
            training=self.training.model_copy(update={"epochs": self.balancer.epochs}),
            checkpoint_dir=self.checkpoint_dir / f"trial_{index}",
        )

    @classmethod
    def parse(cls, custom_config: Mapping[str, Any]) -> TrainerSettings:
        """Parses the dictionary: specifications as JSON text, the rest as text.

        Raises:
            ConfigError: A key is missing.
        """
        wanted = ("name", "ranking", "training", "candidate", "objective", "checkpoint_dir")
        missing = [key for key in wanted if key not in custom_config]
        if missing:
            raise ConfigError(
                "the trainer's custom_config is incomplete",
                constraint=f"the keys {', '.join(wanted)}",
                received=f"no {', '.join(missing)}",
                remedy="build the pipeline with pipeline.create.create_pipeline",
            )
        return cls(
            name=custom_config["name"],
            ranking=RankingSpec.model_validate_json(custom_config["ranking"]),
            training=Training.model_validate_json(custom_config["training"]),
            candidate=Candidate.model_validate_json(custom_config["candidate"]),
            objective=json.loads(custom_config["objective"]),
            checkpoint_dir=Path(custom_config["checkpoint_dir"]),
        )
