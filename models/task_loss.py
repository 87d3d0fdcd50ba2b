"""A task's loss over a batch."""

from __future__ import annotations

from typing import final

import tensorflow as tf

from models.links import HeadOutputs, Labels, Links


@final
class TaskLoss(tf.keras.losses.Loss):
    """`sum(w l) / sum(w)` over the rows of a batch; 0 for a batch without weight.

    A row with weight 0 contributes neither value nor gradient, whatever its label.

    Args:
        links: Gives the loss per row.
        task: The task.
    """

    def __init__(self, links: Links, task: str) -> None:
        """Keeps the settings."""
        super().__init__(name=task)
        self._links = links
        self._task = task

    def call(self, y_true: Labels, y_pred: HeadOutputs) -> tf.Tensor:
        """Returns the loss per row, [batch]."""
        return self._links.row_losses(self._task, y_pred, y_true)

    def __call__(self, y_true: Labels, y_pred: HeadOutputs, sample_weight: tf.Tensor) -> tf.Tensor:
        """Computes the mean loss.

        Args:
            y_true: Labels of the task, see `Links.labels`.
            y_pred: Head outputs of the task and of those it is conditioned on.
            sample_weight: Mask times sample weight, float32 [batch].

        Returns:
            Scalar float32.
        """
        counts = sample_weight > 0
        labels = {name: tf.where(counts, values, 0.0) for name, values in y_true.items()}
        rows = self.call(labels, y_pred)
        total = tf.reduce_sum(tf.where(counts, sample_weight * rows, 0.0))
        return tf.math.divide_no_nan(total, tf.reduce_sum(sample_weight))
