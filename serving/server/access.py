"""Who may ask: bearer tokens, compared in constant time."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from models.spec.errors import ConfigError
from serving.server import errors
from serving.server.call import Call

_SCHEME = "bearer "


@dataclass(frozen=True)
class Access:
    """The tokens that callers must bring; empty where none is needed.

    Attributes:
        token: Needed for every method; health and reflection are open.
        admin_token: Needed for HandleReloadConfigRequest.
        is_local: Whether only this machine can reach the server.
    """

    token: str = ""
    admin_token: str = ""
    is_local: bool = True

    def check(self, call: Call) -> None:
        """Checks that a caller may use the model methods.

        Raises:
            StatusError: UNAUTHENTICATED.
        """
        # The admin may ask what everybody may ask. Both are compared, whatever the first says.
        is_user = _same(call.token, self.token)
        is_admin = bool(self.admin_token) and _same(call.token, self.admin_token)
        if self.token and not (is_user or is_admin):
            raise errors.unauthenticated()

    def check_admin(self, call: Call) -> None:
        """Checks that a caller may change what is served.

        Raises:
            StatusError: UNAUTHENTICATED, or PERMISSION_DENIED where the server has no admin token
                and others than this machine can reach it.
        """
        self.check(call)
        if not self.admin_token:
            if not self.is_local:
                raise errors.reload_not_permitted("the server was started without an admin token")
        elif not _same(call.token, self.admin_token):
            raise errors.unauthenticated()


def _same(sent: str, expected: str) -> bool:
    return hmac.compare_digest(sent.encode(), expected.encode())


def bearer_token(authorization: str) -> str:
    """Returns the token of an ``authorization`` header; empty if it holds none."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return ""
    return authorization[len(_SCHEME) :].strip()


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """Reads a token from a file; command lines are seen by everybody on a machine.

    Raises:
        ConfigError: The file cannot be read or holds no token.
    """
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read", received=str(error)) from None
    if not token or not token.isascii() or len(token.split()) != 1:
        raise ConfigError(
            f"the token file {path} holds no token", constraint="one line of ASCII without spaces"
        )
    return token
