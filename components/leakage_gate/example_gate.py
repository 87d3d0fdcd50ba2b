"""The decision about examples, free of TFX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.data_gate.limits import Limits
from components.leakage_gate.audit import AuditResult, audit, telling_rows
from components.leakage_gate.example_rows import POSITION, SPLIT, SPLITS, ExampleRows
from components.leakage_gate.raw_world import RawWorld
from components.leakage_gate.single_feature import Suspicion, suspicions, unassessable_outputs
from components.log_example_gen.spec import DatasetSpec
from components.verdict import Verdict
from models.spec.ranking import RankingSpec

NAME = "data_leakage_gate"
SAMPLE_ROWS = 30_000
"""Train rows on which single features are assessed: the standard error of an AUC is under .01
with 1,000 positives."""

_SEED = 20_170_611
_NUM_SHOWN = 10


def judge_examples(
    dataset: DatasetSpec, limits: Limits, accounts: Mapping[str, Any], examples_uri: str
) -> Verdict:
    """Decides whether examples know nothing that a request could not.

    Args:
        dataset: The raw logs and what they mean.
        limits: `max_single_feature_auc` and `audit_rows`.
        accounts: The content of `accounts.json`.
        examples_uri: Root of the Examples artifact.
    """
    world = RawWorld(dataset)
    try:
        return _judge(world, limits, accounts, examples_uri)
    finally:
        world.close()


def _judge(
    world: RawWorld, limits: Limits, accounts: Mapping[str, Any], examples_uri: str
) -> Verdict:
    ranking = world.ranking
    keys = telling_rows(world, limits.audit_rows)
    sizes = {split: int(accounts["examples"][split]) for split in SPLITS}
    sample, audited = _positions(sizes, max(limits.audit_rows - len(keys), len(SPLITS)))
    rows = ExampleRows(examples_uri, ranking)
    positions = audited | {"train": np.union1d(audited["train"], sample)}
    by_position, by_key = rows.read(positions, keys)

    train = by_position.filter(pc.equal(by_position[SPLIT], "train"))
    found = list(suspicions(ranking, train, _SEED))
    suspicious = [s for s in found if s.auc > limits.max_single_feature_auc]
    waived = [s for s in suspicious if _is_waived(ranking, s.column)]
    reasons = [_suspicion_reason(ranking, s, limits) for s in suspicious if s not in waived]

    at_random = pa.concat_tables(
        by_position.filter(
            pc.and_(
                pc.equal(by_position[SPLIT], split),
                pc.is_in(by_position[POSITION], value_set=pa.array(audited[split])),
            )
        )
        for split in SPLITS
    )
    missing = keys - frozenset(rows.keys(by_key))
    once = frozenset(rows.keys(at_random))
    by_key = by_key.filter(pa.array([key not in once for key in rows.keys(by_key)], pa.bool_()))
    result = audit(world, pa.concat_tables([at_random, by_key]).combine_chunks(), missing)
    reasons += result.reasons
    return Verdict(
        NAME, not reasons, tuple(reasons), _details(ranking, train, found, waived, result)
    )


def _positions(
    sizes: Mapping[str, int], num_audited: int
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Draws the sample of train rows, and the audited rows of each split, ascending."""
    rng = np.random.default_rng(_SEED)

    def draw(size: int, count: int) -> NDArray[np.int64]:
        return np.sort(rng.choice(size, min(size, count), replace=False))

    sample = draw(sizes["train"], SAMPLE_ROWS)
    return sample, {split: draw(sizes[split], -(-num_audited // len(SPLITS))) for split in SPLITS}


def _is_waived(ranking: RankingSpec, name: str) -> bool:
    column = ranking.columns.get(name)
    return column is not None and column.suspicion_waived


def _suspicion_reason(ranking: RankingSpec, suspicion: Suspicion, limits: Limits) -> str:
    remedy = (
        "remedy: declare when the column is really known (availability: future), or, if a request "
        "does carry it, set suspicion_waived: true and say why"
        if suspicion.column in ranking.columns
        else "remedy: check the feature's events, window and availability_lag; if it is right, "
        "raise data_checks.max_single_feature_auc"
    )
    return (
        f"column {suspicion.column}: alone predicts task {suspicion.output.task} (output "
        f"{suspicion.output.name}) with an AUC of {suspicion.auc:.4f} by its {suspicion.reading}, "
        f"limit max_single_feature_auc {limits.max_single_feature_auc:g}; {remedy}"
    )


def _details(
    ranking: RankingSpec,
    train: pa.Table,
    found: list[Suspicion],
    waived: list[Suspicion],
    result: AuditResult,
) -> dict[str, Any]:
    def as_json(suspicion: Suspicion) -> dict[str, Any]:
        return {
            "column": suspicion.column,
            "output": suspicion.output.name,
            "auc": round(suspicion.auc, 6),
            "reading": suspicion.reading,
        }

    strongest = sorted(found, key=lambda s: (-s.auc, s.column, s.output.name))[:_NUM_SHOWN]
    features = ranking.features
    return {
        "sample_rows": len(train),
        "strongest": [as_json(s) for s in strongest],
        "waived": [as_json(s) for s in waived],
        "unassessable_outputs": unassessable_outputs(ranking, train),
        "audited_rows": result.num_rows,
        "audited_by_split": result.num_by_split,
        "audited": list(result.compared),
        "not_audited_logged": sorted(n for n, f in features.items() if f.source == "logged"),
    }
