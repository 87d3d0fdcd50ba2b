"""TF Serving's batching parameters."""

from __future__ import annotations

from dataclasses import dataclass

from models.spec.errors import ConfigError


@dataclass(frozen=True)
class BatchingOptions:
    """TF Serving's batching parameters, with its defaults.

    Attributes:
        max_batch_size: Most rows in a batch.
        batch_timeout_micros: How long a batch that is not full waits for more rows.
        max_enqueued_batches: Most batches that wait, per set of inputs and outputs.
        num_batch_threads: How many batches run at once, of all models together.
        allowed_batch_sizes: Batches are filled up to one of these; the last is `max_batch_size`.
            Any size if empty.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range, or the sizes do not grow up to `max_batch_size`.
        """
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) <= 0:
                raise _invalid(name, "a positive number", getattr(self, name))
        if self.batch_timeout_micros < 0:
            raise _invalid("batch_timeout_micros", "0 or more", self.batch_timeout_micros)
        sizes = self.allowed_batch_sizes
        if sizes and (
            sizes[0] <= 0 or list(sizes) != sorted(set(sizes)) or sizes[-1] != self.max_batch_size
        ):
            raise _invalid(
                "allowed_batch_sizes",
                f"increasing sizes, the last one max_batch_size ({self.max_batch_size})",
                list(sizes),
            )

    def padded(self, size: int) -> int:
        """Returns the allowed size to which a batch is filled up."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


def _invalid(name: str, constraint: str, received: object) -> ConfigError:
    return ConfigError(
        f"batching option {name} is not valid", constraint=constraint, received=received
    )
