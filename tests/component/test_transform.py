"""The Transform node cuts rows into batches of one size, whatever the clock says."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_batches_have_a_fixed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from tfx.components.transform import executor as tfx_executor
    from tfx.proto import example_gen_pb2

    from components.transform.component import Transform
    from components.transform.executor import BATCH_ROWS, Executor, FixedBatches

    assert Transform.EXECUTOR_SPEC.executor_class is Executor
    # The hook is TFX's own: were it renamed, ours would never be asked.
    assert "_GetDesiredBatchSize" in vars(tfx_executor.TransformProcessor)
    size = FixedBatches()._GetDesiredBatchSize(example_gen_pb2.FORMAT_TF_EXAMPLE, None)
    assert size == BATCH_ROWS

    used = []
    monkeypatch.setattr(
        tfx_executor.Executor, "Do", lambda self, *_: used.append(tfx_executor.TransformProcessor)
    )
    Executor().Do({}, {}, {})
    assert used == [FixedBatches]
    assert tfx_executor.TransformProcessor is not FixedBatches
