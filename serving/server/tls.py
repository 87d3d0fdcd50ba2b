"""TLS and mutual TLS, for gRPC and REST alike."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from models.spec.errors import ConfigError


@dataclass(frozen=True)
class TlsOptions:
    """PEM files of a server.

    Attributes:
        certificate: The server's certificate chain.
        key: Its private key.
        client_ca: Certificates of the authorities whose clients may connect (mutual TLS); if
            None, clients need no certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials of a gRPC port.

        Raises:
            ConfigError: A file cannot be read, or key and certificate do not belong together.
        """
        self.ssl_context()  # gRPC would take anything, and then refuse every client
        return grpc.ssl_server_credentials(
            [(_read(self.key), _read(self.certificate))],
            root_certificates=None if self.client_ca is None else _read(self.client_ca),
            require_client_auth=self.client_ca is not None,
        )

    def ssl_context(self) -> ssl.SSLContext:
        """Returns the context of an HTTPS port.

        Raises:
            ConfigError: A file cannot be read, or key and certificate do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "the TLS files cannot be used",
                constraint="a PEM certificate chain, its PEM key, PEM authorities",
                received=str(error),
            ) from None
        return context


def _read(path: Path) -> bytes:
    return path.read_bytes()
