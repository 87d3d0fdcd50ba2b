"""`kill -9` of a push and of the server at random moments: one whole version serves afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from components.model_pusher.push import push, read_manifest, versions
from serving.client import RankingClient
from serving.contract import VersionState
from tests.killing import ROOT, assert_whole, serving

NUM_KILLS = int(os.environ.get("POLYRANK_KILLS", "4"))
LOAD_SECONDS = 2.0

# Says when it begins, so that the moment of the kill is one of the push and not of its imports.
PUSH = """
import sys
from pathlib import Path
from components.model_pusher.push import push

model, base_path, run_id = sys.argv[1:]
print("begins", flush=True)
push(Path(model), Path(base_path), run_id=run_id, provenance={})
"""


def start_push(model: Path, base_path: Path, run_id: str) -> subprocess.Popen[str]:
    """Starts a push; returns when it begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUSH, str(model), str(base_path), run_id],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


def serving_version(target: str, newest: int) -> int:
    """The version that answers, once the newest does; fails if any version was refused."""
    candidates = {"item_id": ["hat", "shoe"], "price": np.array([1.0, 2.0], np.float32)}
    with RankingClient(target, "ranker", timeout_seconds=30) as client:
        client.wait_until_available(120)
        end = time.monotonic() + 60
        while client.metadata().version != newest and time.monotonic() < end:
            time.sleep(0.05)
        assert client.rank({"user_id": "u", "history": []}, candidates).order.tolist() == [1, 0]
        states = {status.version: status.state for status in client.status()}
        assert [v for v, s in states.items() if s is VersionState.AVAILABLE] == [newest]
        return client.metadata().version


@pytest.mark.slow
def test_kills_of_push_and_server_leave_one_whole_version(tmp_path, export) -> None:
    model = export(tmp_path, 1)
    base_path = tmp_path / "base"
    start = time.monotonic()
    push(model, base_path, run_id="run-1", provenance={})
    push_seconds = time.monotonic() - start
    source = random.Random(0)
    num_interrupted = 0
    for version in range(2, NUM_KILLS + 2):
        run_id = f"run-{version}"
        # Half of the moments lie in the push, half also in the load that follows it.
        longest = source.choice([1.5 * push_seconds, push_seconds + LOAD_SECONDS])
        moment = source.uniform(0, longest)
        with serving("ranker", base_path, tmp_path) as (server, target):
            assert serving_version(target, version - 1) == version - 1
            pushing = start_push(model, base_path, run_id)
            time.sleep(moment)
            for process in source.sample([pushing, server], 2):
                process.send_signal(signal.SIGKILL)
            num_interrupted += pushing.wait() == -signal.SIGKILL
            assert server.wait() == -signal.SIGKILL
        assert_whole(base_path)
        assert max(versions(base_path)) in (version - 1, version)
        again = start_push(model, base_path, run_id)  # the same command
        assert again.wait(60) == 0
        assert sorted(versions(base_path)) == list(range(1, version + 1))
        assert_whole(base_path)
        assert (read_manifest(base_path / str(version)) or {})["run_id"] == run_id
    with serving("ranker", base_path, tmp_path) as (_, target):
        assert serving_version(target, NUM_KILLS + 1) == NUM_KILLS + 1
    assert num_interrupted > 0
    assert not [name for name in os.listdir(base_path) if not name.isdecimal()]
