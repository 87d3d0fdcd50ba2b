"""Entry point: ``python tfx_pipeline.py COMMAND``, installed as ``polyrank COMMAND``."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

# TensorFlow Recommenders and TFX need Keras 2; it is chosen when TensorFlow is first imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one command.

    Args:
        arguments: The command line without the program; ``sys.argv[1:]`` if None.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad config, data or usage, 3 refused by a gate.
    """
    from models.spec.errors import PolyrankError
    from pipeline.cli import parser

    options = parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except PolyrankError as error:
        print(f"polyrank: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("polyrank: interrupted; the same command continues", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:
        print(f"polyrank: {_unexpected(error)}", file=sys.stderr)
        return 1


def _unexpected(error: Exception) -> str:
    """Keeps the traceback of a fault of this program, and says in one line where it is."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="polyrank-", suffix=".traceback", delete=False, encoding="utf-8"
    ) as file:
        file.write("".join(traceback.format_exception(error)))
    return (
        f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}; "
        f"remedy: report this with the traceback in {file.name}"
    )


if __name__ == "__main__":
    sys.exit(main())
