"""Writes requirements.lock: exact versions and hashes for Python 3.11, no index addresses.

ml-metadata and tensorflow-data-validation are the exceptions, with a dependency of the latter.
Their 1.21.0 wheels are built for glibc 2.38 and libstdc++ 13, so that older systems refuse them;
1.17.1 and 1.16.1 run with the rest of the TFX 1.21 set although their metadata asks for protobuf
4. They are taken out of the resolution and appended, each with its reason.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXCEPTIONS = {
    "ml-metadata": (
        "1.17.1",
        "the 1.21.0 wheel needs glibc 2.38 (manylinux_2_39); declares protobuf < 5, runs with 6",
    ),
    "tensorflow-data-validation": (
        "1.16.1",
        "the 1.21.0 wheel needs glibc 2.38 (manylinux_2_39); used through tfx.components, which "
        "supplies the module of tfx-bsl that it misses",
    ),
    "pyfarmhash": (
        "0.5.1",
        "tensorflow-data-validation 1.16.1 imports it and asks for < 0.4, which has no wheels",
    ),
}


def compile_requirements(source: str, *arguments: str) -> str:
    """Resolves requirements with uv and returns the lock text."""
    with tempfile.TemporaryDirectory() as folder:
        infile, outfile = Path(folder, "requirements.in"), Path(folder, "requirements.lock")
        infile.write_text(source)
        command = [
            str(Path(sys.executable).parent / "uv"), "pip", "compile", str(infile),
            "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate",
            "--no-emit-index-url", "--no-emit-find-links", "-o", str(outfile), *arguments,
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        return outfile.read_text()


def main() -> None:
    """Writes the lock file."""
    sys.path.insert(0, str(ROOT))
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], "setuptools<81"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write("".join(f'{name} ; python_version < "3"\n' for name in EXCEPTIONS))
        overrides.flush()
        resolved = compile_requirements("\n".join(wanted), "--override", overrides.name)
    parts = ["# Made by `make lock`; install with pip --no-deps --require-hashes.\n", resolved]
    for name, (version, reason) in EXCEPTIONS.items():
        parts.append(f"# Exception: {reason}.\n")
        parts.append(compile_requirements(f"{name}=={version}", "--no-deps"))
    (ROOT / "requirements.lock").write_text("".join(parts))


if __name__ == "__main__":
    main()
