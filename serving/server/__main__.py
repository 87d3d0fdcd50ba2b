"""``python -m serving.server``: serves base paths without any modelling code."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.spec.errors import ConfigError, PolyrankError
from serving.server.command import add_server_options, server_options
from serving.server.model_config import read_model_config_file
from serving.server.options import ServerOptions
from serving.server.stop_signals import exit_on_stop_signals, stop_at_end_of_input
from serving.server.supervisor import Supervisor


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serves models under TF Serving base paths over TF Serving's gRPC and REST "
        "APIs.",
    )
    parser.add_argument(
        "--model",
        dest="models",
        default=[],
        action="append",
        metavar="NAME=BASE_PATH",
        help="name that requests ask for, and directory with one numbered directory per version, "
        "of which the newest is served; may be repeated",
    )
    parser.add_argument(
        "--model-config-file",
        type=Path,
        help="TF Serving's model config file, for version policies and labels",
    )
    add_server_options(parser)
    # For the supervisor: one of several processes, which writes down its ports.
    parser.add_argument("--worker-file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _models(arguments: Sequence[str]) -> dict[str, Path]:
    """Reads the values of --model.

    Raises:
        ConfigError: One is not NAME=BASE_PATH, or a name comes twice.
    """
    models: dict[str, Path] = {}
    for argument in arguments:
        name, _, base_path = argument.partition("=")
        if not name or not base_path:
            raise ConfigError(
                "option --model is not valid",
                constraint="NAME=BASE_PATH",
                received=repr(argument),
                remedy="write for example --model ranker=work/serving/ranker",
            )
        if name in models:
            raise ConfigError(
                f"option --model names {name!r} twice",
                constraint="one base path per name",
                received=f"{models[name]} and {base_path}",
                remedy="give each model a name of its own",
            )
        models[name] = Path(base_path)
    return models


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM; tells a fault in one line.

    Args:
        arguments: Command line; the process's own if None.

    Returns:
        The exit code: 0 after draining, else the error's.
    """
    try:
        return run(list(sys.argv[1:] if arguments is None else arguments))
    except PolyrankError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def run(arguments: Sequence[str]) -> int:
    """Runs the server, or several, until SIGTERM.

    Args:
        arguments: Command line.

    Returns:
        The exit code: 0 after draining, else that of a worker that could not start.

    Raises:
        PolyrankError: The server cannot be started.
    """
    exit_on_stop_signals()
    options = vars(_parse(arguments))
    options["models"] = _models(options["models"])
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    workers = options.get("workers", 1)
    if workers < 1:
        raise ConfigError("option --workers is not valid", constraint="1 or more", received=workers)
    if workers > 1 and options["worker_file"] is None:
        _server_options(options)  # a fault is told here, once, and before TensorFlow is imported
        return Supervisor(arguments, options, workers).run()
    _serve(options)
    return 0


def _server_options(options: dict[str, Any]) -> ServerOptions:
    config_file = options["model_config_file"]
    is_worker = options["worker_file"] is not None
    return server_options(
        options,
        configs=() if config_file is None else tuple(read_model_config_file(config_file)),
        # The supervisor writes the port file, once all workers listen.
        **({"reuse_port": True, "may_reload": False, "port_file": None} if is_worker else {}),
    )


def _serve(options: dict[str, Any]) -> None:
    stop_requested = threading.Event()
    worker_file: Path | None = options["worker_file"]
    if options.get("until_input_ends"):
        stop_at_end_of_input(stop_requested)
    settings = _server_options(options)
    # This imports TensorFlow, which --help and faults need not wait for.
    from serving.server.listening import write_whole
    from serving.server.server import EmbeddedServer, serve

    # The deprecation of TensorFlow's session loader is known; it is what TF Serving does.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)

    def tell_ports(server: EmbeddedServer) -> None:
        if worker_file is not None:
            ports = {"port": server.port, "metrics_port": server.metrics_port}
            write_whole(worker_file, json.dumps(ports))

    serve(settings, stop_requested=stop_requested, on_start=tell_ports)


if __name__ == "__main__":
    sys.exit(main())
