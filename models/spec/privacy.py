"""What is declared about people's data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.spec.strict import Strict


class Privacy(Strict):
    """How columns with `pii: true` are hidden, and who can be erased.

    A value is replaced when its file is read by the first `hash_characters` hexadecimal digits of
    `HMAC-SHA256(key, value in UTF-8)`, an integer as its decimal digits. Missing and empty values
    stay as they are. The key never leaves the environment; its fingerprint is part of the run's
    identity.
    """

    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Environment variable that holds the key, at least 16 bytes."
    )
    hash_characters: Annotated[int, Field(ge=16, le=64)] = Field(
        default=32,
        description="Hexadecimal digits kept of a hash, 4 bits each. With 32, two of a billion "
        "values share a hash with a probability of 1e-21.",
    )
    person: str | None = Field(
        default=None,
        description="The pii column that identifies a person for `run --erase`, of the same name "
        "in every stream that carries it; `user` if absent.",
    )
