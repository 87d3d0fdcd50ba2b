"""How large a request may be."""

from __future__ import annotations

from dataclasses import dataclass, fields

from models.spec.errors import ConfigError
from serving.server import errors
from serving.server.sent_strings import Value, strings


@dataclass(frozen=True)
class Limits:
    """Bounds of one request. What exceeds them is refused before it reaches TensorFlow.

    Attributes:
        max_message_bytes: Largest request and response, and most memory for input tensors.
        max_rows: Most rows: the longest first dimension of an input, or examples.
        max_string_bytes: Longest single string.
    """

    max_message_bytes: int = 64 << 20
    max_rows: int = 100_000
    max_string_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is not positive.
        """
        for each in fields(self):
            if getattr(self, each.name) <= 0:
                raise ConfigError(
                    f"server option {each.name} is not valid",
                    constraint="a positive number",
                    received=getattr(self, each.name),
                )

    def check(self, alias: str, value: Value, num_bytes: int) -> None:
        """Checks one input.

        Args:
            alias: Name of the input.
            value: What it is fed with.
            num_bytes: Size of the message that it came in; no string in it is longer.

        Raises:
            StatusError: INVALID_ARGUMENT.
        """
        if value.ndim and len(value) > self.max_rows:
            raise errors.too_many_rows(alias, len(value), self.max_rows)
        if num_bytes > self.max_string_bytes:
            longest = max(map(len, strings(value)), default=0)
            if longest > self.max_string_bytes:
                raise errors.string_too_long(alias, longest, self.max_string_bytes)
