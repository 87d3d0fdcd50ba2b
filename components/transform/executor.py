"""TFX's Transform executor, made repeatable."""

from __future__ import annotations

from typing import Any, final

from tfx.components.transform import executor

BATCH_ROWS = 2048
"""Rows that are analysed and transformed together."""


@final
class Executor(executor.Executor):
    """Fixes how many rows go into a batch.

    Without a size, Beam tunes it by the clock. Sums over batches then differ from run to run in
    their last digits, and so do means, scales and every model trained on them: the same data
    and seed would not give the same bits. Larger batches than Beam's (at most 1,000 rows) also
    spend less time between the rows.
    """

    def _GetDesiredBatchSize(self, data_format: int, schema: Any) -> int:
        del data_format, schema
        return BATCH_ROWS
