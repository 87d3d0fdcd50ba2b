"""How a model is deployed beyond one machine: the `deploy` section of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.spec.problem import Problem, SpecProblems
from models.spec.strict import AsTuple, DurationMs, SizeBytes, Strict

_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_MAX_INT32 = (1 << 31) - 1

Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=_NAME, max_length=63)]


class VersionPolicy(Strict):
    """Which of the pushed versions a server loads."""

    kind: Literal["latest", "all", "specific"] = Field(
        default="latest", description="The newest ones, all, or those listed."
    )
    num_versions: Positive = Field(default=1, description="How many; for latest.")
    versions: Annotated[tuple[Positive, ...], AsTuple] = Field(
        default=(), description="Which; for specific."
    )


class Batching(Strict):
    """TF Serving's batching of requests that arrive together."""

    max_batch_size: Positive = Field(default=1000, description="Rows of a batch, at most.")
    batch_timeout_micros: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How long a request waits for others, in microseconds."
    )
    max_enqueued_batches: Positive = Field(
        default=10, description="Batches that wait; what comes beyond is refused as UNAVAILABLE."
    )
    num_batch_threads: Positive = Field(
        default=2, description="Batches that run at once; one or two per GPU."
    )
    allowed_batch_sizes: Annotated[tuple[Positive, ...], AsTuple] = Field(
        default=(),
        description="Sizes that batches are padded to, growing, the last one max_batch_size.",
    )


class Deploy(Strict):
    """TF Serving on Kubernetes or docker compose, as `polyrank deploy render` writes it."""

    replicas: Positive = Field(default=2, description="Servers.")
    gpus: Annotated[int, Field(ge=0)] = Field(
        default=1, description="GPUs per server; with 0 the image for CPUs is used."
    )
    gpu_memory_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Share of a GPU's memory that TensorFlow takes at the start; 0 takes what it "
        "needs. Two versions are loaded during a swap.",
    )
    cpus: Annotated[float, Field(gt=0)] = Field(default=4.0, description="CPUs per server.")
    memory: SizeBytes = Field(
        default=16 << 30, description="Memory per server, requested and limited."
    )
    namespace: Name = Field(default="default", description="Kubernetes namespace.")
    claim: Name = Field(
        default="polyrank-serving",
        description="PersistentVolumeClaim that holds what runs push: the `serving` folder of the "
        "work directory, with one folder per model. Mounted read-only.",
    )
    tls_secret: Name | None = Field(
        default=None,
        description="Secret whose key `ssl.config` holds TF Serving's SSLConfig (PEM contents). "
        "Without one, gRPC is in the open.",
    )
    version_policy: VersionPolicy = Field(
        default=VersionPolicy(), description="Which versions are loaded."
    )
    labels: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")], Positive] = Field(
        default={}, description="Versions by label, e.g. {stable: 3, canary: 4}."
    )
    batching: Batching | None = Field(
        default=None,
        description="Batching across requests; off if absent. TF Serving then batches every "
        "signature and refuses `rank`, whose context has one row and whose candidates have many: "
        "only for callers of `predict` and `serving_default`.",
    )
    max_message_bytes: Annotated[SizeBytes, Field(le=_MAX_INT32)] = Field(
        default=64 << 20, description="Largest request and response."
    )
    drain: DurationMs = Field(
        default=15_000,
        description="How long a server that is told to stop goes on answering: TF Serving itself "
        "does not drain, so it is told later.",
    )

    @model_validator(mode="after")
    def _check(self) -> Deploy:
        problems = [*_policy_problems(self), *_batching_problems(self.batching)]
        if problems:
            raise SpecProblems(problems)
        return self


def _policy_problems(deploy: Deploy) -> list[Problem]:
    policy, labels = deploy.version_policy, deploy.labels
    if (policy.kind == "specific") != bool(policy.versions):
        return [
            Problem(
                ("version_policy", "versions"),
                "required for kind: specific, and only for it; name the versions to load",
            )
        ]
    loaded = set(labels.values())
    if policy.kind == "specific" and not loaded <= set(policy.versions):
        return [
            Problem(
                ("labels",),
                f"a label names a version that version_policy does not load; expected some of "
                f"{', '.join(map(str, policy.versions))}, received "
                f"{', '.join(map(str, sorted(loaded)))}",
            )
        ]
    if policy.kind == "latest" and len(loaded) > policy.num_versions:
        return [
            Problem(
                ("labels",),
                f"labels name {len(loaded)} versions and version_policy loads the latest "
                f"{policy.num_versions}; raise num_versions or list them (kind: specific)",
            )
        ]
    return []


def _batching_problems(batching: Batching | None) -> list[Problem]:
    sizes = batching.allowed_batch_sizes if batching is not None else ()
    if batching is None or not sizes:
        return []
    if list(sizes) != sorted(set(sizes)) or sizes[-1] != batching.max_batch_size:
        return [
            Problem(
                ("batching", "allowed_batch_sizes"),
                f"must grow and end with max_batch_size ({batching.max_batch_size}); received "
                f"{', '.join(map(str, sizes))}",
            )
        ]
    return []
