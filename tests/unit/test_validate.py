"""`polyrank validate` on logs that are read whole, and on those too large for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.spec.errors import DataError
from pipeline import validate
from pipeline.load import load_config
from simulator.simulate import SimulationConfig, simulate

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "simulated" / "config.yaml"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    simulate(SimulationConfig(impressions=2000, malformed_rate=0), folder)
    return folder


@pytest.fixture(params=[0, 10**9], ids=["large", "small"])
def whole_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(validate, "_WHOLE_BYTES", request.param)
    return int(request.param)


def test_good_logs_are_described(logs: Path, whole_bytes: int) -> None:
    lines = list(validate.check_logs(load_config(CONFIG, [f"logs.root={logs}"])))
    assert sum(" to " in line for line in lines) >= 2
    assert any("times are checked" in line for line in lines) == (whole_bytes == 0)
    assert any(line.startswith("table") for line in lines) == (whole_bytes > 0)


def test_declared_limits_of_time_count(logs: Path, whole_bytes: int) -> None:
    config = load_config(CONFIG, [f"logs.root={logs}", "logs.min_time='2099-01-01'"])
    with pytest.raises(DataError, match="has a valid time"):
        list(validate.check_logs(config))
