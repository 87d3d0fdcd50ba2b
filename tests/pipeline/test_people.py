"""A whole run on logs with planted people: not one of their names is anywhere afterwards."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.spec.pii_key import PiiKey
from simulator.simulate import SimulationConfig, simulate
from tests.pipeline.test_run import CONFIG, ROOT, SMALL

pytestmark = pytest.mark.slow

KEY_ENV = "TEST_PII_KEY"
SECRET = "a secret of more than sixteen bytes"
MARK = "leak.example"
"""Part of every planted name."""
OVERRIDES = [
    *SMALL,
    "candidates={mmoe: {model: {architecture: mmoe, num_experts: 2, expert_units: [8]}}}",
    f"privacy={{key_env: {KEY_ENV}}}",
    "columns.user_id.pii=true",
    "columns.friends={type: 'list[string]', availability: request, role: feature, max_length: 2, "
    "pii: true, scope: context, encoding: {kind: shared, feature: user_id}}",
    "logs.streams.clicks.columns.user_id.pii=true",
    "logs.streams.conversions.columns.user_id.pii=true",
    "evaluation.slices=[device, user_id]",
    "data_checks.max_dead_rate=0.2",
    "training.epochs=1",
    "evaluation.min_positives=1",
]


@dataclass(frozen=True)
class Done:
    logs: Path
    workdir: Path
    summary: dict[str, Any]
    output: str
    erased: list[str]


def _plant(logs: Path) -> None:
    """Renames every user, and hides names in broken rows of every format."""
    mail = pl.col("user_id") + f"@{MARK}"
    friend = pl.col("user_id").shift(1).fill_null("nobody") + f"@{MARK}"
    for file in sorted(logs.glob("impressions/*/*.parquet")):
        frame = pl.read_parquet(file).with_columns(
            mail, pl.concat_list(friend, friend.reverse()).alias("friends")
        )
        broken = frame.head(2).with_columns(
            pl.lit(None, pl.String).alias("request_id"), pl.lit(f"shifted@{MARK}").alias("device")
        )
        latin = frame.head(1).with_columns(
            pl.lit(b"\xff" + f"latin@{MARK}".encode()).alias("user_id")
        )
        pl.concat([frame, broken]).write_parquet(file)
        latin.write_parquet(file.with_name("latin.parquet"))
    for file in sorted(logs.glob("clicks/*/*.parquet")):
        pl.read_parquet(file).with_columns(mail).write_ndjson(file.with_suffix(".jsonl"))
        with file.with_suffix(".jsonl").open("a") as lines:
            lines.write(f'{{"user_id": "torn@{MARK}", "request_id": "r\n')
            lines.write(f'{{"user_id": "u", "timestamp": "late@{MARK}", "request_id": "r"}}\n')
        file.unlink()
    for file in sorted(logs.glob("conversions/*/*.parquet")):
        frame = pl.read_parquet(file).with_columns(mail)
        with file.with_suffix(".csv").open("w") as lines:
            lines.write(frame.write_csv())
            lines.write(f"too,many,fields,for,this,one@{MARK},and,more,fields,here\n")
            lines.write(",".join([f"wrong@{MARK}"] * len(frame.columns)) + "\n")
        file.unlink()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    logs = tmp_path_factory.mktemp("logs")
    simulate(SimulationConfig(days=5, impressions=6_000, seed=4, num_users=300), logs)
    _plant(logs)
    workdir = tmp_path_factory.mktemp("work")
    people = pl.read_parquet(logs / "impressions" / "*" / "part*.parquet")["user_id"]
    erased = people.drop_nulls().unique().sort()[:5].to_list()
    listed = tmp_path_factory.mktemp("list") / "erase.txt"
    listed.write_text("\n".join(erased))
    run = subprocess.run(
        [
            sys.executable, str(ROOT / "tfx_pipeline.py"), "run", "--config", str(CONFIG),
            "--workdir", str(workdir), "--erase", str(listed), "--quiet",
            *(p for each in [f"logs.root={logs}", *OVERRIDES] for p in ("--set", each)),
        ],
        env=os.environ | {KEY_ENV: SECRET, "TF_USE_LEGACY_KERAS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    summary = json.loads(Path(run.stdout.strip().splitlines()[-1]).read_text())
    return Done(logs, workdir, summary, run.stdout + run.stderr, erased)


def _contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields a file's bytes and what its format hides in them."""
    yield name, content
    if content[:2] == b"\x1f\x8b":
        yield from _contents(f"{name}!gzip", gzip.decompress(content))
    elif content[:4] == b"PAR1":
        table = pl.read_parquet(io.BytesIO(content))
        octets = table.select(pl.col(pl.Binary))
        values = [v for column in octets.iter_columns() for v in column.drop_nulls()]
        text = table.drop(octets.columns).write_ndjson().encode()
        yield f"{name}!parquet", b"\n".join([text, *values])
    elif content[:15] == b"SQLite format 3":
        store = sqlite3.connect(":memory:")
        store.deserialize(content)
        yield f"{name}!sqlite", "\n".join(store.iterdump()).encode()
    elif zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from _contents(f"{name}!{member}", archive.read(member))


def _everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield from _contents(str(file.relative_to(folder)), file.read_bytes())


NEEDLES = [text.encode() for text in (MARK, MARK.encode().hex(), MARK[::-1], SECRET)]


def test_the_search_finds_what_is_there(done: Done, tmp_path: Path) -> None:
    """The logs themselves hold the names, in every format."""
    found = {n.rsplit(".", 1)[-1] for n, c in _everything(done.logs) if MARK.encode() in c}
    assert {"jsonl", "csv", "parquet!parquet"} <= found
    (tmp_path / "a.gz").write_bytes(gzip.compress(MARK.encode()))
    store = sqlite3.connect(tmp_path / "b.db")
    store.execute("CREATE TABLE t (x)")
    store.execute("INSERT INTO t VALUES (?)", (f"x@{MARK}",))
    store.commit()
    store.close()
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.gz", gzip.compress(MARK.encode() * 9))
    named = {n for n, c in _everything(tmp_path) if MARK.encode() in c}
    assert {"a.gz!gzip", "b.db!sqlite", "c.zip!inner.gz!gzip"} <= named


def test_no_name_is_anywhere(done: Done) -> None:
    names, found = [], []
    for name, content in _everything(done.workdir):
        names.append(name)
        found += [f"{needle!r} in {name}" for needle in NEEDLES if needle in content]
    assert not found, found
    for part in ("saved_model.pb", "assets/", "!gzip", "!parquet", "!sqlite", "run.log",
                 "request.json", "index.html", "warmup", "dead_letters", "features/"):  # fmt: skip
        assert any(part in name for name in names), part
    assert not any(needle.decode() in done.output for needle in NEEDLES)


def test_broken_rows_are_counted(done: Done) -> None:
    dead = pl.read_parquet(done.workdir / "runs" / done.summary["run_id"] / "dead_letters.parquet")
    broken = dead.filter(pl.col("reason") == "malformed").group_by("stream").len()
    counts = dict(broken.iter_rows())
    assert counts["impressions"] >= 3 * 5 and counts["clicks"] >= 5 and counts["conversions"] >= 5


def test_hidden_people_are_still_learnt(done: Done) -> None:
    path = done.workdir / "runs" / done.summary["run_id"] / "predictions" / "mmoe.parquet"
    users = pl.read_parquet(path)["user_id"]
    assert users.str.contains("^[0-9a-f]{32}$").all()
    assert 100 < users.n_unique() <= 300
    for stream in ("clicks", "conversions"):
        assert done.summary["rows"][stream]["used"] > 20


def test_an_erasure_is_recorded_everywhere(done: Done) -> None:
    record = done.summary["privacy"]
    assert record["columns"] == ["friends", "user_id"]
    assert record["erased"]["ids"] == 5
    for stream in ("impressions", "clicks"):
        rows = done.summary["rows"][stream]
        assert rows["dead"]["erased"] > 0
        assert rows["read"] == rows["used"] + rows["duplicates"] + sum(rows["dead"].values())
    version = Path(done.summary["pushed"]["path"])
    manifest = json.loads((version / "polyrank_manifest.json").read_text())
    assert manifest["privacy"] == record
    page = (done.workdir / "reports" / done.summary["run_id"] / "index.html").read_text()
    assert record["erased"]["list_hash"] in page and "erased" in page
    key = PiiKey(SECRET.encode(), 32)
    hashes = {key.hash(name).encode() for name in done.erased}
    run = done.workdir / "runs" / done.summary["run_id"]
    for file in [*run.glob("predictions/*.parquet"), *run.glob("features/*.parquet")]:
        frame = pl.read_parquet(file)
        if "user_id" in frame.columns:
            assert not {h.decode() for h in hashes} & set(frame["user_id"])


def test_key_and_list_are_part_of_the_run(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.load import load_config
    from pipeline.plan import make_plan
    from pipeline.workdir import Workdir

    config = load_config(CONFIG, [f"logs.root={done.logs}", *OVERRIDES])
    workdir = Workdir.open(done.workdir)
    monkeypatch.setenv(KEY_ENV, SECRET)
    folder = done.workdir.parent
    here, there, other = (folder / f"{name}.txt" for name in ("here", "there", "other"))
    here.write_text("\n".join(done.erased))
    there.write_text("\n\n".join(reversed(done.erased)))
    other.write_text("\n".join(done.erased[1:]))
    ids = [make_plan(config, workdir, None, erase).run_id for erase in (here, there, other, None)]
    assert ids[0] == ids[1] == done.summary["run_id"]
    assert len(set(ids)) == 3
    monkeypatch.setenv(KEY_ENV, SECRET + "!")
    assert make_plan(config, workdir, None).run_id not in ids


def test_a_client_asks_with_raw_ids(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.ranking_request import read_request
    from serving.client import RankingClient
    from serving.privacy import RequestPrivacy
    from serving.server.server import EmbeddedServer, ServerOptions

    monkeypatch.setenv(KEY_ENV, SECRET)
    version = Path(done.summary["pushed"]["path"])
    stored = read_request(done.workdir / "runs" / done.summary["run_id"] / "request.json")
    assert stored.privacy is None  # its values are hashes already
    key = PiiKey(SECRET.encode(), 32)
    people = pl.read_parquet(done.logs / "impressions" / "*" / "part*.parquet")
    names = {key.hash(name): name for name in people["user_id"].drop_nulls().unique()}
    names |= {key.hash(n): n for n in people["friends"].explode().drop_nulls().unique()}
    raw = stored.context | {
        "user_id": names[stored.context["user_id"]],
        "friends": [names[friend] for friend in stored.context["friends"]],
    }
    privacy = RequestPrivacy.from_version(version)
    with EmbeddedServer(ServerOptions(models={"simulated": version.parent})) as server:
        with RankingClient(server.target, "simulated", timeout_seconds=60) as client:
            client.wait_until_available(timeout_seconds=60)
            expected = client.rank(stored.context, stored.candidates, id_key="item_id")
            unhashed = client.rank(raw, stored.candidates, id_key="item_id")
        with RankingClient(
            server.target, "simulated", timeout_seconds=60, privacy=privacy
        ) as client:
            found = client.rank(raw, stored.candidates, id_key="item_id")
    assert found.rows() == expected.rows()
    assert unhashed.rows() != expected.rows()
