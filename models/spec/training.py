"""How a candidate is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.spec.architecture import ArchitectureConfig, Units
from models.spec.balancer import BalancerConfig, Fixed, Optimizers
from models.spec.strict import Strict

Precision = Literal["float32", "bfloat16"]
"""Types that dense layers may compute in."""


class Candidate(Strict):
    """One model to train: an architecture and what is particular to this candidate."""

    model: ArchitectureConfig = Field(description="The architecture and its settings.")
    auxiliary: bool = Field(
        default=True,
        description="false trains without the auxiliary tasks: the off side of an ablation.",
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Overrides `training.learning_rate`."
    )
    balancer: BalancerConfig | None = Field(
        default=None, description="Overrides `training.balancer`."
    )


class Training(Strict):
    """Optimisation settings shared by the candidates."""

    batch_size: Annotated[int, Field(ge=1)] = Field(default=2048, description="Rows per step.")
    epochs: Annotated[int, Field(ge=1)] = Field(default=10, description="At most this many.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        default=1e-3, description="Step size of the dense layers."
    )
    embedding_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Step size of embedding tables; learning_rate if absent."
    )
    optimizers: Optimizers = Field(
        default=Optimizers(), description="Which optimizer steps which part, and at what rate."
    )
    balancer: BalancerConfig = Field(
        default=Fixed(), description="How tasks are weighed against each other."
    )
    embedding_l2: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="L2 penalty on the embeddings looked up in a batch, mean per row."
    )
    patience: Annotated[int, Field(ge=1)] = Field(
        default=2,
        description="Stop after this many epochs without a better objective on validation; the "
        "best epoch's weights are exported.",
    )
    interaction: Literal["none", "dot", "cross"] = Field(
        default="none",
        description="Explicit feature interaction before the architecture: pairwise dot products "
        "(DLRM) or one cross layer (DCN v2), from TensorFlow Recommenders.",
    )
    decision_units: Units = Field(
        default=(16,),
        description="Layer widths of the tower of decision columns with role feature (position): "
        "it is added to the logits of binary tasks while training and dropped when served.",
    )
    shuffle_buffer: Annotated[int, Field(ge=1)] = Field(
        default=100_000,
        description="Rows shuffled together when train rows are streamed; rows kept in memory are "
        "shuffled as a whole.",
    )
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=2_000_000_000,
        description="Decoded train rows are kept in memory between epochs if they fit in this.",
    )
    precision: Precision = Field(
        default="float32",
        description="Type in which dense layers compute, in training and in the exported model. "
        "Variables, embedding tables, losses and served outputs are float32 either way.",
    )
    xla: bool = Field(
        default=False,
        description="Compile the exported model from looked-up ids to outputs with XLA: few fused "
        "kernels on a GPU. Each new number of rows is compiled when it is first asked for, so "
        "batch with `allowed_batch_sizes`; and output_filter saves no computation.",
    )
    seed: int = Field(default=0, description="Seed of initialisation, shuffling and dropout.")
