"""Settings of the balancers, which weigh tasks against each other while training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.spec.strict import Strict

Positive = Annotated[float, Field(gt=0)]


class Fixed(Strict):
    """The same weights throughout."""

    kind: Literal["fixed"] = "fixed"
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="Weight by task; the task's declared weight if absent."
    )


class Equal(Strict):
    """Weight 1 for every task, whatever is declared: the baseline of every other balancer."""

    kind: Literal["equal"]


class Uncertainty(Strict):
    """Learns a noise level per task and divides its loss by it (Kendall 2018)."""

    kind: Literal["uncertainty"]


class DynamicWeightAverage(Strict):
    """More weight for tasks whose loss falls slowly from epoch to epoch (DWA, Liu 2019)."""

    kind: Literal["dwa"]
    temperature: Positive = Field(
        default=2.0, description="Softness of the weights: large values bring them together."
    )


class GradNorm(Strict):
    """Weights that bring the tasks' gradients to comparable sizes (Chen 2018)."""

    kind: Literal["grad_norm"]
    alpha: Annotated[float, Field(ge=0)] = Field(
        default=1.5, description="How strongly tasks that learn slowly are favoured; 0 not at all."
    )
    learning_rate: Positive = Field(default=0.025, description="Step size of the weights.")


class PcGrad(Strict):
    """Projects each task's gradient off those it conflicts with (Yu 2020)."""

    kind: Literal["pcgrad"]


class TunedScalarization(Strict):
    """Fixed weights found by search: every comparison of balancers should include it.

    Trial 0 takes the declared weights; every other multiplies each of them by a factor drawn
    log-uniformly from `[1 / spread, spread]`. The trial with the best objective on validation
    gives the weights of the training proper.
    """

    kind: Literal["tuned"]
    trials: Annotated[int, Field(ge=2)] = Field(
        default=8, description="Trainings that the search may spend."
    )
    epochs: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Length of a trial; early stopping applies."
    )
    spread: Annotated[float, Field(gt=1)] = Field(
        default=5.0, description="Largest factor on a declared weight."
    )


BalancerConfig = Annotated[
    Fixed | Equal | Uncertainty | DynamicWeightAverage | GradNorm | PcGrad | TunedScalarization,
    Field(discriminator="kind"),
]


class Optimizers(Strict):
    """Optimizers of the parts of a model, each with a learning rate of its own.

    Tables step with `embedding`, the variables that belong to one task alone (its gates, towers
    and head) with that task's rate, and the rest with `dense`.
    """

    dense: Literal["adam", "adagrad", "sgd"] = Field(
        default="adam", description="Optimizer of everything but the embedding tables."
    )
    embedding: Literal["lazy_adam", "adagrad", "sgd"] = Field(
        default="lazy_adam",
        description="Optimizer of the embedding tables. All of them leave rows alone that a batch "
        "did not look up.",
    )
    task_learning_rates: dict[str, Positive] = Field(
        default={},
        description="Step size of a task's own variables, by task; `learning_rate` if absent.",
    )
