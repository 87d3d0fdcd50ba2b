"""What both sides train, written once."""

from __future__ import annotations

from pathlib import Path

from models.spec.architecture import Mmoe
from models.spec.training import Candidate, Training

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "census" / "config.yaml"
TASKS = ("income", "never_married")
NUM_EPOCHS = 4
MODEL = Mmoe(architecture="mmoe", num_experts=4, expert_units=(128, 64), tower_units=(32,))
CANDIDATE = Candidate(model=MODEL)
TRAINING = Training(batch_size=2048, epochs=NUM_EPOCHS, learning_rate=1e-3)
