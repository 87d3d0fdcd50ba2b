"""Event files that TensorBoard reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

_SCALAR = tf.compat.v1.SummaryMetadata(
    data_class=1,  # DATA_CLASS_SCALAR
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
)


class ScalarLog:
    """Writes scalars for TensorBoard.

    `tf.summary.scalar` needs the tensorboard package to be installed where one trains; the event
    files do not.

    Args:
        folder: Folder of the event files.
    """

    def __init__(self, folder: Path) -> None:
        """Opens a new event file."""
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Writes the scalars that are defined, by name, at one step."""
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                if value is not None:
                    tf.summary.write(name, tf.constant(value, tf.float32), metadata=_SCALAR)

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()
