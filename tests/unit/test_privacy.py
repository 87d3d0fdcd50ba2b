"""People's data in memory: keyed hashes, what refused rows show, erasure, declarations."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.pseudonyms import Pseudonyms, read_erasure
from components.log_example_gen.spec import DatasetPrivacy, DatasetSpec, Window
from models.spec.errors import ConfigError, DataError
from models.spec.pii_key import PiiKey
from pipeline.config import Config
from pipeline.load import load_config
from pipeline.plan import dataset_privacy
from pipeline.ranking_request import read_request
from serving.privacy import RequestPrivacy
from tests.reference import small_logs
from tests.reference.comparison import write_logs

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
KEY_ENV = "TEST_PII_KEY"
SECRET = "a secret of more than sixteen bytes"
KEY = PiiKey(SECRET.encode(), 32)
PERSON = "ann@leak.example"

SPEC = """
logs:
  root: .
  impressions: {path: impressions/*, key: [request_id]}
  streams:
    purchases:
      path: purchases/*
      on: [user_id]
      columns: {user_id: {type: string, pii: true}, amount: {type: float}}
    history:
      path: history/*
      columns: {user_id: {type: string, pii: true}, friend: {type: string, pii: true}}
    views:
      path: views/*
      on: [request_id]
      columns: {request_id: {type: string}}
user: user_id
item: request_id
columns:
  request_id: {type: string, availability: request, role: key}
  user_id: {type: string, availability: request, role: [group, feature], pii: true}
  friends: {type: "list[string]", availability: request, role: feature, max_length: 3, pii: true}
  price: {type: float, availability: request, role: feature}
  bought: {type: bool, availability: future, role: target,
           join: {stream: purchases, aggregate: any, window: 10ms}}
  viewed: {type: bool, availability: future, role: target,
           join: {stream: views, aggregate: any, window: 10ms}}
features:
  num_purchases: {as_of: {events: purchases, entity: user_id, aggregate: count}}
  recent_friends: {as_of: {events: history, entity: user_id, aggregate: last_values, value: friend,
                           length: 2}}
tasks:
  buy: {kind: binary, target: bought}
  view: {kind: binary, target: viewed}
"""
WINDOW = Window(
    train_start=small_logs.BASE,
    validation_start=small_logs.BASE + 100,
    test_start=small_logs.BASE + 150,
    test_end=small_logs.BASE + 200,
    train_cutoff=small_logs.BASE + 110,
    cutoff=small_logs.BASE + 300,
)
PEOPLE = (PERSON, "bob@leak.example", "cid@leak.example")


def expected_hash(text: str) -> str:
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


def _logs() -> dict[str, list[dict[str, Any]]]:
    base = small_logs.BASE
    logs: dict[str, list[dict[str, Any]]] = {"impressions": [], "purchases": [], "history": []}
    logs["views"] = []
    for number in range(40):
        person = PEOPLE[number % 3]
        time = base + 5 * number
        friends = [PEOPLE[(number + 1) % 3], None, ""]
        logs["impressions"].append(
            {"request_id": f"r{number}", "user_id": person, "friends": friends,
             "price": float(number), "time": time}
        )  # fmt: skip
        logs["views"].append({"request_id": f"r{number}", "time": time + 1})
        if number % 2:
            logs["purchases"].append({"user_id": person, "amount": 1.0, "time": time + 1})
        logs["history"].append(
            {"user_id": person, "friend": PEOPLE[(number + 2) % 3], "time": time}
        )
    return logs


@pytest.fixture
def privacy(monkeypatch: pytest.MonkeyPatch) -> DatasetPrivacy:
    monkeypatch.setenv(KEY_ENV, SECRET)
    return DatasetPrivacy(
        key_env=KEY_ENV, hash_characters=32, key_fingerprint=KEY.fingerprint, person="user_id"
    )


def _dataset(root: Path, privacy: DatasetPrivacy | None, text: str = SPEC) -> DatasetSpec:
    spec = small_logs.dataset(text, WINDOW, root=root)
    return spec.model_copy(update={"privacy": privacy, "slice_columns": ("request_id",)})


def test_a_value_is_hashed_as_documented() -> None:
    assert KEY.hash(PERSON) == expected_hash(PERSON)
    assert KEY.hash("") == ""
    assert len(PiiKey(SECRET.encode(), 20).hash("x")) == 20
    assert KEY.fingerprint != PiiKey(b"another secret of enough bytes", 32).fingerprint
    assert SECRET not in repr(KEY) + str(vars(type(KEY)))


def test_columns_are_hashed_once_per_distinct_value() -> None:
    calls = []

    class Counting(PiiKey):
        def hash(self, text: str) -> str:
            calls.append(text)
            return super().hash(text)

    pseudonyms = Pseudonyms(Counting(SECRET.encode(), 32), "user_id")
    values = pl.Series("user_id", ["a", "b", None, "a", ""] * 100)
    hashed = pseudonyms.hashed(values)
    assert sorted(calls) == ["", "a", "b"]
    assert hashed.name == "user_id"
    assert hashed[:5].to_list() == [expected_hash("a"), expected_hash("b"), None,
                                    expected_hash("a"), ""]  # fmt: skip
    lists = pl.Series("friends", [["a", None], None, [], ["b", "", "a"]])
    assert pseudonyms.hashed(lists).to_list() == [
        [expected_hash("a"), None], None, [], [expected_hash("b"), "", expected_hash("a")],
    ]  # fmt: skip
    sliced = lists[2:]
    assert pseudonyms.hashed(sliced).to_list() == [[], [expected_hash("b"), "", expected_hash("a")]]


@pytest.mark.parametrize("file_format", ["parquet", "csv", "jsonl"])
def test_hidden_keys_join_as_the_raw_ones_do(
    tmp_path: Path, privacy: DatasetPrivacy, file_format: str
) -> None:
    write_logs(_dataset(tmp_path, privacy), _logs(), num_files=2, seed=1, file_format=file_format)
    hidden = _dataset(tmp_path, privacy)
    plain = _dataset(tmp_path, None, SPEC.replace(", pii: true", ""))
    with_hashes, raw = (build_examples(s, read_logs(s)) for s in (hidden, plain))
    assert with_hashes.accounts == raw.accounts
    people = {"user_id", "user_id__key", "friends", "recent_friends"}
    for split, frame in raw.examples.items():
        found = with_hashes.examples[split]
        assert people < set(frame.columns) == set(found.columns)
        assert found.drop(people).equals(frame.drop(people)), split
        for name in people:
            assert found[name].to_list() == [_hashed(value) for value in frame[name]], name
    assert raw.examples["train"]["num_purchases"].sum() > 10
    everything = str([f.rows() for f in with_hashes.examples.values()]) + str(
        [s.rows() for s in with_hashes.snapshots.values()]
    )
    assert "leak.example" not in everything


BAD_LINES = {
    "jsonl": [
        f'{{"request_id": "x", "user_id": "{PERSON}", ',
        f'{{"user_id": "{PERSON}", "timestamp": {small_logs.BASE}, "price": "3"}}',
        f'{{"request_id": "{PERSON}", "user_id": "u", "timestamp": "{PERSON}"}}',
        f'{{"request_id": "r", "user_id": "u", "price": "{PERSON}", "timestamp": 1}}',
        f'{{"request_id": "r", "user_id": "u", "friends": "{PERSON}", "timestamp": 1}}',
        f'"{PERSON}"',
    ],
    "csv": [
        f"x,{PERSON},{small_logs.BASE},3,extra,,",
        f"x,\"{PERSON},{small_logs.BASE},3,",
        f",{PERSON},{small_logs.BASE},3,",
        f"r,u,{PERSON},3,",
        f"r,u,{small_logs.BASE},{PERSON},",
        f"r,u,{small_logs.BASE},3,{PERSON}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_refused_rows_show_nothing_but_hashes(
    tmp_path: Path, privacy: DatasetPrivacy, file_format: str
) -> None:
    spec = _dataset(tmp_path, privacy)
    write_logs(spec, _logs(), num_files=1, seed=1, file_format=file_format)
    header = "request_id,user_id,timestamp,price,friends\n" if file_format == "csv" else ""
    bad = BAD_LINES[file_format]
    (tmp_path / "impressions" / f"bad.{file_format}").write_text(header + "\n".join(bad) + "\n")
    built = build_examples(spec, read_logs(spec))
    dead = pl.DataFrame(built.dead).filter(pl.col("file").str.contains("bad"))
    assert len(dead) == len(bad)
    assert not dead["raw"].str.contains("leak").any()
    shown = [json.loads(raw)["user_id"] for raw in dead["raw"] if raw.startswith("{")]
    assert expected_hash(PERSON) in shown


def test_no_error_quotes_a_row(tmp_path: Path, privacy: DatasetPrivacy) -> None:
    spec = _dataset(tmp_path, privacy)
    write_logs(spec, _logs(), num_files=1, seed=1, file_format="csv")
    for file in (tmp_path / "impressions").iterdir():
        file.unlink()
    lines = "".join(f"r,u,{PERSON},3,\n" for _ in range(3))
    (tmp_path / "impressions" / "a.csv").write_text(
        "request_id,user_id,timestamp,price,friends\n" + lines
    )
    from components.log_example_gen.window import resolve_window

    with pytest.raises(DataError, match="no row of 'impressions' has a valid time") as caught:
        resolve_window(spec.logs, spec.splits, spec.ranking, tmp_path, None)
    assert "withheld" in str(caught.value) and "leak" not in str(caught.value)


@pytest.mark.parametrize("line", [f"r1,{PERSON},0,3,", f"{PERSON},{PERSON},0", f"{PERSON}\0,a"])
def test_a_missing_header_is_not_quoted(tmp_path: Path, privacy: DatasetPrivacy, line: str) -> None:
    """The first row of a file without header stands where the names are looked for."""
    spec = _dataset(tmp_path, privacy)
    write_logs(spec, _logs(), num_files=1, seed=1, file_format="csv")
    (tmp_path / "impressions" / "part-1.csv").write_text(f"{line}\n{line}\n")
    with pytest.raises(DataError, match="part-1") as caught:
        read_logs(spec)
    assert "leak" not in str(caught.value)


def test_a_failing_expression_does_not_quote_the_value() -> None:
    from components.log_example_gen.expressions import Expression, evaluate

    frame = pl.DataFrame({"seg": [f"o'{PERSON}"]})
    with pytest.raises(ConfigError, match="fails") as caught:
        evaluate(frame, (Expression("number", "int", "CAST(seg AS BIGINT)"),))
    assert "leak" not in str(caught.value) and caught.value.__suppress_context__


def test_a_library_error_is_withheld(
    tmp_path: Path, privacy: DatasetPrivacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.log_example_gen import file_rows

    def fails(*_: object) -> None:
        raise ValueError(f"cannot convert {PERSON}")

    spec = _dataset(tmp_path, privacy)
    write_logs(spec, _logs(), num_files=1, seed=1, file_format="csv")
    monkeypatch.setattr(file_rows, "convert", fails)
    with pytest.raises(DataError, match="its text is withheld") as caught:
        read_logs(spec)
    assert "leak" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_erased_people_are_dead_letters_without_content(
    tmp_path: Path, privacy: DatasetPrivacy
) -> None:
    write_logs(_dataset(tmp_path, privacy), _logs(), num_files=2, seed=1, file_format="parquet")
    everybody = build_examples(*_spec_and_logs(_dataset(tmp_path, privacy)))
    listed = tmp_path / "erase.txt"
    listed.write_text(f"{PERSON}\n\n nobody@leak.example \n")
    erasure = read_erasure(listed, KEY)
    assert erasure.count == 2
    spec = _dataset(tmp_path, privacy.model_copy(update={"erasure": erasure}))
    built = build_examples(*_spec_and_logs(spec))
    rows = built.accounts["rows"]
    for stream, count in (("impressions", 14), ("purchases", 7), ("history", 14)):
        assert rows[stream]["dead"]["erased"] == count, stream
        before = everybody.accounts["rows"][stream]
        assert rows[stream]["read"] == before["read"]
        parts = rows[stream]["used"] + rows[stream]["duplicates"]
        assert parts + sum(rows[stream]["dead"].values()) == rows[stream]["read"]
    # A stream that does not carry the column keeps its rows; they belong to nobody now.
    assert rows["views"]["dead"] == {"orphan": 14}
    dead = pl.DataFrame(built.dead).filter(pl.col("reason") == "erased")
    assert set(dead["raw"]) == {"{}"}
    for frame in built.examples.values():
        assert expected_hash(PERSON) not in frame["user_id"].to_list()
    assert "ann" not in spec.model_dump_json()
    listed.write_text("somebody else\n")
    with pytest.raises(DataError, match="not the one the run began with"):
        read_logs(spec)


def _hashed(value: Any) -> Any:
    if isinstance(value, pl.Series):
        return [_hashed(each) for each in value]
    return expected_hash(value) if value else value


def _spec_and_logs(spec: DatasetSpec) -> tuple[DatasetSpec, Any]:
    return spec, read_logs(spec)


def test_the_key_must_be_there_and_the_same(
    tmp_path: Path, privacy: DatasetPrivacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _dataset(tmp_path, privacy)
    monkeypatch.setenv(KEY_ENV, "another secret of enough bytes")
    with pytest.raises(ConfigError, match="not the one that the data were hashed with"):
        read_logs(spec)
    monkeypatch.setenv(KEY_ENV, "short")
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        read_logs(spec)
    monkeypatch.delenv(KEY_ENV)
    with pytest.raises(ConfigError, match=f"{KEY_ENV} .* is not set"):
        read_logs(spec)


# Declarations ----------------------------------------------------------------------------------

PII = [
    f"privacy={{key_env: {KEY_ENV}}}",
    "columns.user_id.pii=true",
    "logs.streams.clicks.columns.user_id.pii=true",
    "logs.streams.conversions.columns.user_id.pii=true",
]


def _config(*overrides: str) -> Config:
    return load_config(CONFIG, [*PII, *overrides])


def test_a_declaration_is_whole() -> None:
    config = _config()
    assert config.person == "user_id"
    assert config.pii_inputs == ("user_id",)
    recent = _config("columns.item_id.pii=true", "logs.streams.clicks.columns.item_id.pii=true",
                     "logs.streams.conversions.columns.item_id.pii=true",
                     "logs.streams.dwell.columns.item_id.pii=true",
                     "logs.streams.scroll.columns.item_id.pii=true")  # fmt: skip
    assert recent.pii_inputs == ("item_id", "user_id", "user_recent_items")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["privacy=null"], "needs the top-level key `privacy`"),
        (["columns.user_age_days.pii=true"], "type string or list"),
        (["logs.streams.clicks.columns.user_id.pii=false"], "pii is false here and true"),
        (["columns.clicked.pii=true"], "belongs on the columns that are read"),
        (["privacy.person=device"], "unknown pii column 'device'"),
        (["privacy.key_env=NOT A NAME"], "privacy.key_env"),
        (["columns.item_id.pii=true"], "pii is false here and true in columns.item_id"),
        (["logs.streams.clicks.columns.item_id.pii=true"], "one of 'user_recent_items'"),
    ],
)  # fmt: skip
def test_a_declaration_that_would_not_work_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _config(*overrides)


def test_privacy_without_a_column_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing would be hidden"):
        load_config(CONFIG, [PII[0]])


def test_an_erasure_list_needs_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "erase.txt"
    listed.write_text("u1\n")
    monkeypatch.setenv(KEY_ENV, SECRET)
    with pytest.raises(ConfigError, match="which column identifies a person"):
        dataset_privacy(load_config(CONFIG), listed)
    only_item = load_config(CONFIG, [PII[0], "columns.device.pii=true"])
    with pytest.raises(ConfigError, match="'user_id', which is not pii"):
        dataset_privacy(only_item, listed)
    found = dataset_privacy(_config(), listed)
    assert found is not None and found.erasure is not None and found.erasure.count == 1
    with pytest.raises(DataError, match="cannot read the erasure list"):
        dataset_privacy(_config(), tmp_path / "absent.txt")


def test_commands_without_the_key_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tfx_pipeline

    monkeypatch.delenv(KEY_ENV, raising=False)
    overrides = [part for each in PII for part in ("--set", each)]
    for command in (["validate"], ["run", "--quiet", "--workdir", str(tmp_path / "work")]):
        assert tfx_pipeline.main([*command, "--config", str(CONFIG), *overrides]) == 2
        assert f"{KEY_ENV} with the key for pii columns is not set" in capsys.readouterr().err
    alone = ["validate", "--no-logs", "--config", str(CONFIG), *overrides]
    assert tfx_pipeline.main(alone) == 0


# Requests --------------------------------------------------------------------------------------

RECORD = {
    "columns": ["user_id", "friends"],
    "key_env": KEY_ENV,
    "hash_characters": 32,
    "key_fingerprint": KEY.fingerprint,
}


def test_a_client_hashes_as_the_pipeline_does() -> None:
    privacy = RequestPrivacy.from_record(RECORD, {KEY_ENV: SECRET})
    hidden = privacy.hidden(
        {"user_id": PERSON, "friends": [["a", None], [b"b"]], "price": 3.0, "item_id": "x"}
    )
    assert hidden == {
        "user_id": expected_hash(PERSON),
        "friends": [[expected_hash("a"), None], [expected_hash("b")]],
        "price": 3.0,
        "item_id": "x",
    }
    assert privacy.hidden({"user_id": 17})["user_id"] == expected_hash("17")
    with pytest.raises(ConfigError, match="not the one"):
        RequestPrivacy.from_record(RECORD, {KEY_ENV: SECRET + "!"})


def test_every_client_hashes_before_it_sends() -> None:
    """The synchronous and the asyncio client carry out the same conversation."""
    import numpy as np

    from serving.api import tensors
    from serving.contract import PREDICT, RANK, SCORE_OUTPUT
    from serving.conversation import Call, ClientSettings, Conversation
    from serving.signatures import ModelMetadata, SignatureSpec, TensorSpec

    text, number = (tensors.encode(np.array(v)).dtype for v in (["a"], [1.0]))
    inputs = {"user_id": (1,), "friends": (1, None), "item_id": (None,)}
    specs = {name: TensorSpec(name, text, shape) for name, shape in inputs.items()}
    outputs = {SCORE_OUTPUT: TensorSpec(SCORE_OUTPUT, number, (None,))}
    signatures = {n: SignatureSpec(n, specs, outputs, frozenset()) for n in (RANK, PREDICT)}
    privacy = RequestPrivacy(("user_id", "friends", "item_id"), KEY)
    conversation = Conversation(ClientSettings("localhost:1", "ranker", privacy=privacy))
    conversation._metadata = ModelMetadata("ranker", 1, signatures, {})
    context = {"user_id": PERSON, "friends": ["a", "b"]}
    candidates = [{"item_id": "x"}, {"item_id": "y"}]
    asked = [
        conversation.rank(context, candidates, None, "item_id", None),
        conversation.predict(
            {"user_id": [PERSON], "friends": [["a", "b"]], "item_id": ["x"]}, PREDICT, None
        ),
    ]
    for steps, items in zip(asked, (["x", "y"], ["x"]), strict=True):
        call = next(steps)
        assert isinstance(call, Call)
        sent = {name: tensors.decode(proto) for name, proto in call.request.inputs.items()}
        assert sent["user_id"].tolist() == [expected_hash(PERSON).encode()]
        assert sent["friends"].tolist() == [[expected_hash(v).encode() for v in "ab"]]
        assert sent["item_id"].tolist() == [expected_hash(v).encode() for v in items]
        assert b"leak" not in call.request.SerializeToString()


def test_a_manifest_says_what_to_hash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no polyrank_manifest"):
        RequestPrivacy.from_version(tmp_path)
    manifest = tmp_path / "polyrank_manifest.json"
    manifest.write_text(json.dumps({"privacy": None}))
    assert RequestPrivacy.from_version(tmp_path) is None
    manifest.write_text(json.dumps({"privacy": RECORD}))
    found = RequestPrivacy.from_version(tmp_path, {KEY_ENV: SECRET})
    assert found is not None and found.columns == ("user_id", "friends")


def test_a_request_file_says_whether_its_values_are_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, SECRET)
    path = tmp_path / "request.json"
    request = {"context": {"user_id": PERSON}, "candidates": [{"item_id": "a"}], "pii": RECORD}
    path.write_text(json.dumps(request))
    read = read_request(path)
    assert read.privacy is not None
    assert read.privacy.hidden(read.context) == {"user_id": expected_hash(PERSON)}
    path.write_text(json.dumps(request | {"pii": RECORD | {"hashed": True}}))
    assert read_request(path).privacy is None
    path.write_text(json.dumps(request | {"pii": {"columns": ["user_id"]}}))
    with pytest.raises(DataError, match="pii is not complete"):
        read_request(path)


def test_hashing_a_request_needs_no_tensorflow() -> None:
    code = (
        "import sys\n"
        "import serving.privacy, serving.client, pipeline.ranking_request\n"
        "sys.exit(', '.join({'tensorflow', 'tfx', 'polars'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
