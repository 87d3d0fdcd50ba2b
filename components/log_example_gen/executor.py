"""Runs the Beam graph and describes what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import artifact, artifact_utils

from components.log_example_gen.accounts import refuse_useless
from components.log_example_gen.beam_graph import (
    ACCOUNTS_FILE,
    FEATURES_FOLDER,
    add_example_graph,
    snapshot_file,
)
from components.log_example_gen.example_files import FILE_FORMAT
from components.log_example_gen.faults import find_fault
from components.log_example_gen.lookup_file import write_lookup
from components.log_example_gen.plan import Plan
from components.log_example_gen.spec import DatasetSpec
from components.log_example_gen.splits import SPLITS
from components.log_example_gen.table_store import table_store
from serving.snapshot_format import FILE_NAME as LOOKUP_FILE

Artifacts = dict[str, list[artifact.Artifact]]


class Executor(base_beam_executor.BaseBeamExecutor):
    """Reads raw logs, joins them in time and writes training examples and their accounts."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Writes `Split-train`, `Split-validation`, `Split-test`, accounts and snapshots.

        Args:
            input_dict: Empty.
            output_dict: `examples`, `accounts`.
            exec_properties: `spec_json`, a `DatasetSpec`.

        Raises:
            DataError: The logs cannot be used.
            ConfigError: An expression fails.
        """
        spec = DatasetSpec.model_validate_json(exec_properties["spec_json"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        accounts = artifact_utils.get_single_instance(output_dict["accounts"])
        generate_examples(spec, examples.uri, accounts.uri, self._make_beam_pipeline())
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, FILE_FORMAT)


def generate_examples(
    spec: DatasetSpec, examples_uri: str, accounts_uri: str, pipeline: beam.Pipeline
) -> dict[str, Any]:
    """Runs the graph of a dataset.

    Args:
        spec: The dataset.
        examples_uri: Folder for `Split-*`.
        accounts_uri: Folder for accounts, dead letters and the snapshot (Parquet and look-up file).
        pipeline: A new pipeline.

    Returns:
        The contents of ``accounts.json``.

    Raises:
        DataError: The logs cannot be used, or leave a split empty.
        ConfigError: An expression fails.
    """
    run_example_graph(spec, examples_uri, accounts_uri, pipeline)
    found: dict[str, Any] = json.loads(Path(accounts_uri, ACCOUNTS_FILE).read_text())
    refuse_useless(found)
    plan = Plan(spec)
    if plan.entity_sets:
        folder = Path(accounts_uri, FEATURES_FOLDER)
        tables = ((e, pl.read_parquet(folder / snapshot_file(e))) for e in plan.entity_sets)
        write_lookup(plan, tables, folder / LOOKUP_FILE)
    return found


def run_example_graph(
    spec: DatasetSpec, examples_uri: str, accounts_uri: str, pipeline: beam.Pipeline
) -> None:
    """Runs the graph of a dataset, whatever the splits come to hold; see `generate_examples`."""
    with table_store(pipeline, accounts_uri) as store:
        add_example_graph(pipeline, spec, examples_uri, accounts_uri, store)
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:
            fault = find_fault(error)
            if fault is None:
                raise
            raise fault from error
