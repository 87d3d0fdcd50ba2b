"""One channel to a server, kept open and shared by all calls of a client."""

from __future__ import annotations

from typing import Any

import grpc

from serving.credentials import Credentials


def open_channel(
    library: Any, target: str, credentials: Credentials, max_message_bytes: int
) -> Any:
    """Opens a channel; connecting happens at the first call.

    Args:
        library: The `grpc` module, or `grpc.aio` for asyncio.
        target: ``host:port``. Of several addresses behind a name all are used in turn.
        credentials: TLS, and what certificates to trust and show.
        max_message_bytes: Largest request and response.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC's own waits between connection attempts grow to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # By default all calls of a client go to the first address that connects.
        ("grpc.lb_policy_name", "round_robin"),
        # Retries are the client's: gRPC's own, which a name server can switch on, know no budget.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]
    if not credentials.tls:
        return library.insecure_channel(target, options=options)
    if credentials.server_name is not None:
        options.append(("grpc.ssl_target_name_override", credentials.server_name))
    secrets = grpc.ssl_channel_credentials(
        credentials.root_certificates, credentials.private_key, credentials.certificate_chain
    )
    return library.secure_channel(target, secrets, options=options)
