"""The configuration: one frozen, strict model of a YAML file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from components.data_gate.limits import Limits
from components.log_example_gen.spec import Logs, Splits
from models.spec.anomaly import AnomalyKind
from models.spec.balancer import BalancerConfig, Fixed
from models.spec.column import Column
from models.spec.errors import unknown
from models.spec.expression import referenced_columns
from models.spec.feature import DerivedFeature
from models.spec.metric import METRICS, default_metrics
from models.spec.privacy import Privacy
from models.spec.problem import Problem, SpecProblems
from models.spec.ranking import IMPRESSIONS, RankingSpec, Score
from models.spec.strict import AsTuple, DurationMs, Names, SizeBytes, Strict
from models.spec.task import Task
from models.spec.training import Candidate, Training
from pipeline.privacy_problems import pii_features, privacy_problems
from serving.deploy.spec import Deploy


class Evaluation(Strict):
    """What is measured on the test split, and what is too little to measure on."""

    slices: Annotated[tuple[Names, ...], AsTuple] = Field(
        default=(),
        description="Slices: a string or int request column, or a list of them to cross.",
    )
    lags: Annotated[tuple[DurationMs, ...], AsTuple] = Field(
        default=(),
        description="Lags such as [0s, 5m, 1h]: the champion is measured on the test split with "
        "every computed as-of feature delayed by each of them instead of its availability_lag. "
        "Each lag ingests the logs once more.",
    )
    num_replicates: Annotated[int, Field(ge=20)] = Field(
        default=200, description="Bootstrap replicates of the intervals; users are resampled."
    )
    seed: int = Field(default=0, description="Seed of the bootstrap.")
    min_rows: Annotated[int, Field(ge=1)] = Field(
        default=500,
        description="A gated task with fewer mature test rows is refused: too little evidence.",
    )
    min_positives: Annotated[int, Field(ge=1)] = Field(
        default=50, description="The same for the positives of a gated binary task."
    )


class DataChecks(Strict):
    """Limits of the DataGate and of the data side of the LeakageGate."""

    max_dead_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05, description="Refuse when more than this share of a stream's rows is dead."
    )
    max_drift: Annotated[float, Field(gt=0)] = Field(
        default=0.3,
        description="Refuse when a request feature's distribution moved more than this against "
        "the previous window (L-infinity for strings, Jensen-Shannon for numbers).",
    )
    max_new_category: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.01,
        description="Refuse when a value of a string feature that the previous window did not have "
        "takes more than this share of the values. Users, items, slates and other keys are exempt.",
    )
    max_unit_ratio: Annotated[float, Field(gt=1)] = Field(
        default=10.0,
        description="Refuse when the median and the standard deviation of a number are this many "
        "times larger or smaller than in the previous window: another unit.",
    )
    max_join_drop: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1,
        description="Refuse when the share of a stream's events that belong to an impression fell "
        "by more than this, in the days since the previous window.",
    )
    max_clock_drift: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1,
        description="Refuse when a log's hours of day fit the previous window's better by more "
        "than this after turning them (total variation), or when the delays of its events moved "
        "more than this (Kolmogorov-Smirnov).",
    )
    max_volume_drop: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5,
        description="Refuse when a day since the previous window has fewer rows of a log than the "
        "median day before, by more than this share.",
    )
    waived: dict[str, Annotated[tuple[AnomalyKind, ...], AsTuple]] = Field(
        default={},
        description="Changes against the previous window that are reported and pass: by name of a "
        "column, feature, task or log the kinds `vanished`, `new_category`, `unit_change`, "
        "`distribution`, `label_rate`, `broken_join`, `clock_shift`, `volume_drop`. Say why in a "
        "comment.",
    )
    max_single_feature_auc: Annotated[float, Field(gt=0.5, le=1)] = Field(
        default=0.95,
        description="A request column that alone separates a served binary task this well (or "
        "orders a served real-valued one) is refused as a leak unless suspicion_waived.",
    )
    max_skew: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1,
        description="Refuse when a logged feature (source: logged) differs from our own "
        "computation of it, as-of and with its declared lag, in more than this share of a split's "
        "rows.",
    )
    audit_rows: Annotated[int, Field(ge=1)] = Field(
        default=300,
        description="Rows whose as-of features and labels are recomputed from the raw logs by an "
        "independent query.",
    )


class ServingCheckConfig(Strict):
    """The check of the exported model behind a real server."""

    num_rows: Annotated[int, Field(ge=1000)] = Field(
        default=1000,
        description="Test rows sent to the server and compared; all of them where there are fewer.",
    )


class Push(Strict):
    """Where a blessed champion goes."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = Field(
        default=None, description="Name in serving; the pipeline's name if absent."
    )
    memory_bytes: SizeBytes | None = Field(
        default=None,
        description="Memory that a server has for the model ('8GiB'), on its GPU if it has one. A "
        "model larger than half of it is refused, because two versions are loaded during a swap.",
    )
    allow_older: bool = Field(
        default=False,
        description="Push although the version that is served comes from a newer window. Without "
        "it a run for an earlier --date is measured and reported, but does not replace a newer "
        "model.",
    )


REFUSED_RUNNERS = {
    "DaskRunner": "it loses rows without an error (partitions, several outputs, file writes); use "
    "FnApiRunner, FlinkRunner, SparkRunner or DataflowRunner",
    "DirectRunner": "it hands over to PrismRunner, which downloads a program when it starts; use "
    "FnApiRunner",
    "PrismRunner": "it downloads a program when it starts; use FnApiRunner",
    "SwitchingDirectRunner": "it may hand over to PrismRunner, which downloads a program when it "
    "starts; use FnApiRunner",
}
"""Runners of Beam that are refused, and why."""

_OWN_ARGUMENTS = frozenset({"--runner", "--direct_num_workers", "--direct_running_mode"})


class Beam(Strict):
    """How Beam runs the data work."""

    runner: Literal["FnApiRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"] = Field(
        default="FnApiRunner",
        description="FnApiRunner works in this process and its children. The others are clusters: "
        "their arguments go into `arguments`. Runners that lose rows or fetch programs are refused "
        "by name.",
    )
    num_shards: Annotated[int, Field(ge=1)] = Field(
        default=4,
        description="Keyed shards of the joins and files per split, at least. Large logs get more: "
        "a worker holds one shard in memory, so there is one for every 32 MiB of Parquet.",
    )
    direct_num_workers: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Workers of FnApiRunner; clusters have arguments of their own."
    )
    direct_running_mode: Literal["multi_threading", "multi_processing"] = Field(
        default="multi_threading",
        description="What several workers of FnApiRunner are. Processes use cores that threads "
        "cannot, but take some seconds to start.",
    )
    arguments: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Further arguments of a cluster's runner, e.g. --flink_master=host:8081.",
    )

    @field_validator("runner", mode="before")
    @classmethod
    def _refuse(cls, runner: object) -> object:
        if isinstance(runner, str) and runner in REFUSED_RUNNERS:
            raise ValueError(f"{runner} is refused: {REFUSED_RUNNERS[runner]}")
        return runner

    @model_validator(mode="after")
    def _check(self) -> Beam:
        own = {"direct_num_workers", "direct_running_mode"} & self.model_fields_set
        if self.runner == "FnApiRunner" and self.arguments:
            raise ValueError(
                "arguments belong to a cluster's runner; FnApiRunner takes direct_num_workers and "
                "direct_running_mode"
            )
        if self.runner != "FnApiRunner" and own:
            raise ValueError(
                f"{', '.join(sorted(own))} belong to FnApiRunner; say it in arguments as "
                f"{self.runner} names it"
            )
        for argument in self.arguments:
            name = argument.partition("=")[0]
            if not argument.startswith("--") or name in _OWN_ARGUMENTS:
                raise ValueError(
                    f"argument {argument!r} is not one: --name=value, and not "
                    f"{' or '.join(sorted(_OWN_ARGUMENTS))}, which have keys of their own"
                )
        return self

    @property
    def pipeline_arguments(self) -> tuple[str, ...]:
        """Arguments of a Beam pipeline."""
        if self.runner != "FnApiRunner":
            return (f"--runner={self.runner}", *self.arguments)
        mode = "in_memory" if self.direct_num_workers == 1 else self.direct_running_mode
        return (
            "--runner=FnApiRunner",
            f"--direct_num_workers={self.direct_num_workers}",
            f"--direct_running_mode={mode}",
            # Without an image or package named, TFX packs its own sources into an archive for
            # remote workers, at every Beam node. There are none: workers are this machine's.
            "--sdk_container_image=in-process",
        )


class Config(Strict):
    """One pipeline: from logs to a pushed model."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = Field(
        description="Pipeline name; also the model's name in serving unless push says otherwise."
    )
    description: str = Field(
        default="", description="A note for readers of the file; nothing else uses it."
    )
    logs: Logs = Field(description="Raw logs.")
    slate: str | None = Field(
        default=None, description="Column that names the request whose candidates compete."
    )
    user: str = Field(description="Column that names the person; intervals resample its values.")
    item: str = Field(description="Column that names the ranked item.")
    columns: dict[str, Column] = Field(description="Columns of an impression, by name.")
    features: dict[str, DerivedFeature] = Field(
        default={}, description="Features computed from the logs."
    )
    privacy: Privacy | None = Field(
        default=None, description="How people's data are hidden; needed where a column is pii."
    )
    tasks: dict[str, Task] = Field(description="The outcomes, by name.")
    score: Score = Field(default=Score(), description="How outputs become one score.")
    splits: Splits = Field(description="Cuts in time.")
    candidates: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Candidate] = Field(
        min_length=1, description="Models to train, by name."
    )
    training: Training = Field(default=Training(), description="Optimisation settings.")
    objective: dict[str, float] = Field(
        min_length=1,
        description="`<output>.<metric>: weight`, summed over the validation split (metrics where "
        "lower is better count negatively): early stopping and the choice of the champion.",
    )
    evaluation: Evaluation = Field(default=Evaluation(), description="Measurement on test.")
    data_checks: DataChecks = Field(default=DataChecks(), description="Limits of the data gates.")
    serving_check: ServingCheckConfig = Field(
        default=ServingCheckConfig(), description="The check behind a real server."
    )
    push: Push = Field(default=Push(), description="Where a blessed champion goes.")
    deploy: Deploy = Field(
        default=Deploy(), description="TF Serving beyond one machine: `polyrank deploy render`."
    )
    beam: Beam = Field(default=Beam(), description="How Beam runs the data work.")

    @model_validator(mode="after")
    def _check(self) -> Config:
        _ = self.ranking
        problems = [*_log_problems(self), *_run_problems(self), *privacy_problems(self)]
        if problems:
            raise SpecProblems(problems)
        return self

    @cached_property
    def ranking(self) -> RankingSpec:
        """The part that models, serving and reports need."""
        return RankingSpec(
            slate=self.slate,
            user=self.user,
            item=self.item,
            columns=self.columns,
            features=self.features,
            tasks=self.tasks,
            score=self.score,
        )

    @property
    def person(self) -> str:
        """Column that identifies a person."""
        person = self.privacy.person if self.privacy is not None else None
        return person or self.user

    @property
    def pii_inputs(self) -> tuple[str, ...]:
        """What a request may carry and a client must hash, in name order."""
        hidden = pii_features(self)
        inputs = {feature.name for feature in self.ranking.rank_inputs}
        # Keys of a snapshot are looked up by hash, whether or not they are features.
        inputs |= {n for n, c in self.columns.items() if c.availability == "request"}
        return tuple(sorted(inputs & hidden))

    @property
    def data_limits(self) -> Limits:
        """What the gates before training refuse."""
        return Limits(
            **self.data_checks.model_dump(),
            min_rows=self.evaluation.min_rows,
            min_positives=self.evaluation.min_positives,
        )

    @property
    def model_name(self) -> str:
        """The model's name in serving."""
        return self.push.model_name or self.name


def _log_problems(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    streams = config.logs.streams
    for name in config.logs.impressions.key:
        if name not in config.columns:
            problems.append(
                Problem(("logs", "impressions", "key"), unknown("column", name, config.columns))
            )
    for name, stream in streams.items():
        if name == IMPRESSIONS:
            problems.append(Problem(("logs", "streams", name), "the name is taken"))
        for key in stream.on:
            for side, columns in (("columns", config.columns), ("the stream", stream.columns)):
                if key not in columns:
                    problems.append(
                        Problem(
                            ("logs", "streams", name, "on"),
                            f"in {side}: {unknown('column', key, columns)}",
                        )
                    )
    for name, column in config.columns.items():
        if column.join is None:
            continue
        path = ("columns", name, "join")
        joined = streams.get(column.join.stream)
        if joined is None:
            problems.append(
                Problem((*path, "stream"), unknown("stream", column.join.stream, streams))
            )
            continue
        if not joined.on:
            problems.append(
                Problem((*path, "stream"), f"stream {column.join.stream!r} has no `on` keys")
            )
        if column.join.value is not None and column.join.value not in joined.columns:
            problems.append(
                Problem(
                    (*path, "value"), unknown("stream column", column.join.value, joined.columns)
                )
            )
    for name, derived in config.features.items():
        if derived.as_of is None:
            continue
        path = ("features", name, "as_of")
        events = derived.as_of.events
        if events != IMPRESSIONS and events not in streams:
            problems.append(
                Problem((*path, "events"), unknown("stream", events, [*streams, IMPRESSIONS]))
            )
            continue
        own = config.columns if events == IMPRESSIONS else streams[events].columns
        joins = events == IMPRESSIONS or bool(streams[events].on)
        usable = set(own) | (set(config.columns) if joins else set())
        wanted = [("entity", e) for e in derived.as_of.entity]
        if derived.as_of.value is not None:
            wanted.append(("value", derived.as_of.value))
        if derived.as_of.where is not None:
            wanted += [("where", c) for c in sorted(referenced_columns(derived.as_of.where))]
        for key, used in wanted:
            if used not in usable:
                problems.append(Problem((*path, key), unknown("column", used, usable)))
    return problems


def _run_problems(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    for name, task in config.tasks.items():
        bounded = any(g.min is not None or g.max is not None for g in task.gates.values())
        if task.role == "served" and not bounded:
            problems.append(
                Problem(
                    ("tasks", name, "gates"),
                    "a served task needs at least one value gate (min or max), e.g. "
                    f"gates: {{{default_metrics(task.kind)[0]}: {{min: ...}}}}",
                )
            )
    for index, names in enumerate(config.evaluation.slices):
        for name in names:
            column = config.columns.get(name)
            if (
                column is None
                or column.availability == "future"
                or column.type
                not in (
                    "string",
                    "int",
                    "bool",
                )
            ):
                allowed = [
                    n
                    for n, c in config.columns.items()
                    if c.availability != "future" and c.type in ("string", "int", "bool")
                ]
                problems.append(
                    Problem(("evaluation", "slices", index), unknown("slice column", name, allowed))
                )
    for path, tasks in _task_names(config):
        for name in tasks:
            if name not in config.tasks:
                problems.append(Problem((*path, name), unknown("task", name, config.tasks)))
    budget = config.push.memory_bytes
    if budget is not None and config.deploy.gpus == 0 and budget > config.deploy.memory:
        problems.append(
            Problem(
                ("push", "memory_bytes"),
                f"more than a server has: expected at most deploy.memory "
                f"({config.deploy.memory} bytes), received {budget}",
            )
        )
    computed = [f for f in config.features.values() if f.as_of and f.source == "computed"]
    if config.evaluation.lags and not computed:
        problems.append(
            Problem(("evaluation", "lags"), "there is no computed as-of feature to be late")
        )
    for name, candidate in config.candidates.items():
        trained = {
            n: t for n, t in config.tasks.items() if candidate.auxiliary or t.role == "served"
        }
        problems += [
            Problem(("candidates", name, "model"), message)
            for message in candidate.model.task_problems(trained)
        ]
    named = {*config.columns, *config.features, *config.tasks, *config.logs.streams, IMPRESSIONS}
    for name in config.data_checks.waived:
        if name not in named:
            problems.append(Problem(("data_checks", "waived", name), unknown("name", name, named)))
    outputs = {o.name: o for o in config.ranking.outputs}
    for key in config.objective:
        output, _, _ = key.partition(".")
        allowed = [
            f"{o.name}.{m}"
            for o in outputs.values()
            for m in o.metrics
            if METRICS[m].higher_is_better is not None
        ]
        if output not in outputs or key not in allowed:
            problems.append(Problem(("objective", key), unknown("objective", key, allowed)))
    return problems


def _task_names(config: Config) -> Iterator[tuple[tuple[str, ...], Iterable[str]]]:
    """Yields the mappings of the training settings whose keys name tasks, with their paths."""
    training = ("training",)
    rates = config.training.optimizers.task_learning_rates
    yield (*training, "optimizers", "task_learning_rates"), rates
    balancers: list[tuple[tuple[str, ...], BalancerConfig | None]] = [
        (training, config.training.balancer)
    ]
    for name, candidate in config.candidates.items():
        balancers.append((("candidates", name), candidate.balancer))
    for path, balancer in balancers:
        if isinstance(balancer, Fixed):
            yield (*path, "balancer", "weights"), balancer.weights
