"""The EB-NeRD example's configuration, on its stand-in."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.log_example_gen.build import build_examples, read_logs
from examples.ebnerd.convert_sample import convert
from examples.ebnerd.stand_in import write
from pipeline.load import load_config
from pipeline.plan import make_dataset

_CONFIG = Path(__file__).parents[2] / "examples" / "ebnerd" / "config.yaml"


def test_every_shown_article_is_accounted_for_and_the_second_week_is_the_test_split(tmp_path):
    shown = write(tmp_path, slates=400, seed=0)
    spec = make_dataset(load_config(_CONFIG, [f"logs.root={tmp_path}"]), None, None)
    built = build_examples(spec, read_logs(spec))
    sizes = {split: len(frame) for split, frame in built.examples.items()}
    assert sizes["test"] == shown["validation"]
    assert sizes["train"] + sizes["validation"] == shown["train"]
    assert built.dead.num_rows == 0


def test_the_converted_sample_keeps_every_slate_once(tmp_path):
    write(tmp_path / "weeks", slates=200, seed=1)
    week = tmp_path / "weeks" / "train"
    counts = convert(week, tmp_path / "out", days=2.0)
    parts = {p: pq.read_table(tmp_path / "out" / p / "behaviors.parquet") for p in counts}
    assert {p: rows.num_rows for p, rows in parts.items()} == counts
    assert sum(counts.values()) == 100
    assert min(counts.values()) > 0
    last_of_train = pc.max(parts["train"]["impression_time"]).as_py()
    assert last_of_train < pc.min(parts["validation"]["impression_time"]).as_py()
