"""``python -m serving.server``: serves base paths without any modelling code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.spec.errors import ConfigError, PolyrankError
from serving.server.stop_signals import exit_on_stop_signals


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serves the newest version under each TF Serving base path over gRPC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--model",
        dest="models",
        required=True,
        action="append",
        metavar="NAME=BASE_PATH",
        help="name that requests ask for, and directory with one numbered directory per version; "
        "may be repeated",
    )
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="gRPC port; 0 picks a free one")
    parser.add_argument("--port-file", type=Path, help="file to write the port to")
    parser.add_argument("--metrics-port", type=int, help="port of the Prometheus exporter")
    parser.add_argument("--num-threads", type=int, help="requests worked on at once")
    parser.add_argument("--max-message-bytes", type=int, help="largest request and response")
    parser.add_argument("--poll-seconds", type=float, help="how often to look for versions")
    parser.add_argument(
        "--drain-seconds", type=float, help="how long requests may take after SIGTERM"
    )
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
    """Runs the server until SIGTERM.

    Args:
        arguments: Command line; the process's own if None.

    Returns:
        The exit code: 0 after draining, else the error's.
    """
    exit_on_stop_signals()
    options = vars(_parse(arguments))
    try:
        options["models"] = _models(options["models"])
        _serve(options)
    except PolyrankError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _serve(options: dict[str, Any]) -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Importing the server imports TensorFlow, which --help need not wait for.
    from serving.server.server import ServerOptions, serve

    # The deprecation of TensorFlow's session loader is known; it is what TF Serving does.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    serve(ServerOptions(**options))


if __name__ == "__main__":
    sys.exit(main())
