"""Documentation that is made from the code or loads as code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.spec.architecture import ArchitectureSettings
from pipeline import architecture_page
from pipeline.load import load_config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0][6:])
def test_examples_of_tasks_are_complete_configurations(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(example)
    assert load_config(path).ranking.served_tasks


def test_every_kind_of_task_has_an_example(tmp_path: Path) -> None:
    configs = []
    for i, example in enumerate(EXAMPLES):
        (tmp_path / f"{i}.yaml").write_text(example)
        configs.append(load_config(tmp_path / f"{i}.yaml"))
    tasks = [task for config in configs for task in config.tasks.values()]
    assert {t.kind for t in tasks} == {"binary", "duration", "count", "regression"}
    assert {t.role for t in tasks} == {"served", "auxiliary"}
    assert any(t.conditioned_on for t in tasks) and any(t.mask for t in tasks)


def test_the_page_of_architectures_is_up_to_date() -> None:
    assert architecture_page.TARGET.read_text() == architecture_page.page(), (
        "docs/architectures.md is stale: run python -m pipeline.architecture_page"
    )


def test_every_architecture_is_measured_and_has_a_guide() -> None:
    architectures = architecture_page.architectures()
    assert set(architecture_page.costs()["architectures"]) == set(architectures)
    for settings in architectures.values():
        assert issubclass(settings, ArchitectureSettings)
        assert settings.guide.use_when and settings.guide.look_at
