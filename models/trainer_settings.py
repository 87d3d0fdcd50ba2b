"""What the pipeline tells the trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
