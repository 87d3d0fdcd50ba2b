"""The site whose logs and examples gates judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.component.gate_site import Site, write_logs


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs that tests share and do not change."""
    root = tmp_path_factory.mktemp("logs")
    write_logs(root, seed=0)
    return root


@pytest.fixture
def site(logs: Path, tmp_path: Path) -> Site:
    """The shared logs with a place for examples."""
    return Site(logs, tmp_path / "examples")
