"""The commands: help, exit codes, one clear error line."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import tfx_pipeline
from pipeline.cli import parser

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
COMMANDS = (
    "run", "validate", "schema", "simulate", "serve", "rank", "deploy", "status", "trace", "demo",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tfx_pipeline.main([command, "--help"])
    assert caught.value.code == 0
    assert "usage: polyrank" in capsys.readouterr().out
    assert command in (ROOT / "docs" / "operations.md").read_text()


def test_the_list_of_commands_is_whole() -> None:
    text = parser().format_help()
    assert all(command in text for command in COMMANDS)


def test_help_imports_no_framework() -> None:
    code = (
        "import sys\n"
        "import tfx_pipeline\n"
        "try: tfx_pipeline.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'pyarrow', 'numpy', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _fails(
    arguments: list[str], capsys: pytest.CaptureFixture[str], code: int, *expected: str
) -> None:
    assert tfx_pipeline.main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("polyrank: ")
    assert "Traceback" not in error
    for text in expected:
        assert text in error


def test_bad_input_exits_2_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none.yaml")
    _fails(["validate", "--config", missing], capsys, 2, missing, "remedy")
    base = ["--config", str(CONFIG), "--set", f"logs.root={tmp_path}"]
    _fails(["validate", *base], capsys, 2, "impressions", "an empty folder", "logs.root")
    _fails(["status", "--workdir", missing], capsys, 2, "no work directory")
    _fails(["serve", "--workdir", str(tmp_path)], capsys, 2, "run a pipeline first")
    _fails(
        ["simulate", "--out", str(tmp_path / "logs"), "--days", "0"], capsys, 2, "days", "remedy"
    )


def test_a_broken_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = tmp_path / "logs"
    assert tfx_pipeline.main(["simulate", "--out", str(logs), "--impressions", "3000"]) == 0
    base = ["validate", "--config", str(CONFIG), "--set", f"logs.root={logs}"]
    assert tfx_pipeline.main(base) == 0
    told = capsys.readouterr().out
    assert "configuration and logs are valid" in told
    for refused in ("DataGate would refuse", "limit evaluation.min_rows 500", "with clicked true"):
        assert refused in told
    base += ["--set", "evaluation.min_rows=1", "--set", "evaluation.min_positives=1"]
    assert tfx_pipeline.main(base) == 0
    assert "limit evaluation.min_rows" not in capsys.readouterr().out
    lost = "train rows with clicked true has a mature label"
    _fails([*base, "--set", "columns.clicked.join.window=1ms"], capsys, 2, lost)
    victim = sorted(logs.glob("clicks/*/*.parquet"))[1]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2])
    _fails(base, capsys, 2, victim.name, "clicks")
    victim.write_bytes(content)
    _fails([*base, "--set", "logs.impressions.time_unit=s"], capsys, 2, "time_unit")
    shown = "for example row 1 of impressions/", 'malformed: {"', '"device":"'
    _fails([*base, "--set", "columns.device.type=int"], capsys, 2, "max_dead_rate", *shown)


def test_a_fault_of_the_program_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("pipeline.workdir.Workdir.summaries", lambda self: 1 / 0)
    _fails(["status", "--workdir", str(tmp_path)], capsys, 1, "ZeroDivisionError", "traceback in")
    (kept,) = tmp_path.glob("*.traceback")
    assert "Traceback" in kept.read_text() and "summaries" in kept.read_text()


def test_a_request_file_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "request.json"
    rank = ["rank", "--target", "127.0.0.1:1", "--model", "m", "--request", str(path)]
    _fails(rank, capsys, 2, "cannot read the request")
    path.write_text("{")
    _fails(rank, capsys, 2, "not JSON")
    path.write_text(json.dumps({"context": {}, "candidate": []}))
    _fails(rank, capsys, 2, "not a request", "candidates")
    path.write_text(json.dumps({"context": {}, "candidates": []}))
    _fails(rank, capsys, 2, "a candidate or more")


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert tfx_pipeline.main(["schema"]) == 0
    assert "candidates" in json.loads(capsys.readouterr().out)["properties"]


def test_a_token_is_not_sent_in_the_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("secret")
    request = tmp_path / "request.json"
    request.write_text('{"context": {}, "candidates": [{"item_id": "a"}], "weights": {"click": 2}}')
    arguments = ["rank", "--target", "ranker.example:1", "--model", "m", "--request", str(request)]
    arguments += ["--timeout-seconds", "0.1", "--token-file", str(tmp_path / "token")]
    _fails(arguments, capsys, 1, "unencrypted", "set tls=True")
    request.write_text('{"context": {}, "candidates": [{"item_id": "a"}], "weights": 2}')
    _fails(arguments, capsys, 2, "is not a request")


def test_deploy_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deployment"
    render = ["deploy", "render", "--config", str(CONFIG), "--out", str(out)]
    assert tfx_pipeline.main([*render, "--set", "deploy.replicas=3"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert sorted(written) == sorted(str(p) for p in out.rglob("*") if p.is_file())
    assert "replicas: 3" in (out / "kubernetes" / "deployment.yaml").read_text()
    assert "/models/simulated" in (out / "config" / "models.config").read_text()
    (tmp_path / "file").write_text("")
    _fails([*render, "--out", str(tmp_path / "file")], capsys, 2, "cannot write", "--out")
    _fails([*render, "--set", "deploy.replica=3"], capsys, 2, "did you mean 'replicas'?")
    _fails([*render, "--set", "push.model_name=a b"], capsys, 2, "push.model_name")
