"""Settings of the sharing architectures, one frozen class each, built by `models.architectures`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.spec.strict import AsTuple, Strict

Units = Annotated[tuple[Annotated[int, Field(ge=1)], ...], AsTuple]
Rate = Annotated[float, Field(ge=0, lt=1)]


class SingleTask(Strict):
    """One network per task: the honest baseline."""

    architecture: Literal["single_task"]
    hidden_units: Units = Field(default=(128, 64), description="Layer widths of each network.")
    dropout: Rate = Field(default=0.0, description="Share of units dropped while training.")


class SharedBottom(Strict):
    """One trunk for all tasks, a tower per task (Caruana 1993)."""

    architecture: Literal["shared_bottom"]
    bottom_units: Units = Field(default=(128,), description="Layer widths of the shared trunk.")
    tower_units: Units = Field(default=(64,), description="Layer widths of each task's tower.")
    dropout: Rate = Field(default=0.0, description="Share of units dropped while training.")


class Mmoe(Strict):
    """Multi-gate mixture of experts (Ma 2018)."""

    architecture: Literal["mmoe"]
    num_experts: Annotated[int, Field(ge=1)] = Field(default=4, description="Number of experts.")
    expert_units: Units = Field(default=(128, 64), description="Layer widths of each expert.")
    tower_units: Units = Field(default=(32,), description="Layer widths of each task's tower.")
    gate_dropout: Rate = Field(
        default=0.0, description="Share of gate weights dropped while training."
    )
    dropout: Rate = Field(default=0.0, description="Share of units dropped while training.")


class CrossStitch(Strict):
    """One network per task, mixed after each layer by learnt stitches (Misra 2016)."""

    architecture: Literal["cross_stitch"]
    hidden_units: Units = Field(default=(128, 64), description="Layer widths of each network.")
    stitch: Literal["unit", "subspace"] = Field(
        default="unit", description="One mixing weight per unit, or per task pair."
    )
    own_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="Initial weight of a task's own activation; the rest is shared."
    )
    dropout: Rate = Field(default=0.0, description="Share of units dropped while training.")


ArchitectureConfig = Annotated[
    SingleTask | SharedBottom | Mmoe | CrossStitch, Field(discriminator="architecture")
]
