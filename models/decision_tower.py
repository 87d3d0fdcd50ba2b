"""What the decision itself did to the outcomes: learnt beside the ranker, and left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.special import expit

from models.seeding import derived_seed

Logits = NDArray[np.floating[Any]]

_INITIAL_SPREAD = 1e-3
_STEPS = 60
_LARGEST_OFFSET = 20.0


class DecisionTower(tf.keras.layers.Layer):
    """`z_k = main_k(x) + tower_k(d) - o_k` while training, `z_k = main_k(x)` when served.

    A click on the first position is partly the position's doing. Given the decision columns d
    (position, module), the tower takes over what they explain, so that the main logit is left with
    what the item is worth wherever it is shown (Zhao et al., RecSys 2019, sec. 4.3; Haldar et al.,
    KDD 2020). It acts on the logits of binary tasks.

    Differs from the paper: decision features have no dropout; and the main logit carries an offset
    `o_k` that makes its mean probability that of the logits with the tower, so that a served
    probability is calibrated for the mix of positions in the logs, and not for none of them.

    Args:
        tasks: The binary tasks.
        units: Layer widths before the last, linear one.
        seed: Seed of initialisation.
    """

    def __init__(
        self, tasks: Sequence[str], units: Sequence[int], seed: int = 0, **kwargs: Any
    ) -> None:
        """Makes the layers."""
        super().__init__(**{"dtype": "float32"} | kwargs)
        self._tasks = tuple(sorted(tasks))
        self._hidden = [
            tf.keras.layers.Dense(
                width,
                activation="relu",
                kernel_initializer=tf.keras.initializers.GlorotUniform(
                    seed=derived_seed(seed, "hidden", i)
                ),
                dtype="float32",
                name=f"hidden_{i}",
            )
            for i, width in enumerate(units)
        ]
        # Next to nothing at first: decisions explain nothing until they are seen to.
        self._last = tf.keras.layers.Dense(
            len(self._tasks),
            kernel_initializer=tf.keras.initializers.RandomNormal(
                stddev=_INITIAL_SPREAD, seed=derived_seed(seed, "last")
            ),
            use_bias=False,
            dtype="float32",
            name="last",
        )
        self.offsets = self.add_weight(
            name="offsets", shape=[len(self._tasks)], initializer="zeros", trainable=False
        )

    def call(self, decisions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the decisions add to the logit of each task.

        Args:
            decisions: Embedded decision features, [batch, d].

        Returns:
            Task to float32 [batch].
        """
        hidden = tf.cast(decisions, tf.float32)
        for layer in self._hidden:
            hidden = layer(hidden)
        return dict(zip(self._tasks, tf.unstack(self._last(hidden), axis=1), strict=True))

    def served(self, heads: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Adds the offsets to head outputs: what is predicted where no decision was made yet.

        Args:
            heads: Task to [batch, units]; tasks without a tower stay as they are.
        """
        offsets = dict(zip(self._tasks, tf.unstack(self.offsets), strict=True))
        return {t: head + offsets[t] if t in offsets else head for t, head in heads.items()}

    def settle(self, logits: Mapping[str, tuple[Logits, Logits, Logits]]) -> None:
        """Chooses the offsets.

        Args:
            logits: Task to main logits, tower outputs and weights of some rows, [rows] each.
        """
        self.offsets.assign([mean_preserving_offset(*logits[task]) for task in self._tasks])


def mean_preserving_offset(main: Logits, tower: Logits, weights: Logits) -> float:
    """Finds o such that `mean sigmoid(main + o) = mean sigmoid(main + tower)`, by bisection.

    Args:
        main: Logits without the tower, [rows].
        tower: What the tower adds, [rows].
        weights: Weights of the rows, [rows]; 0 without any gives an offset of 0.
    """
    kept = weights > 0
    if not kept.any():
        return 0.0
    main, tower, weights = (a[kept].astype(np.float64) for a in (main, tower, weights))
    target = np.average(expit(main + tower), weights=weights)
    low, high = -_LARGEST_OFFSET, _LARGEST_OFFSET
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if np.average(expit(main + middle), weights=weights) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
