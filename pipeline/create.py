"""The pipeline, reading top to bottom like its graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx import v1 as tfx
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata
from tfx.types import standard_artifacts

from components.artifacts import LogAccounts
from components.champion.component import champion_class
from components.data_gate.component import DataGate
from components.lag_study.component import lag_study_class
from components.leakage_gate.component import DataLeakageGate, model_leakage_gate_class
from components.log_example_gen.component import LogExampleGen
from components.model_pusher.component import model_pusher_class
from components.report.component import make_report_component
from components.schema_writer.component import SchemaWriter
from components.scorer.component import Scorer
from components.serving_check.component import serving_check_class
from components.transform.component import Transform
from models.spec.keys import slice_feature
from pipeline.code_hash import code_hash, value_hash
from pipeline.evaluation import eval_config
from pipeline.outputs import eval_outputs
from pipeline.plan import RunPlan

STOPPING_GATES = frozenset({"DataGate", "DataLeakageGate", "Champion"})
"""Gates whose refusal ends the run; the others' verdicts are per candidate and feed Champion."""


def create_pipeline(plan: RunPlan) -> tfx.dsl.Pipeline:
    """Builds the TFX pipeline of a run.

    Args:
        plan: The run.

    Returns:
        The pipeline; a pure function of the plan.
    """
    config, ranking = plan.config, plan.config.ranking
    ranking_json = ranking.model_dump_json()
    examples_json = ranking.examples_view.model_dump_json()
    model_json = ranking.model_view.model_dump_json()
    dataset = plan.dataset
    slices = json.dumps(dataset.slice_columns)
    models_hash = code_hash("models")
    nodes: list[Any] = []

    def add(node: Any) -> Any:
        nodes.append(node)
        return node

    # Data ------------------------------------------------------------------------------------
    example_gen = add(
        LogExampleGen(
            spec_json=dataset.model_dump_json(),
            fingerprint=plan.fingerprint,
            code_hash=own_code("components/log_example_gen", "serving/snapshot_format.py"),
        )
    )
    examples = example_gen.outputs["examples"]
    accounts = example_gen.outputs["accounts"]
    schema = add(
        SchemaWriter(
            ranking_json=examples_json,
            slice_columns=slices,
            code_hash=own_code(
                "components/schema_writer", "models/schema.py", "models/feature_layout.py"
            ),
        )
    ).outputs["schema"]
    statistics = add(tfx.components.StatisticsGen(examples=examples, schema=schema)).outputs[
        "statistics"
    ]
    baseline_model = baseline_statistics = baseline_accounts = None
    if plan.baseline is not None:
        baseline_model = add(_baseline("model", plan.baseline.model_uri, standard_artifacts.Model))
        baseline_statistics = add(
            _baseline(
                "statistics", plan.baseline.statistics_uri, standard_artifacts.ExampleStatistics
            )
        )
        baseline_accounts = add(_baseline("accounts", plan.baseline.accounts_uri, LogAccounts))
    checks_json = config.data_limits.model_dump_json()
    data_gate = add(
        DataGate(
            statistics=statistics,
            schema=schema,
            accounts=accounts,
            previous_statistics=baseline_statistics and baseline_statistics.outputs["result"],
            previous_accounts=baseline_accounts and baseline_accounts.outputs["result"],
            ranking_json=ranking_json,
            checks_json=checks_json,
            code_hash=own_code("components/data_gate", "components/log_example_gen"),
        )
    )
    data_leakage_gate = add(
        DataLeakageGate(
            examples=examples,
            accounts=accounts,
            dataset_json=dataset.model_dump_json(),
            checks_json=checks_json,
            code_hash=own_code(
                "components/leakage_gate", "components/log_example_gen", "components/data_gate"
            ),
        )
    )

    # Features --------------------------------------------------------------------------------
    transform = add(
        Transform(
            examples=examples,
            schema=schema,
            preprocessing_fn="models.preprocessing.preprocessing_fn",
            splits_config=tfx.proto.SplitsConfig(
                analyze=["train"], transform=["train", "validation", "test"]
            ),
            disable_statistics=True,
            custom_config={
                "ranking": examples_json,
                "code_hash": own_code(
                    "components/transform",
                    "models/preprocessing.py",
                    "models/feature_layout.py",
                    "models/vocabularies.py",
                ),
            },
        )
    )

    for gate in (data_gate, data_leakage_gate):
        transform.add_upstream_node(gate)

    # Candidates ------------------------------------------------------------------------------
    evaluation_config = eval_config(
        eval_outputs(ranking),
        [[slice_feature(name) for name in names] for names in config.evaluation.slices],
        num_replicates=config.evaluation.num_replicates,
        seed=config.evaluation.seed,
        code_hash=own_code("models/metrics", "pipeline/evaluation.py"),
        baseline_outputs=plan.baseline_outputs if plan.baseline else None,
    )
    models: dict[str, Any] = {}
    evaluators: dict[str, Any] = {}
    predictions: dict[str, Any] = {}
    for name, candidate in config.candidates.items():
        trainer = add(
            tfx.components.Trainer(
                run_fn="models.trainer.run_fn",
                examples=transform.outputs["transformed_examples"],
                transform_graph=transform.outputs["transform_graph"],
                schema=schema,
                train_args=tfx.proto.TrainArgs(splits=["train"]),
                eval_args=tfx.proto.EvalArgs(splits=["validation"]),
                custom_config={
                    "name": name,
                    "ranking": model_json,
                    "training": config.training.model_dump_json(),
                    "candidate": candidate.model_dump_json(),
                    "objective": json.dumps(config.objective),
                    "checkpoint_dir": str(_checkpoint_dir(plan, name, models_hash)),
                    "code_hash": models_hash,
                },
            ).with_id(f"Trainer.{name}")
        )
        models[name] = trainer.outputs["model"]
        predictions[name] = add(
            Scorer(
                model=models[name],
                examples=examples,
                ranking_json=model_json,
                slice_columns=slices,
                code_hash=own_code("components/scorer"),
            ).with_id(f"Scorer.{name}")
        ).outputs["predictions"]
        evaluators[name] = add(
            tfx.components.Evaluator(
                examples=examples,
                model=models[name],
                baseline_model=baseline_model and baseline_model.outputs["result"],
                schema=schema,
                eval_config=evaluation_config,
                # Slices whole batches instead of fanning out rows: three times faster.
                module_path="models.metrics.batch_slicing",
                example_splits=["test"],
            ).with_id(f"Evaluator.{name}")
        )

    # Gates on models -------------------------------------------------------------------------
    by_candidate = {f"model_{name}": channel for name, channel in models.items()}
    scored = {f"predictions_{name}": channel for name, channel in predictions.items()}
    names = list(config.candidates)
    leakage = add(
        model_leakage_gate_class(names)(
            **by_candidate,
            ranking_json=model_json,
            code_hash=own_code("components/leakage_gate"),
        )
    )
    serving = add(
        serving_check_class(names)(
            **by_candidate,
            **scored,
            examples=examples,
            candidates_json=json.dumps(names),
            ranking_json=model_json,
            num_rows=str(config.serving_check.num_rows),
            memory_bytes=json.dumps(config.push.memory_bytes),
            code_hash=own_code("components/serving_check", "components/model_pusher", "serving"),
        )
    )
    report = add(
        make_report_component(names)(
            **scored,
            examples=examples,
            ranking_json=model_json,
            candidates_json=json.dumps(
                {n: c.model_dump(mode="json") for n, c in config.candidates.items()}
            ),
            num_replicates=str(config.evaluation.num_replicates),
            seed=str(config.evaluation.seed),
            code_hash=own_code("components/report", "models/metrics", "models/sampled_weights.py"),
        )
    )

    # Choice and push -------------------------------------------------------------------------
    champion = add(
        champion_class(names)(
            **{f"blessing_{n}": e.outputs["blessing"] for n, e in evaluators.items()},
            **{f"evaluation_{n}": e.outputs["evaluation"] for n, e in evaluators.items()},
            **scored,
            leakage=leakage.outputs["blessing"],
            serving=serving.outputs["blessing"],
            candidates_json=json.dumps(names),
            ranking_json=model_json,
            objective_json=json.dumps(config.objective),
            code_hash=own_code("components/champion", "models/metrics"),
        )
    )
    champion.add_upstream_node(report)
    if config.evaluation.lags:
        add(
            lag_study_class(names)(
                **by_candidate,
                **scored,
                champion=champion.outputs["champion"],
                dataset_json=dataset.model_dump_json(),
                ranking_json=model_json,
                lags_json=json.dumps(config.evaluation.lags),
                fingerprint=plan.fingerprint,
                code_hash=own_code(
                    "components/lag_study", "components/log_example_gen", "components/scorer",
                    "components/champion", "models/metrics", "serving/snapshot_format.py",
                ),
            )
        )  # fmt: skip
    add(
        model_pusher_class(names)(
            **by_candidate,
            champion=champion.outputs["champion"],
            blessing=champion.outputs["blessing"],
            ranking_json=model_json,
            serving_dir=str(plan.workdir.serving),
            model_name=config.model_name,
            memory_bytes=json.dumps(config.push.memory_bytes),
            allow_older=json.dumps(config.push.allow_older),
            deploy_json=config.deploy.model_dump_json(),
            run_id=plan.run_id,
            provenance_json=json.dumps(plan.provenance),
            code_hash=own_code("components/model_pusher", "serving"),
        )
    )
    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(plan.workdir.artifacts),
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(plan.workdir.metadata)
        ),
        components=nodes,
        enable_cache=True,
        beam_pipeline_args=_beam_arguments(plan),
    )


def own_code(*packages: str) -> str:
    """Hashes what a node runs: its packages and what every one of ours imports."""
    shared = ("components/artifacts.py", "components/declare.py", "components/verdict.py")
    return code_hash(*packages, *shared, "models/spec")


def _checkpoint_dir(plan: RunPlan, candidate: str, models_hash: str) -> Path:
    """Names a folder by what determines the training, so that it does not spoil the cache key.

    A run id would: two runs that differ in a gate train the same model.
    """
    config = plan.config
    determined_by = {
        "data": plan.fingerprint,
        "dataset": plan.dataset.model_dump(mode="json"),
        "ranking": config.ranking.model_view.model_dump(mode="json"),
        "training": config.training.model_dump(),
        "candidate": config.candidates[candidate].model_dump(mode="json"),
        "objective": config.objective,
        "code": [models_hash, code_hash("components/log_example_gen")],
    }
    return plan.workdir.checkpoints / f"{candidate}-{value_hash(determined_by)}"


def _baseline(kind: str, uri: str, artifact_type: type[Any]) -> Importer:
    """Brings the earlier window's own artifact into this run's lineage."""
    return Importer(source_uri=uri, artifact_type=artifact_type, reimport=False).with_id(
        f"Baseline.{kind}"
    )


def _beam_arguments(plan: RunPlan) -> list[str]:
    beam = plan.config.beam
    local = [f"--temp_location={Path(plan.workdir.root, 'tmp')}"]
    return [*beam.pipeline_arguments, *(local if beam.runner == "FnApiRunner" else [])]
