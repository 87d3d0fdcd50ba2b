"""The ways from logs to examples that are compared; each runs in a process of its own.

    python -m benchmarks.ingestion.contestants NAME DATASET.json OUT

prints the processor and wall seconds of the work alone, imports left out, as JSON. The contestants
use the cores that the process may run on.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from components.log_example_gen.spec import DatasetSpec


def ours(spec: DatasetSpec, out: Path) -> Callable[[], None]:
    """LogExampleGen from raw logs: validation, joins, labels, masks, splits, accounts.

    One thread of Beam per core, as `beam.direct_num_workers` is meant to be set.
    """
    import apache_beam as beam

    from components.log_example_gen.executor import generate_examples
    from pipeline.config import Beam

    def work() -> None:
        pipeline = beam.Pipeline(argv=list(Beam(direct_num_workers=_cores()).pipeline_arguments))
        generate_examples(spec, str(out / "examples"), str(out / "accounts"), pipeline)

    return work


def stock(spec: DatasetSpec, out: Path) -> Callable[[], None]:
    """TFX's ParquetExampleGen, row by row, from one table in which everything is joined already.

    It is given what it cannot do: the joined table, labels and masks included. One Beam worker, as
    TFX has it unless told otherwise: Python's lock leaves further threads nothing to do.
    """
    import apache_beam as beam
    from tfx.components.example_gen.custom_executors import parquet_executor
    from tfx.proto import example_gen_pb2
    from tfx.types import standard_artifacts, standard_component_specs
    from tfx.utils import proto_utils

    splits = [
        example_gen_pb2.Input.Split(name=name, pattern=f"{name}/*")
        for name in ("train", "validation", "test")
    ]
    context = parquet_executor.Executor.Context(beam_pipeline_args=["--runner=FnApiRunner"])
    executor = parquet_executor.Executor(context)
    examples = standard_artifacts.Examples()
    examples.uri = str(out / "examples")
    examples.split_names = json.dumps([split.name for split in splits])
    properties = {
        standard_component_specs.INPUT_BASE_KEY: str(spec.root / "joined"),
        standard_component_specs.INPUT_CONFIG_KEY: proto_utils.proto_to_json(
            example_gen_pb2.Input(splits=splits)
        ),
        standard_component_specs.OUTPUT_CONFIG_KEY: proto_utils.proto_to_json(
            example_gen_pb2.Output()
        ),
        standard_component_specs.OUTPUT_DATA_FORMAT_KEY: (
            example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE
        ),
    }
    assert beam.__version__

    def work() -> None:
        executor.Do({}, {standard_component_specs.EXAMPLES_KEY: [examples]}, properties)

    return work


def floor(spec: DatasetSpec, out: Path) -> Callable[[], None]:
    """The least that has to be done: a DuckDB join, C++ encoding, tf.io.TFRecordWriter.

    No checks of values, no accounts, no dead letters, no order, nothing in parallel but DuckDB.
    """
    import duckdb
    import pyarrow as pa
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    from benchmarks.ingestion.floor_query import floor_query

    def work() -> None:
        encoder = example_coder.RecordBatchToExamplesEncoder()
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        writers = {}
        for split in ("train", "validation", "test"):
            folder = out / "examples" / f"Split-{split}"
            folder.mkdir(parents=True)
            writers[split] = tf.io.TFRecordWriter(str(folder / "part.gz"), options)
        result = duckdb.connect().sql(floor_query(spec)).to_arrow_reader(65_536)
        for batch in result:
            split_column = batch.column("split")
            names = [name for name in batch.schema.names if name != "split"]
            lists = [_one_each(batch.column(name)) for name in names]
            whole = pa.RecordBatch.from_arrays(lists, names)
            for split in split_column.unique().to_pylist():
                rows = whole.filter(pa.compute.equal(split_column, split))
                for record in encoder.encode(rows):
                    writers[split].write(record)
        for writer in writers.values():
            writer.close()

    def _one_each(values: pa.Array) -> pa.Array:
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = values.cast(pa.binary())
        offsets = pa.array(range(len(values) + 1), pa.int32())
        return pa.ListArray.from_arrays(offsets, values, mask=values.is_null())

    return work


CONTESTANTS = {"ours": ours, "stock": stock, "floor": floor}


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    """Runs one contestant once."""
    name, dataset, out = sys.argv[1:]
    spec = DatasetSpec.model_validate_json(Path(dataset).read_text())
    work = CONTESTANTS[name](spec, Path(out))
    cpu, wall = _cpu_seconds(), time.monotonic()
    work()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "cpu_seconds": _cpu_seconds() - cpu,
        "wall_seconds": time.monotonic() - wall,
        "peak_mib": peak_kib / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
