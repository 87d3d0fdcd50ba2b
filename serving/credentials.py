"""How a client proves who it is, and makes sure of whom it asks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serving.errors import InvalidRequestError

_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Credentials:
    """TLS and a token; each may be used without the other.

    A token without TLS is sent to this machine only: on a network anybody could read it.

    Attributes:
        tls: Whether to connect by TLS.
        root_certificates: PEM of the authorities to trust; the system's if None.
        certificate_chain: PEM of the client's certificate, for mutual TLS.
        private_key: PEM of its key.
        server_name: Name to expect in the server's certificate, if not the target's host.
        token: Sent as ``authorization: Bearer <token>``; a function is asked at every call, so
            that tokens can rotate.
    """

    tls: bool = False
    root_certificates: bytes | None = None
    certificate_chain: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    token: str | Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise InvalidRequestError(
                "half of a client certificate is given",
                constraint="both certificate_chain and private_key, or neither",
                received="certificate_chain" if self.private_key is None else "private_key",
                remedy="read both files",
            )
        if not self.tls and any((self.root_certificates, self.private_key, self.server_name)):
            raise InvalidRequestError(
                "certificates are given, but tls is off",
                constraint="tls=True with certificates or a server name",
                received="tls=False",
                remedy="set tls=True",
            )

    @classmethod
    def from_files(
        cls,
        *,
        tls: bool = False,
        root_certificates: Path | None = None,
        certificate_chain: Path | None = None,
        private_key: Path | None = None,
        token: Path | None = None,
    ) -> Credentials:
        """Reads PEM files and a token file; certificates turn TLS on.

        Args:
            tls: Whether to connect by TLS even without certificates.
            root_certificates: Authorities to trust; the system's if None.
            certificate_chain: The client's certificate.
            private_key: Its key.
            token: The token; read again at every call.

        Raises:
            InvalidRequestError: A file cannot be read, or half of a certificate is given.
        """
        return cls(
            tls=tls or any((root_certificates, certificate_chain, private_key)),
            root_certificates=_read(root_certificates),
            certificate_chain=_read(certificate_chain),
            private_key=_read(private_key),
            token=None if token is None else lambda: (_read(token) or b"").decode().strip(),
        )

    def check_target(self, target: str) -> None:
        """Checks that a token will not cross a network in the open.

        Raises:
            InvalidRequestError: It would.
        """
        if self.token is not None and not self.tls and not _is_this_machine(target):
            raise InvalidRequestError(
                f"the token would be sent to {target} unencrypted",
                constraint="TLS, or a target on this machine",
                received="tls=False",
                remedy="set tls=True",
            )

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what to send along with a call.

        Raises:
            InvalidRequestError: The token is empty or has characters that no header may have.
        """
        if self.token is None:
            return ()
        token = self.token if isinstance(self.token, str) else self.token()
        if not _TOKEN.fullmatch(token):
            raise InvalidRequestError(
                "the token is not usable",
                constraint="visible ASCII characters, at least one",
                received=f"{len(token)} characters",
                remedy="check the file or variable that the token comes from",
            )
        return (("authorization", f"Bearer {token}"),)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(
            f"cannot read {path}",
            constraint="a readable file",
            received=error.strerror or str(error),
            remedy="check the path and its permissions",
        ) from error


def _is_this_machine(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    address = target.rpartition("/")[2]  # without a resolver's scheme, as in dns:///host:port
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
