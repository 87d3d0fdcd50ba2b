"""Declaration of the Transform node."""

from __future__ import annotations

from typing import final

from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec

from components.transform.executor import Executor


@final
class Transform(tfx.components.Transform):
    """TFX's Transform, but for the size of its batches; see `Executor`."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
