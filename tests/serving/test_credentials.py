"""TLS, mutual TLS and tokens, against a server that asks for them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving import errors
from serving.api import services
from serving.client import RankingClient
from serving.credentials import Credentials
from serving.retry import RetryPolicy
from serving.server.server import EmbeddedServer
from serving.server.tls import TlsOptions

ONCE = RetryPolicy(max_retries=0)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


def issue(name: str, authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority[0].subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            False,
        )
        .sign(authority[1] if authority else key, hashes.SHA256())
    )
    return certificate, key


def identity(certificate, key) -> Identity:
    return Identity(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


@pytest.fixture(scope="module")
def authority():
    return issue("authority")


@pytest.fixture(scope="module")
def server_identity(authority) -> Identity:
    return identity(*issue("ranker.example", authority))


@pytest.fixture(scope="module")
def client_identity(authority) -> Identity:
    return identity(*issue("client.example", authority))


@contextmanager
def listening(secrets: grpc.ServerCredentials | None) -> Iterator[tuple[str, list[dict]]]:
    """A server that answers GetModelStatus and keeps the headers it saw."""
    seen: list[dict] = []

    def answer(request, context):
        seen.append(dict(context.invocation_metadata()))
        response = services.GET_MODEL_STATUS.response()
        response.model_version_status.add(version=1, state=30)
        return response

    method = services.GET_MODEL_STATUS
    handler = grpc.unary_unary_rpc_method_handler(
        answer, method.request.FromString, method.response.SerializeToString
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(method.service, {method.name: handler}),)
    )
    if secrets is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", secrets)
    server.start()
    try:
        yield f"127.0.0.1:{port}", seen
    finally:
        server.stop(0).wait()


def ask(target: str, credentials: Credentials) -> int:
    with RankingClient(
        target, "m", timeout_seconds=5.0, retry=ONCE, credentials=credentials
    ) as client:
        return client.status()[0].version


def test_tls(authority, server_identity) -> None:
    root = identity(*authority).certificate
    secrets = grpc.ssl_server_credentials([(server_identity.key, server_identity.certificate)])
    with listening(secrets) as (target, _):
        assert ask(target, Credentials(tls=True, root_certificates=root)) == 1
        named = Credentials(tls=True, root_certificates=root, server_name="ranker.example")
        assert ask(target, named) == 1
        for wrong in (
            Credentials(tls=True),
            Credentials(tls=True, root_certificates=root, server_name="other.example"),
            Credentials(),
        ):
            with pytest.raises(errors.UnavailableError):
                ask(target, wrong)


def test_mutual_tls(authority, server_identity, client_identity) -> None:
    root = identity(*authority).certificate
    secrets = grpc.ssl_server_credentials(
        [(server_identity.key, server_identity.certificate)], root, require_client_auth=True
    )
    with listening(secrets) as (target, _):
        known = Credentials(
            tls=True,
            root_certificates=root,
            certificate_chain=client_identity.certificate,
            private_key=client_identity.key,
        )
        assert ask(target, known) == 1
        with pytest.raises(errors.UnavailableError):
            ask(target, Credentials(tls=True, root_certificates=root))


def test_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    with listening(None) as (target, seen):
        assert ask(target, Credentials(token="secret")) == 1
        assert ask(target, Credentials()) == 1
        rotating = Credentials.from_files(token=file)
        assert ask(target, rotating) == 1
        file.write_text("second\n")
        assert ask(target, rotating) == 1
    headers = [headers.get("authorization") for headers in seen]
    assert headers == ["Bearer secret", None, "Bearer first", "Bearer second"]


def test_the_embedded_server_asks_for_certificate_and_token(
    tmp_path, authority, server_identity, client_identity, export, server_options
) -> None:
    files = {
        "ca.pem": identity(*authority).certificate,
        "server.pem": server_identity.certificate,
        "server.key": server_identity.key,
        "client.pem": client_identity.certificate,
        "client.key": client_identity.key,
        "token": b"secret\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    export(tmp_path, 1, signatures=("predict", "rank"))
    secured = server_options(
        tmp_path,
        tls=TlsOptions(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem"),
        token="secret",
    )
    known = Credentials.from_files(
        root_certificates=tmp_path / "ca.pem",
        certificate_chain=tmp_path / "client.pem",
        private_key=tmp_path / "client.key",
        token=tmp_path / "token",
    )
    with EmbeddedServer(secured) as server:
        with RankingClient(server.target, "ranker", credentials=known) as client:
            client.wait_until_available(60)
            candidates = {"item_id": ["hat"], "price": [1.0]}
            assert client.rank({"user_id": "u", "history": []}, candidates).version == 1
        for token in (None, "guess"):
            with (
                RankingClient(
                    server.target, "ranker", credentials=replace(known, token=token)
                ) as client,
                pytest.raises(errors.DeniedError),
            ):
                client.status()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ü"])
def test_tokens_that_no_header_may_have(token) -> None:
    with pytest.raises(errors.InvalidRequestError, match="token is not usable") as failure:
        ask("127.0.0.1:1", Credentials(token=token))
    assert not token or token not in str(failure.value)


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("localhost:8500", True),
        ("127.0.0.1:8500", True),
        ("[::1]:8500", True),
        ("ipv4:127.0.0.1:8500", False),
        ("unix:/run/ranker", True),
        ("dns:///localhost:8500", True),
        ("ranker:8500", False),
        ("127.0.0.1.example:8500", False),
        ("10.0.0.1:8500", False),
        ("dns:///ranker:8500", False),
    ],
)
def test_tokens_cross_no_network_in_the_open(target, near) -> None:
    Credentials(tls=True, token="t").check_target(target)
    Credentials().check_target(target)
    if near:
        Credentials(token="t").check_target(target)
    else:
        with pytest.raises(errors.InvalidRequestError, match="unencrypted"):
            Credentials(token="t").check_target(target)


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials(tls=True, certificate_chain=b"c", private_key=b"KEY", token="TOKEN"))
    assert "KEY" not in shown and "TOKEN" not in shown


def test_half_a_configuration_is_refused(tmp_path) -> None:
    with pytest.raises(errors.InvalidRequestError, match="half of a client certificate"):
        Credentials(tls=True, private_key=b"k")
    with pytest.raises(errors.InvalidRequestError, match="tls is off"):
        Credentials(root_certificates=b"r")
    with pytest.raises(errors.InvalidRequestError, match="cannot read"):
        Credentials.from_files(root_certificates=tmp_path / "none")


def test_files_turn_tls_on(tmp_path) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(b"PEM")
    assert Credentials.from_files(root_certificates=root) == Credentials(
        tls=True, root_certificates=b"PEM"
    )
    assert not Credentials.from_files().tls
