"""TF Serving's REST API, and the metrics beside it, over HTTP/1.1."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from serving.api import messages
from serving.server import errors, rest_json
from serving.server.access import bearer_token
from serving.server.call import Call
from serving.server.limits import Limits
from serving.server.metrics import ServerMetrics
from serving.server.model_service import ModelService
from serving.server.models import ServedModels
from serving.server.prediction_service import PredictionService
from serving.server.request_pool import RequestPool
from serving.server.rpc import answer_call

METRICS_PATH = "/monitoring/prometheus/metrics"

_MODEL = r"/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_POST = re.compile(_MODEL + r":(predict|classify|regress)")
_GET = re.compile(_MODEL + r"(/metadata)?")
_CODES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""HTTP status codes; 500 for all others."""

_TIMEOUT_SECONDS = 30.0  # TF Serving's --rest_api_timeout_in_ms
_IDLE_SECONDS = 60.0
_MAX_CONNECTIONS = 256
_LONGEST_NUMBER = 100  # digits, leading zeros included


class RestApi:
    """What the paths of the REST API answer.

    Args:
        models: The models, to learn what their signatures take.
        prediction: Answers for the models.
        model_service: Reports on the models.
        metrics: Where calls are counted.
    """

    def __init__(
        self,
        models: ServedModels,
        prediction: PredictionService,
        model_service: ModelService,
        metrics: ServerMetrics,
    ) -> None:
        self._models = models
        self._prediction = prediction
        self._model_service = model_service
        self._metrics = metrics

    def post(self, path: str, body: bytes, call: Call) -> dict[str, Any]:
        """Answers a POST: predict, classify or regress.

        Raises:
            StatusError: There is no answer.
        """
        match = _POST.fullmatch(path)
        if match is None:
            raise errors.malformed_path("POST", path)
        method = match[4]
        run = {"predict": self._predict, "classify": self._classify, "regress": self._regress}
        spec = _model_spec(match)
        return answer_call(
            method.capitalize(),
            lambda: run[method](spec, rest_json.parse_object(body), call),
            call,
            self._metrics,
        )

    def refuse(self, path: str) -> errors.StatusError:
        """Counts a POST that is not taken for want of room, and returns what to answer."""
        failure = errors.overloaded()
        match = _POST.fullmatch(path)
        if match is not None:
            self._metrics.count_refused(match[4].capitalize(), failure.code.name)
        return failure

    def get(self, path: str, call: Call) -> dict[str, Any]:
        """Answers a GET: the status or the metadata of a model.

        Raises:
            StatusError: There is no answer.
        """
        match = _GET.fullmatch(path)
        if match is None:
            raise errors.malformed_path("GET", path)
        spec = _model_spec(match)
        if match[4]:
            return answer_call(
                "GetModelMetadata", lambda: self._metadata(spec, call), call, self._metrics
            )
        return answer_call("GetModelStatus", lambda: self._status(spec, call), call, self._metrics)

    def _predict(self, spec: Any, document: dict[str, Any], call: Call) -> dict[str, Any]:
        request = messages.PredictRequest(model_spec=spec)
        name = rest_json.signature_name(document)
        request.model_spec.signature_name = name
        as_rows = rest_json.is_row_format(document)
        # Checks the caller's token before it says anything about the model.
        self._prediction.check(call)
        with self._models.acquire(spec, call) as handle:
            signature = handle.runtime.signatures.get(name or "serving_default")
            if signature is None:
                raise errors.rest_signature_not_found(name or "serving_default")
            for alias, proto in rest_json.predict_inputs(document, signature.inputs).items():
                request.inputs[alias].CopyFrom(proto)
            # The version that the tensors were made for answers, also if another took over.
            response = self._prediction.predict_on(handle, request, call)
        return rest_json.predict_body(response.outputs, as_rows=as_rows)

    def _classify(self, spec: Any, document: dict[str, Any], call: Call) -> dict[str, Any]:
        request = messages.ClassificationRequest(model_spec=spec)
        request.model_spec.signature_name = rest_json.signature_name(document)
        rest_json.fill_examples(document, request.input)
        return rest_json.classification_body(self._prediction.classify(request, call).result)

    def _regress(self, spec: Any, document: dict[str, Any], call: Call) -> dict[str, Any]:
        request = messages.RegressionRequest(model_spec=spec)
        request.model_spec.signature_name = rest_json.signature_name(document)
        rest_json.fill_examples(document, request.input)
        return rest_json.regression_body(self._prediction.regress(request, call).result)

    def _status(self, spec: Any, call: Call) -> dict[str, Any]:
        request = messages.GetModelStatusRequest(model_spec=spec)
        response = self._model_service.get_model_status(request, call)
        return {
            "model_version_status": [
                {
                    "version": str(each.version),
                    "state": messages.ModelVersionStatus.State.Name(each.state),
                    "status": {
                        "error_code": errors.code_of_number(each.status.error_code).name,
                        "error_message": each.status.error_message,
                    },
                }
                for each in response.model_version_status
            ]
        }

    def _metadata(self, spec: Any, call: Call) -> dict[str, Any]:
        request = messages.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        response = self._prediction.get_model_metadata(request, call)
        signatures = messages.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": {
                "name": response.model_spec.name,
                "signature_name": "",
                "version": str(response.model_spec.version.value),
            },
            "metadata": {
                "signature_def": json_format.MessageToDict(
                    signatures,
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                )
            },
        }


def _model_spec(match: re.Match[str]) -> Any:
    spec = messages.ModelSpec(name=unquote(match[1]))
    if match[2]:
        # Python itself refuses to read very long numbers.
        if len(match[2]) > _LONGEST_NUMBER or int(match[2]) >= 1 << 63:
            raise errors.unfit_json(f"Failed to convert version: {match[2]} to numeric.")
        spec.version.value = int(match[2])
    elif match[3]:
        spec.version_label = unquote(match[3])
    return spec


class RestServer:
    """Serves the REST API and the metrics on one port.

    Predictions are worked on by the same pool as those over gRPC, and refused with 503 when it is
    full; questions about models and metrics are answered by the connection's own thread.

    Args:
        api: What answers.
        registry: The metrics; their path answers 404 if None.
        pool: The threads that work on requests.
        limits: How large a request may be.
        address: Host and port to listen on.
        tls: For HTTPS.
        reuse_port: Whether other processes may listen on the port too.

    Raises:
        OSError: The port is taken or the host is not this machine's.
    """

    def __init__(
        self,
        api: RestApi,
        registry: CollectorRegistry | None,
        pool: RequestPool,
        limits: Limits,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
    ) -> None:
        handler = _handler_class(api, registry, pool, limits)
        self._server = _HttpServer(address, handler, tls, reuse_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="rest", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Takes no new connections, and refuses further requests of those that are open."""
        self._server.is_stopping = True
        if self._thread.ident is not None:
            self._server.shutdown()
        self._server.server_close()

    def drain(self, seconds: float) -> None:
        """Waits until requests under way are answered, to their last byte.

        Args:
            seconds: How long to wait at most.
        """
        self._server.wait_until_answered(seconds)


class _HttpServer(ThreadingHTTPServer):
    """One thread per connection; so many connections and no more."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        tls: ssl.SSLContext | None,
        reuse_port: bool,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._tls = tls
        self._reuse_port = reuse_port
        self._free = threading.Semaphore(_MAX_CONNECTIONS)
        self.is_stopping = False
        self._num_unanswered = 0
        self._answered = threading.Condition()
        super().__init__((address[0].strip("[]"), address[1]), handler)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Counts a request as under way."""
        with self._answered:
            self._num_unanswered += 1
        try:
            yield
        finally:
            with self._answered:
                self._num_unanswered -= 1
                self._answered.notify_all()

    def wait_until_answered(self, seconds: float) -> None:
        """Waits until no request is under way, or the time is over."""
        with self._answered:
            self._answered.wait_for(lambda: self._num_unanswered == 0, seconds)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service who we are.
        if self._reuse_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(_IDLE_SECONDS)
            if self._tls is not None:  # here, lest a slow handshake hold up the others
                request = self._tls.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError:
            self.shutdown_request(request)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a connection that breaks is its client's affair."""


def _handler_class(
    api: RestApi, registry: CollectorRegistry | None, pool: RequestPool, limits: Limits
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server: _HttpServer
        protocol_version = "HTTP/1.1"
        server_version = "polyrank"
        sys_version = ""

        def do_GET(self) -> None:
            self._unless_stopping(self._get)

        def do_POST(self) -> None:
            self._unless_stopping(self._post)

        def _unless_stopping(self, answer: Callable[[], None]) -> None:
            with self.server.answering():
                if self.server.is_stopping:
                    self._refuse(503, errors.stopping().message)
                else:
                    answer()

        def _get(self) -> None:
            if self.path == METRICS_PATH and registry is not None:
                self._send(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                return
            # By the connection's thread: a server without room for predictions is not dead.
            self._answer(lambda call: api.get(self.path, call))

        def _post(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit():
                self._refuse(411, "the request has no Content-Length")
            elif len(length) > _LONGEST_NUMBER or int(length) > limits.max_message_bytes:
                self._refuse(413, f"the request is larger than {limits.max_message_bytes} bytes")
            else:
                body = self.rfile.read(int(length))
                self._answer(lambda call: self._run_in_pool(body, call))

        def _run_in_pool(self, body: bytes, call: Call) -> dict[str, Any]:
            if pool.is_full:
                raise api.refuse(self.path)
            try:
                answering: Future[dict[str, Any]] = pool.submit(api.post, self.path, body, call)
                return answering.result(_TIMEOUT_SECONDS)
            except FutureTimeoutError:
                raise errors.deadline_passed() from None
            except RuntimeError:
                raise errors.stopping() from None

        def _answer(self, run: Callable[[Call], dict[str, Any]]) -> None:
            call = Call(
                deadline=time.monotonic() + _TIMEOUT_SECONDS,
                token=bearer_token(self.headers.get("Authorization", "")),
                entrypoint="REST",
            )
            try:
                answer = run(call)
            except errors.StatusError as failure:
                self._send_error(failure)
                return
            self._send_json(200, answer)

        def _send_error(self, failure: errors.StatusError) -> None:
            message = errors.truncated(failure.message)
            self._send_json(_CODES.get(failure.code, 500), {"error": message})

        def _refuse(self, code: int, message: str) -> None:
            self.close_connection = True  # its body has not been read
            self._send_json(code, {"error": message})

        def _send_json(self, code: int, body: dict[str, Any]) -> None:
            self._send(code, json.dumps(body).encode(), "application/json")

        def _send(self, code: int, content: bytes, content_type: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Logs nothing: metrics count, and paths hold what callers send."""

    return Handler
