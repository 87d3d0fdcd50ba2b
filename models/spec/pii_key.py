"""The key with which people's data are hashed. Imports nothing heavy: clients hash too."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping

from models.spec.errors import ConfigError

MIN_KEY_BYTES = 16
_FINGERPRINT_OF = "polyrank key fingerprint"
_FINGERPRINT_CHARACTERS = 16


class PiiKey:
    """The key with which values are hashed. Neither it nor what it hashed appears in its repr.

    Example:
        >>> key = PiiKey(b"an example key of 28 bytes..", characters=16)
        >>> key.hash("alice@example.com")
        '2c97e947e0cfa003'

    Args:
        key: The secret, at least 16 bytes.
        characters: Hexadecimal digits kept of a hash.

    Raises:
        ConfigError: The key is too short.
    """

    def __init__(self, key: bytes, characters: int) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ConfigError(
                "the key for hashing people's data is too short",
                constraint=f"at least {MIN_KEY_BYTES} bytes",
                received=f"{len(key)} bytes",
                remedy="make one with `openssl rand -hex 32`",
            )
        self._key = key
        self.characters = characters

    @classmethod
    def from_environment(
        cls, key_env: str, characters: int, environment: Mapping[str, str] | None = None
    ) -> PiiKey:
        """Reads the key.

        Args:
            key_env: Name of the variable.
            characters: Hexadecimal digits kept of a hash.
            environment: `os.environ` if None.

        Raises:
            ConfigError: The variable is not set, or its value is too short.
        """
        value = (os.environ if environment is None else environment).get(key_env, "")
        if not value:
            raise ConfigError(
                f"the environment variable {key_env} with the key for pii columns is not set",
                constraint=f"a secret of at least {MIN_KEY_BYTES} bytes, the same for every run "
                "and every client",
                remedy=f"export {key_env}=... (make one with `openssl rand -hex 32`)",
            )
        return cls(value.encode(), characters)

    def hash(self, text: str) -> str:
        """Returns the keyed hash of a value; the empty string, a missing value, as it is."""
        if not text:
            return text
        return hmac.digest(self._key, text.encode(), "sha256").hex()[: self.characters]

    @property
    def fingerprint(self) -> str:
        """Tells keys apart without telling them."""
        digest = hmac.digest(self._key, _FINGERPRINT_OF.encode(), "sha256")
        return digest.hex()[:_FINGERPRINT_CHARACTERS]

    def check(self, fingerprint: str) -> None:
        """Refuses to hash with another key than something else was hashed with.

        Raises:
            ConfigError: The fingerprints differ.
        """
        if fingerprint != self.fingerprint:
            raise ConfigError(
                "the key in the environment is not the one that the data were hashed with",
                constraint=f"a key with the fingerprint {fingerprint}",
                received=f"one with the fingerprint {self.fingerprint}",
                remedy="export the key of that run, or run again with this one",
            )
