"""The server's command-line options: one place for every command that starts one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.spec.errors import ConfigError

if TYPE_CHECKING:
    from serving.server.options import ServerOptions

_BATCHING = (
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
    "allowed_batch_sizes",
)
_LIMITS = ("max_message_bytes", "max_rows", "max_string_bytes")
_TLS = ("tls_certificate", "tls_key", "tls_client_ca")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Adds what every server can be told; what is not given is absent from the namespace.

    Defaults are those of `ServerOptions`; no module with NumPy or gRPC is imported to show them.
    """
    add = _adder(parser.add_argument_group("where to listen"))
    add("--host", help="address (default 127.0.0.1)")
    add(
        "--port",
        type=int,
        help="gRPC port; 0 picks a free one (default 0; 8500 for polyrank serve)",
    )
    add("--port-file", type=Path, help="file to write the gRPC port to")
    add("--rest-port", type=int, help="port of the REST API and the metrics (off if absent)")
    add("--metrics-port", type=int, help="port of a Prometheus exporter alone (off if absent)")

    add = _adder(parser.add_argument_group("how to work"))
    add(
        "--workers",
        type=int,
        help="processes that share the ports, each with all models (default 1)",
    )
    add(
        "--num-threads",
        type=int,
        help="requests a process works on at once (default 4; 32 with batching)",
    )
    add(
        "--intra-op-parallelism",
        type=int,
        help="threads that an operation may use; more make large requests faster on a machine with "
        "cores to spare, and all requests dearer (default 1)",
    )
    add("--max-queued-requests", type=int, help="requests that may wait; more are refused "
        "with UNAVAILABLE (default 64)")  # fmt: skip
    add("--max-message-bytes", type=int, help="largest request and response (default 64 MiB)")
    add("--max-rows", type=int, help="most rows or examples of a request (default 100000)")
    add("--max-string-bytes", type=int, help="longest single string (default 1 MiB)")
    add("--poll-seconds", type=float, help="how often to look for versions (default 0.5)")
    add("--drain-seconds", type=float, help="how long requests may take after SIGTERM (default 10)")
    add(
        "--until-input-ends",
        action="store_true",
        help="stop as well when standard input ends: with the process that holds its other end, "
        "however that ends",
    )

    add = _adder(parser.add_argument_group("dynamic batching, with TF Serving's parameters"))
    add("--enable-batching", action="store_true", help="compute rows of several requests together")
    add("--max-batch-size", type=int, help="most rows in a batch (default 1000)")
    add("--batch-timeout-micros", type=int, help="how long a batch waits for rows (default 0)")
    add("--max-enqueued-batches", type=int, help="batches that may wait (default 10)")
    add("--num-batch-threads", type=int, help="batches that run at once (default 2)")
    add("--allowed-batch-sizes", type=_sizes, metavar="N,N,...",
        help="sizes that batches are filled up to; the last is --max-batch-size")  # fmt: skip

    add = _adder(parser.add_argument_group("who may ask"))
    add("--tls-certificate", type=Path, help="PEM certificate chain; with it, TLS")
    add("--tls-key", type=Path, help="PEM private key")
    add("--tls-client-ca", type=Path, help="PEM authorities of clients; with it, mutual TLS")
    add("--token-file", type=Path, help="file with the bearer token that callers must bring")
    add("--admin-token-file", type=Path, help="file with the token that a reload must bring")
    add("--allowed-root", dest="allowed_roots", action="append", type=Path,
        help="directory beneath which base paths of a reload may lie; may be repeated (default: "
        "the directories that hold the first models)")  # fmt: skip
    add(
        "--require-manifest",
        action="store_true",
        help="refuse versions without polyrank's push manifest (always, for polyrank serve)",
    )


def server_arguments(values: Mapping[str, Any]) -> list[str]:
    """Writes parsed options as a command line again, for another process or command.

    Args:
        values: What `add_server_options` put into the namespace; others are ignored.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_server_options(parser)
    arguments: list[str] = []
    for action in parser._actions:
        if action.dest not in values:
            continue
        (flag,) = action.option_strings
        value = values[action.dest]
        if action.nargs == 0:
            arguments.append(flag)
        elif isinstance(value, list):
            arguments += [f"{flag}={each}" for each in value]
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            arguments.append(f"{flag}={text}")
    return arguments


def _adder(group: Any) -> Any:
    def add(name: str, **settings: Any) -> None:
        group.add_argument(name, default=argparse.SUPPRESS, **settings)

    return add


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def server_options(values: Mapping[str, Any], **more: Any) -> ServerOptions:
    """Makes ServerOptions of parsed options.

    Args:
        values: What `add_server_options` put into the namespace; others are ignored.
        more: Further fields of ServerOptions, which count more.

    Raises:
        ConfigError: A value is not valid, or one depends on another that is not given.
    """
    # Only here: --help of every command shows these options, and answers at once.
    from serving.server.access import read_token
    from serving.server.batching_options import BatchingOptions
    from serving.server.limits import Limits
    from serving.server.options import ServerOptions
    from serving.server.tls import TlsOptions

    given = {each.name: values[each.name] for each in fields(ServerOptions) if each.name in values}
    if "allowed_roots" in given:
        given["allowed_roots"] = tuple(given["allowed_roots"])
    batching = _chosen(values, _BATCHING)
    if values.get("enable_batching"):
        given["batching"] = BatchingOptions(**batching)
    elif batching:
        raise _depends(next(iter(batching)), "enable_batching")
    given["limits"] = Limits(**_chosen(values, _LIMITS))
    tls = {name.removeprefix("tls_"): value for name, value in _chosen(values, _TLS).items()}
    if tls:
        for name in ("certificate", "key"):
            if name not in tls:
                raise _depends(f"tls_{next(iter(tls))}", f"tls_{name}")
        given["tls"] = TlsOptions(**tls)
    for name in ("token", "admin_token"):
        if f"{name}_file" in values:
            given[name] = read_token(values[f"{name}_file"])
    return ServerOptions(**{**given, **more})


def _chosen(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _depends(option: str, other: str) -> ConfigError:
    flags = ["--" + name.replace("_", "-") for name in (option, other)]
    return ConfigError(
        f"option {flags[0]} has no effect without {flags[1]}", remedy=f"give {flags[1]} as well"
    )
