"""What a run leaves behind, made from synthetic impressions: inputs of the page."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from components.report.comparisons import Resampling, report_data
from components.report.floor_scores import FLOORS, FloorScores
from components.report.inputs import ReportInputs
from components.verdict import Verdict
from models.metrics.columns import TaskColumns
from models.metrics.estimation import bootstrap, compute
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate
from tests.browser.synthetic_rows import (
    DAY_MS,
    SPLIT_STARTS,
    START_MS,
    Impressions,
    impressions,
    ranking_spec,
    write_predictions,
)

NOISE = {
    "single_task": 0.75,
    "shared_bottom": 0.65,
    "mmoe": 0.4,
    "mmoe_alone": 0.5,
    "cross_stitch": 0.45,
}
CHAMPION = "mmoe"
NUM_REPLICATES = 60
CHANGE = {"value": 0.0042, "low": 0.0011, "high": 0.0071}
COMPONENTS = {
    "LogExampleGen": 41.2,
    "StatisticsGen": 14.8,
    "SchemaFromConfig": 0.4,
    "DataGate": 2.3,
    "Transform": 38.9,
    **{f"Trainer.{name}": 30.0 + 3 * i for i, name in enumerate(NOISE)},
    **{f"Scorer.{name}": 6.1 for name in NOISE},
    **{f"Evaluator.{name}": 17.5 for name in NOISE},
    "LeakageGate": 5.2,
    "ServingCheck": 19.4,
    "Champion": 0.9,
    "ModelPusher": 1.1,
    "Report": 9.6,
}


@dataclass(frozen=True)
class Run:
    """The inputs of a page and the rows behind them."""

    inputs: ReportInputs
    rows: Impressions


def candidates() -> dict[str, Candidate]:
    """Five candidates; mmoe and mmoe_alone differ only in the auxiliary tasks."""
    architecture = {"mmoe_alone": "mmoe"}
    return TypeAdapter(dict[str, Candidate]).validate_python(
        {
            name: {
                "model": {"architecture": architecture.get(name, name)},
                "auxiliary": name != "mmoe_alone",
            }
            for name in NOISE
        }
    )


def make_run(folder: Path, *, num_rows: int = 20_000, min_auc: float = 0.6, seed: int = 7) -> Run:
    """Makes a run that pushed mmoe, or with a high `min_auc` one that every gate refused."""
    ranking = ranking_spec(min_auc=min_auc)
    rows = impressions(num_rows, seed=seed)
    files = write_predictions(rows, ranking, NOISE, folder)
    tables = {n: pq.read_table(p).filter(pc.field("split") == "test") for n, p in files.items()}
    summary = _summary(rows, ranking, tables)
    verdicts = [
        Verdict("data", True, (), {"drift": {}}),
        Verdict("leakage", True, (), {"candidates": {n: [] for n in NOISE}}),
        Verdict("serving", True, (), {"candidates": {n: [] for n in NOISE}}),
        _champion_verdict(summary),
    ]
    previous = {
        "run_id": "feed-20260304",
        "champion": "shared_bottom",
        "candidates": {
            "shared_bottom": {"metrics": summary["candidates"]["shared_bottom"]["metrics"]}
        },
    }
    inputs = ReportInputs(
        summary=summary,
        ranking=ranking,
        training={name: _training(name, ranking, i) for i, name in enumerate(NOISE)},
        insights={name: _insights(name, ranking) for name in NOISE},
        accounts=_accounts(rows, ranking),
        lags={
            "champion": "mmoe",
            "declared": {"click": {"auc": 0.75}},
            "lags": [{"lag_ms": 3_600_000, "metrics": {"click": {"auc": 0.73}}}],
        },
        wants_lags=True,
        report_data=_report_data(ranking, tables),
        predictions=files,
        verdicts=verdicts,
        previous_summary=previous,
    )
    return Run(inputs, rows)


def refused_before_training() -> ReportInputs:
    """A run that the data gate stopped: no candidate, no predictions, little else."""
    return ReportInputs(
        summary={
            "schema_version": 1,
            "run_id": "feed-20260312-refused",
            "pipeline": "feed",
            "state": "refused",
            "error": None,
            "rows": {
                "impressions": {"read": 100, "used": 90, "duplicates": 0, "dead": {"late": 9}}
            },
            "components": [
                {"name": "DataGate", "state": "complete", "seconds": 2.0},
                {"name": "Transform", "state": "not_run", "seconds": 0.0},
            ],
            "candidates": {},
        },
        ranking=ranking_spec(),
        verdicts=[
            Verdict("data", False, ("clicks: 31 % of the rows are dead, at most 5 % may be",))
        ],
    )


def failed_at_start() -> ReportInputs:
    """A run that died before anything was written, with the barest summary."""
    error = "Trainer.mmoe ran out of memory; remedy: lower training.batch_size"
    return ReportInputs(summary={"state": "failed", "error": error}, ranking=ranking_spec())


def _columns(table: Any, output: str) -> TaskColumns:
    def code(name: str) -> Any:
        return np.unique(table[name].to_numpy(zero_copy_only=False), return_inverse=True)[1]

    return TaskColumns(
        label=table[f"{output}__label"].to_numpy(),
        prediction=table[f"{output}__prediction"].to_numpy(),
        weight=table[f"{output}__weight"].to_numpy(),
        group=code("request_id"),
        cluster=code("user_id"),
    )


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc).isoformat()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _metrics(table: Any, ranking: RankingSpec) -> dict[str, Any]:
    found = {}
    for output in ranking.outputs:
        columns = _columns(table, output.name)
        intervals = bootstrap(output.metrics, columns, NUM_REPLICATES, seed=0)
        found[output.name] = {
            metric: {key: _finite(value) for key, value in asdict(i).items()}
            for metric, i in intervals.items()
        }
    return found


def _gates(metrics: dict[str, Any], ranking: RankingSpec) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for output in ranking.outputs:
        for metric, gate in output.gates:
            value = metrics[output.name][metric]["value"]
            row = {"task": output.name, "metric": metric, "kind": "value", "value": value}
            if gate.min is not None:
                passed = value >= gate.min
                rows.append({**row, "bound": "lower", "threshold": gate.min, "passed": passed})
            if gate.max is not None:
                passed = value <= gate.max
                rows.append({**row, "bound": "upper", "threshold": gate.max, "passed": passed})
            if gate.max_drop is not None:
                change = {"kind": "change", "bound": "lower", "threshold": -gate.max_drop}
                rows.append({**row, **change, "value": CHANGE["value"], "passed": True})
    return rows


def _summary(rows: Impressions, ranking: RankingSpec, tables: dict[str, Any]) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for number, (name, table) in enumerate(tables.items()):
        metrics = _metrics(table, ranking)
        gates = _gates(metrics, ranking)
        slices = {}
        for device in sorted(set(table["device"].to_pylist())):
            slices[f"device={device}"] = _metrics(
                table.filter(pc.field("device") == device), ranking
            )
        measured[name] = {
            "blessed": all(row["passed"] for row in gates),
            "parameters": 120_000 + 9_000 * number,
            "train_seconds": 30.0 + number,
            "metrics": metrics,
            "slices": slices,
            "changes": {"click": {"auc": CHANGE}},
            "refusals": [],
            "gates": gates,
        }
    pushed = measured[CHAMPION]["blessed"]
    oracle = {}
    test = rows.split("test")
    for output in ranking.outputs:
        exact = TaskColumns(
            label=rows.labels[output.name][test],
            prediction=rows.truth[output.name][test],
            weight=rows.weights[output.name][test],
            group=np.arange(len(test)) // 10,
            cluster=np.arange(len(test)) // 10,
        )
        oracle[output.name] = compute(output.metrics, exact)
    ends = dict(zip(SPLIT_STARTS, [*list(SPLIT_STARTS.values())[1:], 7], strict=True))
    sizes = {split: len(rows.split(split)) for split in SPLIT_STARTS}
    exploded = sum(sizes.values()) + 31
    return {
        "schema_version": 1,
        "run_id": "feed-20260312-4f1c9a",
        "pipeline": "feed",
        "config_hash": "9d0c7e52",
        "state": "succeeded" if pushed else "refused",
        "error": None,
        "window": {
            split: [_iso(START_MS + start * DAY_MS), _iso(START_MS + ends[split] * DAY_MS - 1)]
            for split, start in SPLIT_STARTS.items()
        },
        "rows": {
            "impressions": {
                "read": exploded + 212,
                "used": exploded,
                "duplicates": 180,
                "dead": {"malformed": 20, "oversized": 12},
            },
            "clicks": {"read": 2_530, "used": 2_500, "duplicates": 12, "dead": {"orphan": 18}},
        },
        "examples": {"exploded": exploded, "dead": {"conflict": 31}, **sizes},
        "components": [
            {
                "name": name,
                "state": "cached" if name == "StatisticsGen" else "complete",
                "cached": name == "StatisticsGen",
                "seconds": 0.2 if name == "StatisticsGen" else seconds,
                "cpu_seconds": seconds * 1.6,
                "peak_rss_bytes": int(8e8 + 1e7 * seconds),
            }
            for name, seconds in COMPONENTS.items()
        ],
        "candidates": measured,
        "champion": CHAMPION if pushed else None,
        "pushed": {"model": "feed", "version": 1_773_273_600, "path": "serving/feed/1773273600"}
        if pushed
        else None,
        "oracle": oracle,
    }


def _champion_verdict(summary: dict[str, Any]) -> Verdict:
    objective = {n: 2.1 - 0.1 * noise for n, noise in NOISE.items()}
    refusals = {
        n: [] if c["blessed"] else ["a metric gate failed"]
        for n, c in summary["candidates"].items()
    }
    reasons = tuple(f"{n}: {'; '.join(r)}" for n, r in refusals.items() if r)
    details = {"champion": summary["champion"], "objective": objective, "refusals": refusals}
    return Verdict("champion", summary["champion"] is not None, reasons, details)


def _training(name: str, ranking: RankingSpec, number: int) -> dict[str, Any]:
    def decay(epoch: int, start: float) -> float:
        return start * (0.6 + 0.4 * math.exp(-(0.4 + 0.1 * number) * epoch))

    epochs = []
    for epoch in range(1, 7):
        loss = {task: decay(epoch, 1 + len(task) / 20) for task in ranking.tasks}
        validation = {
            o.name: {m: 0.55 + 0.2 * (1 - decay(epoch, 1.0)) + 0.004 * number for m in o.metrics}
            for o in ranking.outputs
        }
        record = {
            "epoch": epoch,
            "train_loss": {**loss, "total": sum(loss.values())},
            "penalties": {"importance": decay(epoch, 0.3)} if name.startswith("mmoe") else {},
        }
        if name == "mmoe":
            record["task_weights"] = {t: 1 + 0.1 * i * epoch for i, t in enumerate(loss)}
        epochs.append({**record, "validation": validation, "objective": 2.0 - decay(epoch, 1.0)})
    return {
        "candidate": name,
        "architecture": "mmoe" if name == "mmoe_alone" else name,
        "parameters": 120_000 + 9_000 * number,
        "train_seconds": 30.0 + number,
        "best_epoch": 5,
        "examples_per_second": 48_000 - 2_000 * number,
        "auxiliary": name != "mmoe_alone",
        "balancer": {"kind": "dwa" if name == "mmoe" else "fixed"},
        "epochs": epochs,
    }


def _insights(name: str, ranking: RankingSpec) -> dict[str, Any]:
    tasks = sorted(ranking.tasks)
    rng = np.random.default_rng(len(name))
    if name == "mmoe":
        return {
            "matrices": [],
            "mixtures": [
                _mixture(rng, "gates", [f"expert_{i}" for i in range(4)], tasks, unused="expert_3"),
                _mixture(rng, "attention", ["own", "received"], tasks[:2]),
            ],
        }
    if name == "mmoe_alone":
        sources = ["own_0", "own_1", "shared_0", "shared_1"]
        return {"matrices": [], "mixtures": [_mixture(rng, "gates of level 2", sources, tasks)]}
    if name == "cross_stitch":
        size = len(tasks)
        matrices = [
            {
                "name": f"stitch after layer {layer}",
                "rows": tasks,
                "columns": tasks,
                "values": (0.9 * np.eye(size) + 0.06 * rng.normal(size=(size, size)))
                .round(4)
                .tolist(),
            }
            for layer in (1, 2)
        ]
        layers = ["layer 1", "layer 2", "layer 3"]
        betas = rng.dirichlet([1.0] * 3, size).round(4).tolist()
        matrices.append(
            {"name": "beta over layers", "rows": tasks, "columns": layers, "values": betas}
        )
        return {"matrices": matrices, "mixtures": []}
    return {"matrices": [], "mixtures": []}


def _mixture(
    rng: np.random.Generator, name: str, sources: list[str], rows: list[str], unused: str = ""
) -> dict[str, Any]:
    def shares() -> dict[str, list[float]]:
        used = [s for s in sources if s != unused]
        found = {}
        for row in rows:
            values = dict(zip(used, rng.dirichlet([1.2] * len(used)), strict=True))
            found[row] = [round(float(values.get(s, 0.002)), 4) for s in sources]
        return found

    weights = shares()
    return {
        "name": name,
        "sources": sources,
        "weights": weights,
        "entropy": {r: float(-sum(p * math.log(p) for p in s if p)) for r, s in weights.items()},
        "unused": [unused] if unused else [],
        "slices": {
            "device": {v: {"num_rows": 1200, "weights": shares()} for v in ("phone", "tv")},
            "weather": {v: {"num_rows": 10, "weights": shares()} for v in ("rain", "sun")},
        },
    }


def _accounts(rows: Impressions, ranking: RankingSpec) -> dict[str, Any]:
    day = ((rows.columns["time_ms"] - START_MS) // DAY_MS).astype(int)
    labels: dict[str, Any] = {}
    for output in ranking.all_outputs:
        weight, label = rows.weights[output.name], rows.labels[output.name].astype(float)

        def counted(where: Any, weight: Any = weight, label: Any = label) -> dict[str, Any]:
            return {
                "rows": int(where.sum()),
                "mature": int(weight[where].sum()),
                "sum": float((weight * label)[where].sum()),
            }

        labels[output.name] = {
            "by_day": {f"2026-03-{5 + d:02d}": counted(day == d) for d in range(7)},
            "by_split": {s: counted(rows.columns["split"] == s) for s in SPLIT_STARTS},
        }
    hour = 3_600_000
    maturity = {
        "click": {
            "window_ms": 4 * hour,
            "ages": [
                {"age_ms": hour, "known": 600, "rows": 9000},
                {"age_ms": 4 * hour, "known": 800, "rows": 6000},
            ],
        }
    }
    counts = {"rows": 2000, "differing": 50, "both": 1990, "absolute": 99.5}
    skew = {"item_clicks": {"test": counts}}
    return {"labels": labels, "maturity": maturity, "skew": skew}


def _report_data(ranking: RankingSpec, tables: dict[str, Any]) -> dict[str, Any]:
    """Comparisons with noise in place of fitted floors, which need TensorFlow to read examples."""
    rng = np.random.default_rng(3)
    first = next(iter(tables.values()))
    floors = {
        floor: FloorScores(
            {
                o.name: first[f"{o.name}__prediction"].to_numpy()
                * np.exp(level * rng.normal(size=first.num_rows))
                for o in ranking.outputs
            },
            {},
        )
        for floor, level in zip(FLOORS, (2.0, 1.5), strict=True)
    }
    return report_data(ranking, candidates(), tables, floors, Resampling(NUM_REPLICATES, 0))
