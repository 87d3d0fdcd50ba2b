"""The page of the comparison with peers, from what was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

OURS, THEIRS = "polyrank", "deepctr"
MARGIN = 0.001
"""Our mean AUC may be lower by this and still count as equal."""


def page(result: dict[str, Any]) -> str:
    """Returns the page."""
    setting, sides = result["setting"], result["sides"]
    rows, model = setting["rows"], setting["model"]
    tasks = list(sides[OURS]["auc"])
    lines = [
        "# The same MMoE in DeepCTR\n\n"
        "Made by `python -m benchmarks.peers.run` (how: `benchmarks/peers/README.md`): UCI "
        f"Census-Income, {' and '.join(tasks)}, {rows['train']:,} train\nand {rows['test']:,} test "
        f"rows; {model['num_experts']} experts {model['expert_units']}, towers "
        f"{model['tower_units']}, Adam 0.001, batches of {setting['batch_size']:,}, "
        f"{setting['num_epochs']} epochs without early\nstopping, {setting['num_seeds']} seeds. "
        "Both get the same encoded inputs: polyrank from the pipeline's files, DeepCTR from arrays "
        f"in memory.\nMachine: {setting['machine']}, shared with others: trust the ratios, which "
        "compare epochs run in turns.\n\n"
        "## Test AUC\n\nMeans with 95 % t-intervals over seeds.\n\n"
        "| | " + " | ".join(tasks) + " | parameters |\n" + "|---" * (len(tasks) + 2) + "|\n"
    ]
    for name in (OURS, THEIRS):
        cells = " | ".join(_told(*interval(sides[name]["auc"][task])) for task in tasks)
        lines.append(f"| {name} | {cells} | {sides[name]['parameters']:,} |\n")
    gaps = {
        task: interval(np.subtract(sides[OURS]["auc"][task], sides[THEIRS]["auc"][task]))
        for task in tasks
    }
    lines.append(f"| difference | {' | '.join(_told(*gaps[t], sign='+') for t in tasks)} | |\n\n")
    for task, (mean, _) in gaps.items():
        met = "met" if mean >= -MARGIN else "not met"
        lines.append(f"{task}, within {MARGIN} or better: {met}.\n")
    parts = _profile(result) if "profile" in result else []
    return "".join([*lines, *_speed(result), *parts])


def _speed(result: dict[str, Any]) -> list[str]:
    sides, num_rows = result["sides"], result["setting"]["rows"]["train"]
    steady = {name: _epochs(sides[name], "wall")[:, 1:] for name in (OURS, THEIRS)}
    whole = {name: _epochs(sides[name], "wall").sum(axis=1) for name in (OURS, THEIRS)}
    whole[OURS] = whole[OURS] + np.array([r["wall"] for r in sides[OURS]["reading"]])
    busy = {name: _epochs(sides[name], "cpu")[:, 1:] for name in (OURS, THEIRS)}
    total = num_rows * result["setting"]["num_epochs"]
    table = {
        "epochs after the first": {n: num_rows / np.median(s) for n, s in steady.items()},
        "whole training, ours with reading its files": {
            n: total / np.median(s) for n, s in whole.items()
        },
    }
    ratios = {
        "epochs after the first": np.median(steady[THEIRS] / steady[OURS]),
        "whole training, ours with reading its files": np.median(whole[THEIRS] / whole[OURS]),
    }
    lines = [
        "\n## Training speed\n\nExamples per second, medians; the ratio is the median over pairs "
        "that ran in turns. The first epoch also traces the graph.\n\n"
        f"| | {OURS} | {THEIRS} | ratio |\n|---|---|---|---|\n"
    ]
    for name, speeds in table.items():
        lines.append(
            f"| {name} | {speeds[OURS]:,.0f} | {speeds[THEIRS]:,.0f} | {ratios[name]:.2f} x |\n"
        )
    lines.append(
        f"| CPU seconds an epoch | {np.median(busy[OURS]):.1f} | {np.median(busy[THEIRS]):.1f} "
        f"| {np.median(busy[THEIRS] / busy[OURS]):.2f} x |\n\n"
    )
    met = "met" if min(ratios.values()) >= 1 else "not met"
    lines.append(f"At least 1 x from the pipeline's files: {met}.\n")
    return lines


def _profile(result: dict[str, Any]) -> list[str]:
    seconds, num_rows = result["profile"], result["setting"]["rows"]["train"]
    step = seconds["step"]
    lines = [
        "\n## What bounds ours\n\nCPU seconds of parts that run alone, for as many rows as the "
        "train split has.\n\n"
        "| part | CPU seconds | rows per CPU second | of the step |\n|---|---|---|---|\n"
    ]
    for name, value in seconds.items():
        lines.append(f"| {name} | {value:.2f} | {num_rows / value:,.0f} | {value / step:.0%} |\n")
    lines.append(
        "\nA step is forward, backward and the optimizers. Rows that fit in memory are read from "
        "their files once; `input\nfrom files` is what every epoch would cost where they do not, "
        "beside the step.\n"
    )
    return lines


def _epochs(side: dict[str, Any], clock: str) -> NDArray[np.float64]:
    return np.array([[epoch[clock] for epoch in training] for training in side["epochs"]])


def interval(values: Any) -> tuple[float, float]:
    """Returns the mean and the half-width of its 95 % t-interval."""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return float(np.mean(values)), float(half)


def _told(mean: float, half: float, sign: str = "") -> str:
    return f"{mean:{sign}.4f} ± {half:.4f}"
