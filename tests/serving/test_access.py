"""Who may ask: tokens, TLS, mutual TLS, over gRPC and REST; and how large a request may be."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from models.spec.errors import ConfigError
from serving.api import messages, services
from serving.api.tensors import encode
from serving.server import access as access_module
from serving.server.access import Access, bearer_token, is_loopback, read_token
from serving.server.call import Call
from serving.server.errors import StatusError
from serving.server.limits import Limits
from serving.server.model_config import check_allowed
from serving.server.server import EmbeddedServer
from serving.server.tls import TlsOptions

CODES = grpc.StatusCode
TOKEN, ADMIN = "user-token", "admin-token"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def refusal(call) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as failure:
        call()
    return failure.value.code()


# Units


def test_tokens_of_headers() -> None:
    assert bearer_token("Bearer abc") == bearer_token("bearer  abc ") == "abc"
    assert bearer_token("Basic abc") == bearer_token("Bearer") == bearer_token("") == ""


@pytest.mark.parametrize(
    ("token", "admin", "sent", "may_ask", "may_reload"),
    [
        ("", "", "", True, True),
        (TOKEN, "", "", False, False),
        (TOKEN, "", TOKEN, True, True),
        (TOKEN, "", TOKEN + "x", False, False),
        (TOKEN, ADMIN, TOKEN, True, False),
        (TOKEN, ADMIN, ADMIN, True, True),
        ("", ADMIN, "", True, False),
        ("", ADMIN, ADMIN, True, True),
        (TOKEN, ADMIN, "\u00e9", False, False),
    ],
)
def test_who_may_do_what(token, admin, sent, may_ask, may_reload) -> None:
    access, call = Access(token, admin), Call(token=sent)
    for check, may in ((access.check, may_ask), (access.check_admin, may_reload)):
        if may:
            check(call)
        else:
            with pytest.raises(StatusError) as failure:
                check(call)
            assert failure.value.code is CODES.UNAUTHENTICATED


def test_without_an_admin_token_only_this_machine_may_reload() -> None:
    with pytest.raises(StatusError) as failure:
        Access("", "", is_local=False).check_admin(Call())
    assert failure.value.code is CODES.PERMISSION_DENIED


def test_tokens_are_compared_in_constant_time(monkeypatch) -> None:
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr(access_module.hmac, "compare_digest", compare)
    Access(TOKEN, ADMIN).check(Call(token=TOKEN))
    assert compared == [(TOKEN.encode(), TOKEN.encode()), (TOKEN.encode(), ADMIN.encode())]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback(host) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_not_loopback(host) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff", "\u00e9".encode()])
def test_token_files_that_hold_none(tmp_path, content) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="token"):
        read_token(path)
    with pytest.raises(ConfigError, match="token"):
        read_token(tmp_path / "absent")


def test_base_paths_are_confined(tmp_path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "model").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "within").symlink_to(root / "model")
    (root / "circle").symlink_to(root / "circle")
    (tmp_path / "rooted").mkdir()
    for path in (root / "model", root, root / "absent", root / "within", root / "x" / ".." / "m"):
        check_allowed(path, [root])
    check_allowed(outside, [root, outside])
    for path in (
        outside,
        root / "link",
        root / "link" / "deeper",
        root / "circle",
        root / ".." / "outside",
        root / "model" / ".." / "..",
        tmp_path / "rooted",  # begins with the same letters
        Path("/"),
    ):
        with pytest.raises(StatusError) as failure:
            check_allowed(path, [root])
        assert failure.value.code is CODES.PERMISSION_DENIED


def test_limits() -> None:
    limits = Limits(max_rows=2, max_string_bytes=3)
    strings = np.array([b"abc", b""], object)
    limits.check("x", strings, 100)
    limits.check("x", np.zeros(2), 100)
    limits.check("x", np.zeros(()), 100)
    with pytest.raises(StatusError, match="3 rows") as failure:
        limits.check("x", np.zeros((3, 0)), 0)
    assert failure.value.code is CODES.INVALID_ARGUMENT
    with pytest.raises(StatusError, match="4 bytes"):
        limits.check("x", np.array([b"a", b"abcd"], object), 100)
    with pytest.raises(ConfigError, match="max_rows"):
        Limits(max_rows=0)


# Over the wire


@pytest.fixture(scope="module")
def guarded(base_path, export, server_options):
    """A server with both tokens and small limits."""
    export(base_path, 3)
    options = server_options(
        base_path, token=TOKEN, admin_token=ADMIN, rest_port=0,
        limits=Limits(max_rows=5, max_string_bytes=50, max_message_bytes=10_000),
    )  # fmt: skip
    with EmbeddedServer(options) as server, grpc.insecure_channel(server.target) as channel:
        status = messages.GetModelStatusRequest()
        status.model_spec.name = "ranker"
        get_status = services.GET_MODEL_STATUS.bind(channel)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                states = get_status(status, metadata=bearer(TOKEN)).model_version_status
                if [each.state for each in states] == [30]:
                    break
            except grpc.RpcError as error:
                assert error.code() is CODES.NOT_FOUND
            time.sleep(0.02)
        yield server, channel


def predict_request(num_rows: int = 1, item: bytes = b"hat") -> object:
    request = messages.PredictRequest()
    request.model_spec.name = "ranker"
    request.model_spec.signature_name = "predict"
    for name, array in {
        "user_id": np.array([b"u"] * num_rows, object),
        "item_id": np.array([item] * num_rows, object),
        "price": np.zeros(num_rows, np.float32),
        "history": np.full((num_rows, 1), b"", object),
    }.items():
        request.inputs[name].CopyFrom(encode(array))
    return request


def test_every_method_needs_the_token(guarded) -> None:
    _, channel = guarded
    spec = messages.ModelSpec(name="ranker")
    for method in (
        services.PREDICT, services.CLASSIFY, services.REGRESS, services.MULTI_INFERENCE,
        services.GET_MODEL_METADATA, services.GET_MODEL_STATUS,
        services.HANDLE_RELOAD_CONFIG_REQUEST,
    ):  # fmt: skip
        request = method.request()
        if hasattr(request, "model_spec"):
            request.model_spec.CopyFrom(spec)
        call = method.bind(channel)
        for metadata in ((), bearer("wrong"), (("authorization", TOKEN),)):
            code = refusal(lambda c=call, r=request, m=metadata: c(r, timeout=5, metadata=m))
            assert code is CODES.UNAUTHENTICATED, method.name
    predict = services.PREDICT.bind(channel)
    for token in (TOKEN, ADMIN):
        assert predict(predict_request(), timeout=5, metadata=bearer(token)).outputs
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == 1


def test_reload_needs_the_admin_token(guarded, base_path) -> None:
    _, channel = guarded
    request = messages.ReloadConfigRequest()
    request.config.model_config_list.config.add(
        name="ranker", base_path=str(base_path), model_platform="tensorflow"
    )
    reload = services.HANDLE_RELOAD_CONFIG_REQUEST.bind(channel)
    code = refusal(lambda: reload(request, timeout=5, metadata=bearer(TOKEN)))
    assert code is CODES.UNAUTHENTICATED
    assert reload(request, timeout=30, metadata=bearer(ADMIN)).status.error_code == 0


def test_requests_beyond_the_limits(guarded) -> None:
    _, channel = guarded
    predict = services.PREDICT.bind(channel)

    def ask(request) -> object:
        return predict(request, timeout=5, metadata=bearer(TOKEN))

    assert ask(predict_request(5, b"x" * 50)).outputs
    for request in (predict_request(6), predict_request(1, b"x" * 51)):
        assert refusal(lambda r=request: ask(r)) is CODES.INVALID_ARGUMENT
    assert refusal(lambda: ask(predict_request(1, b"x" * 20_000))) is CODES.RESOURCE_EXHAUSTED


def http(url: str, body: bytes | None = None, token: str = "", context=None) -> tuple[int, dict]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=10, context=context
        ) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_rest_needs_the_token_and_has_the_limits(guarded) -> None:
    server, _ = guarded
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/ranker"
    row = {"user_id": "u", "item_id": "hat", "price": 1.0, "history": ["hat"]}
    body = json.dumps({"signature_name": "predict", "instances": [row]}).encode()
    for path, content in ((url, None), (f"{url}:predict", body), (f"{url}/metadata", None)):
        assert http(path, content)[0] == 401
        assert http(path, content, "wrong")[0] == 401
        assert http(path, content, TOKEN)[0] == 200
    assert http(f"{url}:predict", b" " * 10_001, TOKEN)[0] == 413
    many = json.dumps({"signature_name": "predict", "instances": [row] * 6}).encode()
    status, answer = http(f"{url}:predict", many, TOKEN)
    assert status == 400
    assert "6 rows" in answer["error"]


# TLS


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(name, self.key, self.key, is_authority=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.pem)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Returns the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(name, key, self.key)
        files = self.folder / f"{name}-{self.name}.crt", self.folder / f"{name}-{self.name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _signed(self, name, key, signer, *, is_authority: bool = False) -> x509.Certificate:
        def named(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

        now = datetime.datetime.now(datetime.timezone.utc)
        names = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName(names), False)
            .sign(signer, hashes.SHA256())
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


def credentials(authority: Authority, client: tuple[Path, Path] | None = None):
    certificate, key = client or (None, None)
    return grpc.ssl_channel_credentials(
        authority.pem,
        None if key is None else key.read_bytes(),
        None if certificate is None else certificate.read_bytes(),
    )


def answers(server: EmbeddedServer, channel_credentials) -> bool:
    with grpc.secure_channel(server.target, channel_credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError as error:
            assert error.code() is CODES.UNAVAILABLE
            return False
        return True


def rest_answers(server: EmbeddedServer, authority: Authority, client=None) -> bool:
    context = ssl.create_default_context(cafile=str(authority.file))
    if client is not None:
        context.load_cert_chain(*client)
    url = f"https://127.0.0.1:{server.rest_port}/v1/models/ranker"
    try:
        # The base path is empty: nothing was ever seen under it.
        assert http(url, context=context)[0] == 404
    except (urllib.error.URLError, ssl.SSLError, ConnectionError):
        return False
    return True


def test_tls(authority, tmp_path, server_options) -> None:
    certificate, key = authority.issue("server")
    tls = TlsOptions(certificate, key)
    with EmbeddedServer(server_options(tmp_path, tls=tls, rest_port=0)) as server:
        assert answers(server, credentials(authority))
        assert rest_answers(server, authority)
        stranger = Authority(tmp_path, "theirs")
        assert not answers(server, credentials(stranger))
        assert not rest_answers(server, stranger)
        with grpc.insecure_channel(server.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            code = refusal(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=5))
            assert code is CODES.UNAVAILABLE


def test_mutual_tls(authority, tmp_path, server_options) -> None:
    certificate, key = authority.issue("server")
    clients = Authority(tmp_path, "clients")
    tls = TlsOptions(certificate, key, client_ca=clients.file)
    with EmbeddedServer(server_options(tmp_path, tls=tls, rest_port=0)) as server:
        ours, theirs = clients.issue("client"), authority.issue("client")
        for client, may in ((None, False), (theirs, False), (ours, True)):
            assert answers(server, credentials(authority, client)) is may
            assert rest_answers(server, authority, client) is may


def test_tls_files_that_cannot_be_used(authority, tmp_path, server_options) -> None:
    certificate, key = authority.issue("server")
    (tmp_path / "none.pem").write_text("nothing")
    for tls in (
        TlsOptions(certificate, authority.issue("other")[1]),
        TlsOptions(tmp_path / "absent", key),
        TlsOptions(certificate, key, tmp_path / "none.pem"),
    ):
        with pytest.raises(ConfigError, match="TLS"):
            EmbeddedServer(server_options(tmp_path, tls=tls))
