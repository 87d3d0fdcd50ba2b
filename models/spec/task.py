"""Tasks: the outcomes items are ranked by, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from models.spec.strict import Names, Strict

TaskKind = Literal["binary", "duration", "count", "regression"]


class BinaryCrossEntropy(Strict):
    """Cross entropy of a Bernoulli outcome; the default of binary tasks."""

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"


class FakeNegativeWeighted(Strict):
    """Importance-weighted cross entropy for labels taken as they arrive (Ktena 2019, eq. 6)."""

    kind: Literal["fake_negative_weighted"] = "fake_negative_weighted"


class _Counterfactual(Strict):
    """Risk of a conditional over the entire space, from the rows where its parent happened."""

    weight: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="Weight beside the cross entropy of the entire-space product."
    )
    min_propensity: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.01,
        description="The parent's predicted probability is held above this: no row weighs more "
        "than its inverse.",
    )


class InversePropensity(_Counterfactual):
    """Seen outcomes weighed by inverse propensity (ESCM2-IPS, Wang 2022); needs conditioned_on."""

    kind: Literal["inverse_propensity"]


class DoublyRobust(_Counterfactual):
    """The same with an imputed error besides (ESCM2-DR, Wang 2022); needs conditioned_on."""

    kind: Literal["doubly_robust"]


class LogMse(Strict):
    """Squared error of log(1 + y); the default of duration tasks, served as a median-like value."""

    kind: Literal["log_mse"] = "log_mse"


class Quantile(Strict):
    """Pinball loss on log(1 + y) at one quantile; served as that quantile."""

    kind: Literal["quantile"]
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="Which quantile is predicted."
    )


class ZeroInflatedLogNormal(Strict):
    """Mixture of a point mass at 0 and a log-normal (Wang 2019); served as its mean."""

    kind: Literal["zero_inflated_log_normal"]


class MeanSquaredError(Strict):
    """Squared error; the default of regression tasks."""

    kind: Literal["mse"] = "mse"


class Huber(Strict):
    """Squared error near 0, linear beyond `delta`."""

    kind: Literal["huber"]
    delta: Annotated[float, Field(gt=0)] = Field(default=1.0, description="Where it turns linear.")


class Poisson(Strict):
    """Poisson likelihood with a log link; the default of count tasks."""

    kind: Literal["poisson"] = "poisson"


Loss = Annotated[
    BinaryCrossEntropy
    | FakeNegativeWeighted
    | InversePropensity
    | DoublyRobust
    | LogMse
    | Quantile
    | ZeroInflatedLogNormal
    | MeanSquaredError
    | Huber
    | Poisson,
    Field(discriminator="kind"),
]

COUNTERFACTUAL_LOSSES = (InversePropensity, DoublyRobust)
"""Losses that correct a conditional for where its parent happened."""

LOSSES_BY_KIND: dict[str, tuple[type[Strict], ...]] = {
    "binary": (BinaryCrossEntropy, FakeNegativeWeighted, InversePropensity, DoublyRobust),
    "duration": (LogMse, Quantile, ZeroInflatedLogNormal, MeanSquaredError, Huber),
    "count": (Poisson, LogMse, MeanSquaredError),
    "regression": (MeanSquaredError, Huber),
}
"""Losses allowed for a task kind, the default first."""


class Gate(Strict):
    """Bounds that a metric of a candidate must respect on the test split, or it is not pushed."""

    min: float | None = Field(default=None, description="The value must be at least this.")
    max: float | None = Field(default=None, description="The value must be at most this.")
    max_drop: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Against the model pushed for the newest earlier window on the same rows, a "
        "higher-is-better metric may fall by at most this.",
    )
    max_increase: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="The same for a lower-is-better metric."
    )


class Propensity(Strict):
    """Weighs rows by how unlikely it was that they were logged (Schnabel 2016, eq. 3).

    `w = 1 / max(p, clip)`: data that a policy selected then stand for data that it did not. The
    loss and the metrics divide by the sum of the weights, so the estimate is self-normalised
    (Swaminathan and Joachims 2015).
    """

    column: str = Field(
        description="Column with role weight: the probability, in (0, 1], with which the row came "
        "to be. Rows where it is missing or outside do not count."
    )
    clip: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.01,
        description="Probabilities below count as this: less variance for some bias.",
    )


class Task(Strict):
    """One outcome: target, sample space, loss, metrics and gates."""

    kind: TaskKind = Field(
        description="binary; duration (non-negative, in seconds); count; regression (any number)."
    )
    target: str = Field(description="The future column that holds the outcome.")
    role: Literal["served", "auxiliary"] = Field(
        default="served",
        description="served: gated and in the exported model; auxiliary: trained with the rest, "
        "absent from the export.",
    )
    mask: str | None = Field(
        default=None,
        description="A column that is true where the task applies (its sample space); rows where "
        "it is false or null contribute nothing to this task.",
    )
    conditioned_on: str | None = Field(
        default=None,
        description="A binary task that must happen first. The head then learns the conditional "
        "and the served value is the entire-space product (ESMM, Ma 2018, eq. 1).",
    )
    loss: Loss | None = Field(default=None, description="By kind if absent.")
    weight: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="Weight of the task's mean loss in the sum."
    )
    sample_weight: str | None = Field(
        default=None, description="A non-negative column that weighs rows of this task."
    )
    immature: Literal["mask", "fake_negative"] = Field(
        default="mask",
        description="Train rows whose attribution window has not closed. mask: they do not count. "
        "fake_negative: labels are taken as they arrive. Every impression of the train window is a "
        "negative at once, and every positive that arrives in it is one more row; the loss, "
        "fake_negative_weighted, corrects for the fake negatives (Ktena 2019). For binary tasks "
        "whose target joins a stream with aggregate any. The first attribution window of the train "
        "window gives its positives only.",
    )
    propensity: Propensity | None = Field(
        default=None, description="Inverse-propensity weights of this task's rows."
    )
    negative_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Share of a binary task's negatives that it trains on, chosen by a hash of the "
        "impression's key. Predictions stay those of the whole population: the loss corrects the "
        "logit by the rate. Validation and test keep every row.",
    )
    metrics: Names | None = Field(
        default=None, description="Reported metrics; every one that applies if absent."
    )
    gates: dict[str, Gate] = Field(
        default={}, description="Bounds per metric; a served task needs at least one."
    )
    description: str = Field(
        default="", description="A note for readers of the file; nothing else uses it."
    )

    @property
    def resolved_loss(self) -> Strict:
        """The declared loss, or the default of the task's kind."""
        if self.loss is not None:
            return self.loss
        return LOSSES_BY_KIND[self.kind][self.takes_fake_negatives]()

    @property
    def takes_fake_negatives(self) -> bool:
        """Whether train labels are taken as they arrive."""
        return self.immature == "fake_negative"


@dataclass(frozen=True)
class Output:
    """One served output of a task, in its sample space; derived, never declared.

    A task without `conditioned_on` has one output of its own name. One with it has two: the
    entire-space value `<task>` and the conditional `<task>_given_<parent>`.

    Attributes:
        name: Output name in signatures, metrics, predictions and dashboards.
        task: The task's name.
        kind: The task's kind.
        space: ``declared`` (the task's mask), ``entire`` or ``conditional``.
        metrics: Names of its metrics.
        gates: Bounds per metric; those of a conditioned task apply to the entire-space output.
    """

    name: str
    task: str
    kind: TaskKind
    space: Literal["declared", "entire", "conditional"]
    metrics: tuple[str, ...]
    gates: tuple[tuple[str, Gate], ...]

    @property
    def label_key(self) -> str:
        """Example feature that holds the label: float32, finite, 0 where masked."""
        return f"{self.name}__label"

    @property
    def mask_key(self) -> str:
        """Example feature that is 1 where the label counts, else 0."""
        return f"{self.name}__mask"

    @property
    def weight_key(self) -> str:
        """Example feature with mask times sample weight."""
        return f"{self.name}__weight"
