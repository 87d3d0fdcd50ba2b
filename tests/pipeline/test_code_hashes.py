"""The code hash of a node covers the code that it runs, or TFX would reuse what other code made."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import create
from pipeline.code_hash import ROOT
from pipeline.load import load_config
from pipeline.plan import make_plan
from pipeline.workdir import Workdir
from simulator.simulate import SimulationConfig, simulate

CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
OURS = ("components", "models", "pipeline", "serving")
SHARED = ("components/artifacts.py", "components/declare.py", "components/verdict.py")


def _imported(module: Path) -> Iterator[Path]:
    """Yields our modules that one takes code from; names in capitals are constants."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in OURS:
            continue
        parent = ROOT / str(node.module).replace(".", "/")
        for name in (alias.name for alias in node.names if not alias.name.isupper()):
            found = parent / f"{name}.py" if parent.is_dir() else parent.with_suffix(".py")
            if found.is_file():
                yield found


def _reached(module: Path) -> set[Path]:
    found, waiting = set(), [module]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += _imported(each)
    return found


@pytest.mark.slow
def test_the_hash_of_every_node_covers_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(SimulationConfig(impressions=2000, malformed_rate=0), tmp_path / "logs")
    monkeypatch.setattr(create, "own_code", lambda *packages: " ".join([*packages, "models/spec"]))
    overrides = [f"logs.root={tmp_path / 'logs'}", "evaluation.lags=[1h]"]
    workdir = Workdir.open(tmp_path / "work", create=True)
    plan = make_plan(load_config(CONFIG, overrides), workdir, None)
    checked = []
    for node in create.create_pipeline(plan).components:
        packages = str(node.exec_properties.get("code_hash", "")).split()
        if not packages:
            continue
        checked.append(type(node).__name__)
        executor = node.executor_spec.executor_class.__module__
        reached = {
            path.relative_to(ROOT).as_posix()
            for path in _reached(ROOT / f"{executor.replace('.', '/')}.py")
        }
        covered = (*packages, *SHARED)
        lacking = {p for p in reached if not any(p == c or p.startswith(f"{c}/") for c in covered)}
        assert not lacking, (checked[-1], sorted(lacking))
    assert {"LogExampleGen", "DataGate", "Report", "Champion", "ModelPusher"} <= set(checked)
