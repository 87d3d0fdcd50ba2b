"""Settings of the sharing architectures, one frozen class each, built by `models.architectures`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from models.spec.errors import unknown
from models.spec.strict import AsTuple, Strict
from models.spec.task import Task

Units = Annotated[tuple[Annotated[int, Field(ge=1)], ...], AsTuple]
Rate = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Guide:
    """What the documentation says of an architecture.

    Attributes:
        use_when: When to use it.
        look_at: What to look at in the report.
        paper: Where it comes from; empty without one.
    """

    use_when: str
    look_at: str
    paper: str = ""


class ArchitectureSettings(Strict):
    """Settings of one architecture."""

    guide: ClassVar[Guide]
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """Settings beside the defaults that the conformance tests build, one model each."""

    architecture: str
    dropout: Rate = Field(default=0.0, description="Share of units dropped while training.")

    def task_problems(self, tasks: Mapping[str, Task]) -> Iterator[str]:
        """Yields what does not fit the tasks that are trained.

        Args:
            tasks: The trained tasks by name.
        """
        del tasks
        yield from ()


class NetworkSettings(ArchitectureSettings):
    """A network of each task's own."""

    hidden_units: Units = Field(default=(128, 64), description="Layer widths of each network.")


class ExpertSettings(ArchitectureSettings):
    """Experts, and a tower of each task that reads a mixture of them."""

    expert_units: Units = Field(default=(128, 64), description="Layer widths of each expert.")
    tower_units: Units = Field(default=(32,), description="Layer widths of each task's tower.")


class SingleTask(NetworkSettings):
    """One network per task: the honest baseline."""

    guide: ClassVar[Guide] = Guide(
        use_when="every run, as the candidate that the others must beat",
        look_at="the comparisons, all of which are made against it",
    )

    architecture: Literal["single_task"]


class SharedBottom(ArchitectureSettings):
    """One trunk for all tasks, a tower per task (Caruana 1993)."""

    guide: ClassVar[Guide] = Guide(
        use_when="tasks that are much alike, or a tight latency budget",
        look_at="tasks that lose against `single_task`: they do not belong on this trunk",
        paper="Caruana, ICML 1993",
    )

    architecture: Literal["shared_bottom"]
    bottom_units: Units = Field(default=(128,), description="Layer widths of the shared trunk.")
    tower_units: Units = Field(default=(64,), description="Layer widths of each task's tower.")


class SoftSharing(NetworkSettings):
    """One network per task, whose weights are drawn towards each other."""

    guide: ClassVar[Guide] = Guide(
        use_when="few tasks with little data each, known to be alike",
        look_at="the penalty's curve: if it falls to 0 at once the tasks are one model; lower the "
        "weight",
        paper="Duong et al., ACL 2015 (`l2`); Yang & Hospedales, ICLR workshop 2017 (`trace_norm`)",
    )
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"penalty": "trace_norm"})

    architecture: Literal["soft_sharing"]
    penalty: Literal["l2", "trace_norm"] = Field(
        default="l2",
        description="l2: squared distance between the tasks' weights; trace_norm: nuclear norm of "
        "the tasks' weights stacked into one matrix. Per layer.",
    )
    penalty_weight: Annotated[float, Field(gt=0)] = Field(
        default=0.001, description="Weight of the penalty in the objective."
    )


class MixtureSettings(ExpertSettings):
    """Experts that gates choose among."""

    num_experts: Positive = Field(default=4, description="Number of experts.")
    gate: Literal["softmax", "top_k", "noisy_top_k"] = Field(
        default="softmax",
        description="softmax: every expert counts; top_k: the `top_k` largest; noisy_top_k: the "
        "same after learnt noise while training (Shazeer 2017).",
    )
    top_k: Positive | None = Field(
        default=None, description="Experts kept per row; for top_k and noisy_top_k, which need it."
    )
    importance_weight: Weight = Field(
        default=0.0,
        description="Weight of the balance loss on the experts' summed gate weights.",
    )
    load_weight: Weight = Field(
        default=0.0,
        description="Weight of the balance loss on the number of rows an expert is chosen for; "
        "for noisy_top_k.",
    )
    gate_dropout: Rate = Field(
        default=0.0, description="Share of gate weights dropped while training."
    )

    @model_validator(mode="after")
    def _check(self) -> MixtureSettings:
        if (self.gate == "softmax") != (self.top_k is None):
            raise ValueError(
                f"top_k is for the gates top_k and noisy_top_k, which need it; received gate "
                f"{self.gate} with top_k {self.top_k}"
            )
        if self.top_k is not None and self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        if self.load_weight and (self.gate != "noisy_top_k" or self.top_k == self.num_experts):
            raise ValueError(
                "load_weight needs gate: noisy_top_k with top_k below num_experts; use "
                "importance_weight"
            )
        return self


class Mmoe(MixtureSettings):
    """Multi-gate mixture of experts (Ma 2018)."""

    guide: ClassVar[Guide] = Guide(
        use_when="tasks that agree in part: the usual first choice for a feed",
        look_at="gate weights per task and slice: alike rows mean that one gate would do, an "
        "unused expert that there are too many",
        paper="Ma et al., KDD 2018; gates: Shazeer et al., ICLR 2017",
    )
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"importance_weight": 0.1},
        {"gate": "top_k", "top_k": 2},
        {"gate": "noisy_top_k", "top_k": 2, "importance_weight": 0.1, "load_weight": 0.1},
    )

    architecture: Literal["mmoe"]


class Omoe(MixtureSettings):
    """One-gate mixture of experts: the ablation of MMoE (Ma 2018)."""

    guide: ClassVar[Guide] = Guide(
        use_when="seeing whether the gains of `mmoe` come from the experts or from its gates",
        look_at="the difference to `mmoe`",
        paper="Ma et al., KDD 2018",
    )
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"gate": "noisy_top_k", "top_k": 2, "load_weight": 0.1},
    )

    architecture: Literal["omoe"]


class CrossStitch(NetworkSettings):
    """One network per task, mixed after each layer by learnt stitches (Misra 2016)."""

    guide: ClassVar[Guide] = Guide(
        use_when="few tasks, when you want to read off which task lends to which",
        look_at="the stitch matrices: rows that stay near the initial share took nothing",
        paper="Misra et al., CVPR 2016",
    )
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"stitch": "subspace", "num_subspaces": 2},
    )

    architecture: Literal["cross_stitch"]
    stitch: Literal["unit", "subspace"] = Field(
        default="unit", description="One mixing weight per task pair and unit, or and subspace."
    )
    num_subspaces: Positive | None = Field(
        default=None,
        description="Equal parts of a layer's units, each with a mixing weight of its own, for "
        "stitch subspace; 1 if absent.",
    )
    own_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="Initial weight of a task's own activation; the rest is shared."
    )

    @model_validator(mode="after")
    def _check(self) -> CrossStitch:
        if self.num_subspaces is not None and self.stitch != "subspace":
            raise ValueError("num_subspaces is for stitch: subspace")
        _check_subspaces(self.num_subspaces or 1, self.hidden_units)
        return self


class Sluice(ArchitectureSettings):
    """Networks per task that share subspaces (alpha) and mix their layers (beta) (Ruder 2019)."""

    guide: ClassVar[Guide] = Guide(
        use_when="loosely related tasks of different depth; it learns what, where and how much to "
        "share, at the price of more to learn",
        look_at="the alpha matrices between subspaces, and beta: which layer a task reads",
        paper="Ruder et al., AAAI 2019 (arXiv 1705.08142)",
    )
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"orthogonality_weight": 0.1},
        {"num_subspaces": 1, "num_layers": 3},
    )

    architecture: Literal["sluice"]
    num_layers: Positive = Field(default=2, description="Layers of each network.")
    units: Positive = Field(
        default=64, description="Width of every layer: layers of one width can be mixed."
    )
    num_subspaces: Positive = Field(
        default=2, description="Equal parts of a layer's units that are shared apart."
    )
    own_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="Initial weight of a subspace's own activation."
    )
    orthogonality_weight: Weight = Field(
        default=0.0,
        description="Weight of the penalty that keeps the subspaces of a layer apart.",
    )

    @model_validator(mode="after")
    def _check(self) -> Sluice:
        _check_subspaces(self.num_subspaces, (self.units,))
        if self.orthogonality_weight and self.num_subspaces == 1:
            raise ValueError("orthogonality_weight needs num_subspaces of 2 or more")
        return self


class ExtractionSettings(ExpertSettings):
    """Experts of each task beside shared ones."""

    task_experts: Positive = Field(default=2, description="Experts of each task alone.")
    shared_experts: Annotated[int, Field(ge=0)] = Field(
        default=2, description="Experts that every task reads."
    )
    expert_units: Units = Field(default=(64,), description="Layer widths of each expert.")


class Cgc(ExtractionSettings):
    """Customized gate control: experts of each task beside shared ones (Tang 2020)."""

    guide: ClassVar[Guide] = Guide(
        use_when="tasks that pull the experts of `mmoe` apart",
        look_at="how much of a task's gate goes to its own experts and how much to shared ones",
        paper="Tang et al., RecSys 2020, section 4.1",
    )

    architecture: Literal["cgc"]


class Ple(ExtractionSettings):
    """Progressive layered extraction: levels of customized gate control (Tang 2020)."""

    guide: ClassVar[Guide] = Guide(
        use_when="many rows and tasks that conflict; the largest of the mixtures",
        look_at="the gates of the last level, and the shared gate of those before it",
        paper="Tang et al., RecSys 2020, section 4.2",
    )
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"num_levels": 3, "task_experts": 1, "shared_experts": 1},
    )

    architecture: Literal["ple"]
    num_levels: Annotated[int, Field(ge=2)] = Field(
        default=2, description="Extraction levels; for one, use cgc."
    )


class Aitm(NetworkSettings):
    """Adaptive information transfer along a chain of tasks (Xi 2021)."""

    guide: ClassVar[Guide] = Guide(
        use_when="outcomes that follow on each other: click, basket, purchase",
        look_at="the attention of each later task on what it received, and the calibrator's curve",
        paper="Xi et al., KDD 2021",
    )

    architecture: Literal["aitm"]
    transfers: dict[str, str] = Field(
        default={},
        description="Task to the task that it receives from; by `conditioned_on` if empty.",
    )
    calibrator_weight: Weight = Field(
        default=0.6,
        description="Weight of the loss on a binary task's probability exceeding that of the task "
        "it receives from. It is 0 by itself between a task and the one it is conditioned on.",
    )

    @model_validator(mode="after")
    def _check(self) -> Aitm:
        if not self.hidden_units:
            raise ValueError(
                "hidden_units needs at least 1 layer: its output is what tasks pass on"
            )
        for task in self.transfers:
            chain = [task]
            while chain[-1] in self.transfers:
                chain.append(self.transfers[chain[-1]])
                if chain[-1] in chain[:-1]:
                    raise ValueError(f"transfers are cyclic: {' < '.join(chain)}")
        return self

    def task_problems(self, tasks: Mapping[str, Task]) -> Iterator[str]:
        """See `ArchitectureSettings.task_problems`."""
        if not self.transfers and not any(t.conditioned_on in tasks for t in tasks.values()):
            yield (
                "transfers: no task receives from another, which makes it single_task; name the "
                "transfers, or what a task is conditioned_on"
            )
        for to, source in self.transfers.items():
            for name in (to, source):
                if name not in tasks:
                    yield f"transfers: {unknown('trained task', name, tasks)}"
            served = [n for n in (to, source) if n in tasks and tasks[n].role == "served"]
            if served == [to]:
                yield (
                    f"transfers: the served task {to!r} receives from {source!r}, which is not "
                    "served and so not exported"
                )


def _check_subspaces(num_subspaces: int, widths: Units) -> None:
    for width in widths:
        if width % num_subspaces:
            raise ValueError(
                f"num_subspaces {num_subspaces} does not divide a layer of {width} units"
            )


ArchitectureConfig = Annotated[
    SingleTask | SharedBottom | SoftSharing | Mmoe | Omoe | CrossStitch | Sluice | Cgc | Ple | Aitm,
    Field(discriminator="architecture"),
]
