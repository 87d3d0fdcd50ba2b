"""The Transform node cuts rows into batches of one size, whatever the clock says."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_batches_have_a_fixed_size() -> None:
    from tfx.components.transform import executor as tfx_executor
    from tfx.proto import example_gen_pb2

    from components.transform.component import Transform
    from components.transform.executor import BATCH_ROWS, Executor

    assert Transform.EXECUTOR_SPEC.executor_class is Executor
    # The hook is TFX's own: were it renamed, ours would never be asked.
    assert tfx_executor.Executor._GetDesiredBatchSize is not Executor._GetDesiredBatchSize
    chosen = Executor()._GetDesiredBatchSize(example_gen_pb2.FORMAT_TF_EXAMPLE, None)
    assert chosen == BATCH_ROWS
    assert Transform.__name__ == "Transform"
