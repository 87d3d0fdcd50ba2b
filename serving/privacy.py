"""Hashes people's data in a request as the pipeline hashed them in the logs.

Imports neither TensorFlow nor anything else that is heavy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.spec.errors import ConfigError
from models.spec.pii_key import PiiKey
from serving.contract import MANIFEST_FILE


@dataclass(frozen=True)
class RequestPrivacy:
    """Which features of a request are people's data, and the key that hides them.

    Example:
        >>> privacy = RequestPrivacy(("user_id",), PiiKey(b"an example key of 28 bytes..", 16))
        >>> privacy.hidden({"user_id": "alice@example.com", "device": "tv"})
        {'user_id': '2c97e947e0cfa003', 'device': 'tv'}

    Attributes:
        columns: Features whose values are hashed.
        key: The key.
    """

    columns: tuple[str, ...]
    key: PiiKey

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> RequestPrivacy:
        """Takes what a run recorded and the key from the environment.

        Args:
            record: `privacy` of a push manifest or of `summary.json`, `pii` of a request file.
            environment: `os.environ` if None.

        Raises:
            ConfigError: The key is missing, or is not the one the model was trained with: its
                hashes would all be unknown to the model.
        """
        key = PiiKey.from_environment(record["key_env"], record["hash_characters"], environment)
        key.check(record["key_fingerprint"])
        return cls(tuple(record["columns"]), key)

    @classmethod
    def from_version(
        cls, version: str | Path, environment: Mapping[str, str] | None = None
    ) -> RequestPrivacy | None:
        """Takes what a pushed version's manifest says; None if it has no people's data.

        Args:
            version: Folder of the version.
            environment: `os.environ` if None.

        Raises:
            ConfigError: There is no manifest, or the key is missing or another one.
        """
        try:
            manifest = json.loads(Path(version, MANIFEST_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{version} has no {MANIFEST_FILE}", remedy="give the folder of a pushed version"
            ) from None
        record = manifest.get("privacy")
        return None if record is None else cls.from_record(record, environment)

    def hidden(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Returns features with people's data hashed.

        Args:
            features: By name a value, a list of values or a list of lists; text, integers or None.
        """
        return {
            name: self._hash(value) if name in self.columns else value
            for name, value in features.items()
        }

    def _hash(self, value: Any) -> Any:
        if hasattr(value, "tolist"):
            return self._hash(value.tolist())
        if isinstance(value, list | tuple):
            return [self._hash(each) for each in value]
        if value is None or value != value:
            return None  # NaN: how data frames write a missing value
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # as the reader takes integer ids that became floats
        if isinstance(value, bytes):
            return self.key.hash(value.decode())
        if isinstance(value, str):
            return self.key.hash(value)
        return self.key.hash(str(value))
