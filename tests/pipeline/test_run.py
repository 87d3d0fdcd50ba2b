"""Whole runs on small simulated logs: pushed, repeated, cached, refused, resumed."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

import tfx_pipeline
from components.log_example_gen.spec import Window
from components.model_pusher.push import versions
from models.spec.errors import PolyrankError
from pipeline.load import load_config
from pipeline.plan import _find_baseline
from pipeline.run import _log_file, run
from pipeline.workdir import Workdir, write_atomically
from serving.client import RankingClient
from simulator.simulate import SimulationConfig, simulate
from tests.killing import assert_whole, serving

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
SMALL = [
    "training.epochs=2",
    "training.batch_size=512",
    "evaluation.num_replicates=20",
    "evaluation.slices=[device]",
    "evaluation.min_positives=5",
    "evaluation.min_rows=50",
    "serving_check.num_rows=1000",
    "data_checks.audit_rows=100",
    "candidates={single_task: {model: {architecture: single_task, hidden_units: [16]}}, "
    "mmoe: {model: {architecture: mmoe, num_experts: 2, expert_units: [16], tower_units: [8]}}}",
    "tasks.click.gates={auc: {min: 0.5, max_drop: 0.2}, calibration: {min: 0.1, max: 10.0}}",
    "tasks.conversion.gates={auc: {min: 0.01}}",
    "tasks.watch_seconds.gates={spearman: {min: -0.9}}",
]
"""Small models, and gates that any model which learnt something passes."""

NUM_KILLS = int(os.environ.get("POLYRANK_KILLS", "1"))
KILLS_A_RUN = 5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    simulate(SimulationConfig(impressions=20_000, seed=3), folder)
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    return Workdir.open(tmp_path_factory.mktemp("work"), create=True)


def _run(
    workdir: Workdir, logs: Path, *overrides: str, date: str | None = None
) -> tuple[dict[str, Any], bool]:
    config = load_config(CONFIG, [f"logs.root={logs}", *SMALL, *overrides])
    return run(config, workdir, date=date)


@pytest.fixture(scope="module")
def pushed(workdir: Workdir, logs: Path) -> dict[str, Any]:
    summary, finished = _run(workdir, logs)
    assert not finished
    return summary


def test_a_run_is_pushed(workdir: Workdir, pushed: dict[str, Any]) -> None:
    assert (pushed["state"], pushed["error"]) == ("succeeded", None)
    assert pushed["champion"] in pushed["candidates"]
    assert pushed["pushed"]["version"] == 1
    version = Path(pushed["pushed"]["path"])
    assert version == workdir.serving / "simulated" / "1"
    assert (version / "saved_model.pb").exists()
    assert workdir.read_summary(pushed["run_id"]) == pushed
    assert {c["state"] for c in pushed["components"]} == {"complete"}
    assert workdir.report(pushed["run_id"]).stat().st_size < 3_000_000


def test_no_row_is_lost(pushed: dict[str, Any]) -> None:
    assert set(pushed["rows"]) == {
        "impressions", "clicks", "conversions", "dwell", "scroll", "returns",
    }  # fmt: skip
    for rows in pushed["rows"].values():
        assert rows["read"] == rows["used"] + rows["duplicates"] + sum(rows["dead"].values())
        assert rows["read"] > 0
    counts = pushed["examples"]
    splits = counts["train"] + counts["validation"] + counts["test"]
    assert counts["exploded"] == (splits + counts["outside"] + sum(counts["dead"].values()))
    impressions = pushed["rows"]["impressions"]
    assert counts["exploded"] == impressions["read"] - impressions["duplicates"]
    assert set(counts) == {"exploded", "dead", "train", "validation", "test", "outside"}
    assert splits > 15_000


def test_reported_numbers_are_those_of_the_predictions(
    workdir: Workdir, pushed: dict[str, Any]
) -> None:
    for name, candidate in pushed["candidates"].items():
        path = workdir.run(pushed["run_id"]) / "predictions" / f"{name}.parquet"
        table = pq.read_table(path).to_pandas()
        test = table[table["split"] == "test"]
        assert len(test) == pushed["examples"]["test"]
        for output in ("click", "conversion", "conversion_given_click"):
            rows = test[test[f"{output}__weight"] > 0]
            label, prediction = rows[f"{output}__label"], rows[f"{output}__prediction"]
            metrics = candidate["metrics"][output]
            expected = {
                "auc": roc_auc_score(label, prediction),
                "pr_auc": average_precision_score(label, prediction),
                "log_loss": log_loss(label, prediction.astype(np.float64)),
                "calibration": prediction.sum() / label.sum(),
            }
            for metric, value in expected.items():
                # float32 predictions, computed in another batch size by the evaluation.
                assert metrics[metric]["value"] == pytest.approx(value, rel=1e-5), (output, metric)
        rows = test[test["watch_seconds__weight"] > 0]
        error = rows["watch_seconds__label"] - rows["watch_seconds__prediction"]
        metrics = candidate["metrics"]["watch_seconds"]
        assert metrics["mae"]["value"] == pytest.approx(error.abs().mean(), rel=1e-5)
        assert metrics["rmse"]["value"] == pytest.approx((error**2).mean() ** 0.5, rel=1e-5)
        for by_metric in candidate["metrics"].values():
            for value in by_metric.values():
                if value["value"] is not None:
                    assert value["low"] <= value["high"]
                assert value["space"] in ("declared", "entire", "conditional")


def test_gates_say_no_baseline_at_first(pushed: dict[str, Any]) -> None:
    gates = pushed["candidates"][pushed["champion"]]["gates"]
    change = [g for g in gates if g["kind"] == "change"]
    assert [g["outcome"] for g in change] == ["no_baseline"]
    assert all(g["passed"] for g in gates)


def test_a_finished_run_is_a_no_op(workdir: Workdir, logs: Path, pushed: dict[str, Any]) -> None:
    again, finished = _run(workdir, logs)
    assert finished
    assert again == pushed
    assert _pushed_runs(workdir).count(pushed["run_id"]) == 1


def _pushed_runs(workdir: Workdir) -> list[str]:
    """The runs that pushed the versions there are."""
    manifests = workdir.serving.glob("simulated/*/polyrank_manifest.json")
    return [json.loads(manifest.read_text())["run_id"] for manifest in manifests]


def test_the_exported_graph_has_no_auxiliary_task(pushed: dict[str, Any]) -> None:
    import tensorflow as tf

    model = tf.saved_model.load(pushed["pushed"]["path"])
    inputs = set(model.signatures["predict"].structured_input_signature[1])
    assert not inputs & {"scroll_depth", "returned", "clicked", "position", "watch_seconds"}
    outputs = set(model.signatures["predict"].structured_outputs)
    assert outputs == {"click", "conversion", "conversion_given_click", "watch_seconds", "score"}


def test_a_refused_run_pushes_nothing(workdir: Workdir, logs: Path, pushed: dict[str, Any]) -> None:
    summary, _ = _run(
        workdir, logs, "tasks.click.gates={auc: {min: 0.999}}", "training.epochs=1",
    )  # fmt: skip
    assert summary["state"] == "refused"
    assert summary["pushed"] is None and summary["champion"] is None
    assert "click auc" in summary["error"] and "at least 0.999 required" in summary["error"]
    for candidate in summary["candidates"].values():
        failed = [g for g in candidate["gates"] if not g["passed"]]
        assert [(g["task"], g["metric"], g["threshold"]) for g in failed] == [
            ("click", "auc", 0.999)
        ]
        assert not candidate["blessed"]
    assert summary["run_id"] not in _pushed_runs(workdir)
    cached = {c["name"] for c in summary["components"] if c["cached"]}
    assert {"LogExampleGen", "Transform", "StatisticsGen"} <= cached
    assert not {name for name in cached if name.startswith("Trainer")}  # other epochs


def test_a_changed_gate_trains_nothing_again(
    workdir: Workdir, logs: Path, pushed: dict[str, Any]
) -> None:
    summary, _ = _run(workdir, logs, "tasks.watch_seconds.gates={spearman: {min: -0.8}}")
    assert summary["state"] == "succeeded", summary["error"]
    assert summary["run_id"] != pushed["run_id"]
    cached = {c["name"] for c in summary["components"] if c["cached"]}
    assert {"LogExampleGen", "Trainer.mmoe", "Trainer.single_task", "ServingCheck"} <= cached
    assert not {"Evaluator.mmoe", "Champion", "ModelPusher"} & cached
    assert workdir.report(summary["run_id"]).exists()


def test_one_changed_byte_makes_another_run(
    workdir: Workdir, logs: Path, tmp_path: Path, pushed: dict[str, Any]
) -> None:
    from pipeline.plan import make_plan

    copy = tmp_path / "logs"
    shutil.copytree(logs, copy)
    config = load_config(CONFIG, [f"logs.root={copy}", *SMALL])
    same = make_plan(config, workdir, None)
    assert same.run_id == pushed["run_id"]
    victim = sorted(copy.glob("clicks/*/*.parquet"))[0]
    before = victim.stat()
    content = bytearray(victim.read_bytes())
    content[len(content) // 3] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert victim.stat().st_size == before.st_size
    assert make_plan(config, workdir, None).run_id != same.run_id


def test_a_later_window_has_a_baseline_and_reuses_nothing_stale(
    workdir: Workdir, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = Workdir.open(tmp_path_factory.mktemp("windows"), create=True)
    only = ["candidates={mmoe: {model: {architecture: mmoe, num_experts: 2, expert_units: [16]}}}"]
    # The first window serves one task less: the second one's model has no counterpart for it.
    fewer = [
        *only, "tasks.watch_seconds.role=auxiliary", "tasks.watch_seconds.gates={}",
        "score={weights: {click: 1.0}}", "objective={click.auc: 1.0}",
    ]  # fmt: skip
    only += ["tasks.watch_seconds.gates={spearman: {min: -0.9, max_drop: 0.0}}"]
    first, _ = _run(own, logs, *fewer, date="2026-01-07")
    second, _ = _run(own, logs, *only, date="2026-01-08")
    assert first["state"] == second["state"] == "succeeded", (first["error"], second["error"])
    assert second["baseline_run_id"] == first["run_id"]
    change = [g for g in second["candidates"]["mmoe"]["gates"] if g["kind"] == "change"]
    assert [(g["task"], g["outcome"]) for g in change] == [
        ("click", "passed"), ("watch_seconds", "no_baseline"),
    ]  # fmt: skip
    assert change[0]["value"] is not None and change[1]["value"] is None
    assert set(second["candidates"]["mmoe"]["changes"]) == {
        "click", "conversion", "conversion_given_click",
    }  # fmt: skip
    assert second["pushed"]["version"] == 2
    # The earlier window again: still its own baseline (none), still a no-op.
    again, finished = _run(own, logs, *fewer, date="2026-01-07")
    assert finished and again["pushed"]["version"] == 1
    # Another configuration of the earlier window does not replace what is served, unless asked to.
    other = [*fewer, "tasks.click.gates={auc: {min: 0.31}}"]
    older, _ = _run(own, logs, *other, date="2026-01-07")
    assert (older["state"], older["error"], older["exit_code"]) == ("succeeded", None, 0)
    assert older["champion"] == "mmoe" and older["pushed"] is None
    assert older["superseded_by"]["version"] == 2
    assert older["superseded_by"]["run_id"] == second["run_id"]
    assert older["superseded_by"]["test_end"] == second["window"]["test"][1]
    assert "not pushed, because version 2" in own.report(older["run_id"]).read_text()
    assert sorted(p.name for p in own.serving.glob("simulated/[0-9]*")) == ["1", "2"]
    asked, _ = _run(own, logs, *other, "push.allow_older=true", date="2026-01-07")
    assert asked["pushed"]["version"] == 3 and asked["superseded_by"] is None
    # A change in the newest day is named, and nothing is trained on it.
    changed = tmp_path_factory.mktemp("changed") / "logs"
    shutil.copytree(logs, changed)
    for file in changed.glob("impressions/date=2026-01-06/*.parquet"):
        table = pq.read_table(file)
        named = pc.replace_substring(table["device"], "tablet", "slate_pc")
        position = table.schema.get_field_index("device")
        pq.write_table(table.set_column(position, "device", named), file)
    third, _ = _run(own, changed, *fewer, date="2026-01-08")
    assert third["state"] == "refused" and third["exit_code"] == 3
    assert "column device: new category 'slate_pc'" in third["error"]
    assert third["baseline_run_id"] == asked["run_id"]  # the last one pushed for the earlier window
    states = {c["name"]: c["state"] for c in third["components"]}
    assert states["DataGate"] == "complete"
    assert {s for n, s in states.items() if n.startswith(("Transform", "Trainer"))} == {"not_run"}


@pytest.fixture
def command(logs: Path, tmp_path: Path) -> Iterator[list[str]]:
    arguments = [f"logs.root={logs}", *SMALL]
    yield [
        sys.executable, str(ROOT / "tfx_pipeline.py"), "run", "--config", str(CONFIG),
        "--workdir", str(tmp_path / "killed"), "--quiet",
        *(part for each in arguments for part in ("--set", each)),
    ]  # fmt: skip


def test_a_killed_run_ends_in_the_same_state(
    command: list[str], tmp_path: Path, pushed: dict[str, Any]
) -> None:
    workdir = tmp_path / "killed"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if any((workdir / "checkpoints").glob("*/*")):
            break  # in the middle of the first training
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((workdir / "runs").glob("*/summary.json"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())
    assert summary["run_id"] == pushed["run_id"]
    assert summary["champion"] == pushed["champion"]
    assert summary["pushed"]["version"] == 1
    # What the killed attempt finished was not done again, and is told with its own time.
    seconds = {c["name"]: c["seconds"] for c in summary["components"] if c["state"] == "complete"}
    assert len(seconds) == len(summary["components"]) and seconds["Transform"] > 0.5
    for name, candidate in summary["candidates"].items():
        for output, metrics in pushed["candidates"][name]["metrics"].items():
            for metric, value in metrics.items():
                again = candidate["metrics"][output][metric]["value"]
                # Sums of float32 depend on how many threads they are split over.
                assert again == pytest.approx(value["value"], rel=1e-4), (name, output, metric)


def test_kills_at_random_moments_leave_whole_versions_and_the_same_command_goes_on(
    command: list[str], tmp_path: Path, pushed: dict[str, Any]
) -> None:
    """Pipeline and server are killed together, soon after a component has begun."""
    workdir = tmp_path / "killed"
    base_path = workdir / "serving" / "simulated"
    components = [c["name"] for c in pushed["components"]]
    source = random.Random(0)
    first_trainer = next(i for i, name in enumerate(components) if name.startswith("Trainer"))
    killed_in: list[str] = []
    version = 0
    while len(killed_in) < NUM_KILLS:
        version += 1
        # Data is made once; each seed trains, gates and pushes anew.
        asked = [*command, "--set", f"training.seed={version}"]
        begin = components if version == 1 else components[first_trainer:]
        was_killed = True
        while was_killed and len(killed_in) < min(version * KILLS_A_RUN, NUM_KILLS):
            with serving_if_pushed(base_path, tmp_path) as server:
                # It may have been finished before, and then the run ends unharmed. The first kill
                # is where a run has a process of its own.
                component = source.choice(begin) if killed_in else "ServingCheck"
                was_killed = was_killed_in(component, source.uniform(0, 3), asked, workdir)
                if was_killed:
                    killed_in.append(component)
                    if server is not None:
                        server.send_signal(signal.SIGKILL)
            assert_whole(base_path)
            assert len(versions(base_path)) in (version - 1, version)
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        summary = json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())
        assert summary["pushed"]["version"] == version
        assert sorted(versions(base_path)) == list(range(1, version + 1))
        assert_whole(base_path)
    with (
        serving("simulated", base_path, tmp_path) as (_, target),
        RankingClient(target, "simulated") as client,
    ):
        assert client.wait_until_available(120) == version
    print(f"killed in {', '.join(killed_in)}")


@contextmanager
def serving_if_pushed(base_path: Path, folder: Path) -> Iterator[subprocess.Popen[bytes] | None]:
    if not base_path.exists():
        yield None
        return
    with serving("simulated", base_path, folder) as (server, _):
        yield server


def was_killed_in(component: str, seconds: float, command: list[str], workdir: Path) -> bool:
    """Runs a command and kills it some time after a component has begun, if it does begin.

    Its own processes are gone soon after it, because nobody is left to stop them.
    """

    def begun() -> set[Path]:
        return set((workdir / "artifacts" / component).glob("*/*"))

    before = begun()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while begun() <= before and process.poll() is None:
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    children = [] if process.poll() is not None else psutil.Process(process.pid).children(True)
    process.send_signal(signal.SIGKILL)
    was_killed = process.wait() == -signal.SIGKILL
    _, left = psutil.wait_procs(children, timeout=60)
    assert not left
    return was_killed


def test_logs_that_cannot_be_read_leave_a_summary_and_a_report(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "logs"
    shutil.copytree(logs, copy)
    victim = sorted(copy.glob("impressions/*/*.parquet"))[3]
    victim.write_bytes(victim.read_bytes()[:1000])
    own = Workdir.open(tmp_path / "work", create=True)
    summary, finished = _run(own, copy)
    assert not finished
    assert (summary["state"], summary["exit_code"], summary["pushed"]) == ("failed", 2, None)
    assert victim.name in summary["error"] and "remedy" in summary["error"]
    assert own.read_summary(summary["run_id"]) == summary
    assert victim.name in own.report(summary["run_id"]).read_text()
    assert tfx_pipeline.main(["status", "--workdir", str(own.root)]) == 0
    assert "failed     test unknown to unknown" in capsys.readouterr().out
    # The same fault is the same run, tried again.
    again, finished = _run(own, copy)
    assert not finished and again["run_id"] == summary["run_id"]


def test_the_terminal_is_spared_what_native_code_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with _log_file(tmp_path):
        os.write(2, b"native noise\n")
        warnings.warn("odd division", RuntimeWarning, stacklevel=1)
        logging.getLogger("absl").warning("a record")
        print("for people", file=sys.stderr)
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "for people\nafter\n"
    log = (tmp_path / "run.log").read_text()
    assert all(text in log for text in ("native noise", "odd division", "a record"))


def test_the_baseline_is_the_last_push_of_the_newest_earlier_window(tmp_path: Path) -> None:
    config = load_config(CONFIG)
    workdir = Workdir.open(tmp_path)
    pushes = [("a", 100, 1), ("z", 200, 3), ("b", 200, 4), ("c", 300, 2), ("d", 200, 2)]
    for run_id, test_end, version in pushes:
        record = {
            "run_id": run_id, "model_name": config.model_name, "test_end": test_end,
            "version": version, "model_uri": "m", "statistics_uri": "s", "accounts_uri": "a",
            "outputs": {},
        }  # fmt: skip
        write_atomically(workdir.run(run_id) / "plan.json", json.dumps(record))

    def baseline(test_end: int) -> str | None:
        times = dict.fromkeys(Window.model_fields, 0) | {"test_end": test_end}
        found = _find_baseline(config, workdir, Window(**times))
        return found and found.run_id

    assert [baseline(end) for end in (100, 101, 300, 301)] == [None, "a", "b", "c"]


def test_a_second_run_at_once_is_refused(workdir: Workdir, logs: Path) -> None:
    import fcntl

    with (workdir.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PolyrankError, match="another run"):
            _run(workdir, logs, "training.seed=77")
