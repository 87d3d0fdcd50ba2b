"""``python -m serving.server``: serves a base path without any modelling code."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from models.spec.errors import PolyrankError


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serves the newest version under a TF Serving base path over gRPC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--model-name", required=True, help="name that requests ask for")
    parser.add_argument(
        "--base-path",
        "--base-dir",
        dest="base_path",
        required=True,
        type=Path,
        help="directory with one numbered directory per version",
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM.

    Args:
        arguments: Command line; the process's own if None.

    Returns:
        The exit code: 0 after draining, else the error's.
    """
    options = vars(_parse(arguments))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Importing the server imports TensorFlow, which --help need not wait for.
    from serving.server.server import ServerOptions, serve

    # The deprecation of TensorFlow's session loader is known; it is what TF Serving does.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        serve(ServerOptions(**options))
    except PolyrankError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
