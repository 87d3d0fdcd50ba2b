"""The page of the Census table, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

PAIRS = {"income": ("income", "never_married"), "education": ("college", "never_married")}
"""The two task groups; the first task of each is the one they are named for."""
ARCHITECTURES = ("single_task", "shared_bottom", "mmoe", "cross_stitch", "ple", "aitm")
_BASE = "single_task"
_LABELS = {"aitm": "aitm without transfers"}
_PAPER = {
    ("income", "income"): {
        "single_task": 0.9337, "shared_bottom": 0.9295, "cross_stitch": 0.9361, "mmoe": 0.9359,
    },
    ("education", "college"): {
        "single_task": 0.8792, "shared_bottom": 0.8813, "cross_stitch": 0.8819, "mmoe": 0.8826,
    },
}  # fmt: skip
"""Mean test AUC in Ma et al., tables 1 and 2."""
_GRADIENT_BOOSTING = {"income": 0.9502, "never_married": 0.9945, "college": 0.8978}
"""One model per task on the same inputs."""
_SAME = 5
"""Seeds in each set of the A/A comparison."""

Record = dict[str, Any]


def page(records: Sequence[Record]) -> str:
    """Lays out every finished training as Markdown."""
    parts = [_HEAD]
    for pair in PAIRS:
        finals = {name: _of(records, pair, name, "final") for name in ARCHITECTURES}
        trials = {name: len(_of(records, pair, name, "trial")) for name in ARCHITECTURES}
        parts.append(f"## {pair.capitalize()} and marital status\n\n{_budget(trials, finals)}\n")
        if any(finals.values()):
            parts += [_table(pair, finals), _verdict(pair, finals)]
    parts.append(_same([r for r in records if r["kind"] == "same"]))
    return "\n".join(part for part in parts if part)


_HEAD = """# Multi-task architectures on Census-Income

`python -m benchmarks.architectures.run` made this page (`benchmarks/architectures/README.md`).
Inputs, code and budget are the same for every architecture: as many random-search trials, judged by
the sum of both AUCs on the validation half, at most 8 epochs with early stopping; then the best
settings under other seeds, on the test half. AUCs are means with 95 % t-intervals over seeds;
differences to single_task have Welch's. aitm passes on what one outcome says of the next; here no
outcome follows on another, so it had nothing to pass on and is a second single_task, of 128 and 64
units: a repetition of the base, not a result of sharing.
"""


def _of(records: Sequence[Record], pair: str, name: str, kind: str) -> list[Record]:
    wanted = (pair, name, kind)
    return [r for r in records if (r["pair"], r["architecture"], r["kind"]) == wanted]


def _budget(trials: dict[str, int], finals: dict[str, list[Record]]) -> str:
    if len(set(trials.values())) == 1 and len({len(f) for f in finals.values()}) == 1:
        num_seeds = len(next(iter(finals.values())))
        return f"{next(iter(trials.values()))} trials and {num_seeds} seeds each."
    told = ", ".join(f"{name} {trials[name]} + {len(finals[name])}" for name in ARCHITECTURES)
    return f"**Not finished**: trials + seeds so far: {told}."


def _table(pair: str, finals: dict[str, list[Record]]) -> str:
    tasks = PAIRS[pair]
    columns = [
        "architecture",
        *(cell for task in tasks for cell in (task, f"{task} - {_BASE}")),
        f"paper, {tasks[0]}",
        "parameters",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, runs in finals.items():
        if not runs:
            continue
        cells = [_LABELS.get(name, name)]
        for task in tasks:
            aucs = _aucs(runs, task)
            cells.append(f"{np.mean(aucs):.4f} ± {_half_width(aucs):.4f}")
            low, high = difference(aucs, _aucs(finals[_BASE], task))
            is_told = name != _BASE and np.isfinite(low)
            cells.append(f"[{low:+.4f}, {high:+.4f}]" if is_told else "")
        cells.append(str(_PAPER[pair, tasks[0]].get(name, "")))
        cells.append(f"{runs[0]['parameters']:,}")
        lines.append(f"| {' | '.join(cells)} |")
    reference = [f"{_GRADIENT_BOOSTING[task]:.4f} |" for task in tasks]
    lines.append(f"| gradient boosting, one task | {' | '.join(reference)} | |")
    return "\n".join(lines) + "\n"


def _verdict(pair: str, finals: dict[str, list[Record]]) -> str:
    """Says what the intervals allow to say, and whether the targets are met."""
    sentences = []
    for task in PAIRS[pair]:
        means = {name: float(np.mean(_aucs(runs, task))) for name, runs in finals.items() if runs}
        base = _aucs(finals[_BASE], task)
        bounds = {
            name: difference(_aucs(finals[name], task), base) for name in means if name != _BASE
        }
        better = [_LABELS.get(n, n) for n, (low, _) in bounds.items() if low > 0]
        worse = [_LABELS.get(n, n) for n, (_, high) in bounds.items() if high < 0]
        best = max(means, key=lambda name: means[name])
        reached = "reaches" if means[best] >= _GRADIENT_BOOSTING[task] else "is below"
        sentences.append(
            f"{task}: sharing helped with {', '.join(better) or 'none'} and hurt with "
            f"{', '.join(worse) or 'none'}, by intervals that leave 0 out; the best mean, of "
            f"{_LABELS.get(best, best)}, {means[best]:.4f}, {reached} gradient boosting's "
            f"{_GRADIENT_BOOSTING[task]}."
        )
    first = PAIRS[pair][0]
    below = [
        name
        for name, mean in _PAPER[pair, first].items()
        if finals[name] and np.mean(_aucs(finals[name], first)) < mean
    ]
    sentences.append(f"Below the paper's mean: {', '.join(below) or 'none'}.")
    return "\n".join(f"- {sentence}" for sentence in sentences) + "\n"


def _aucs(records: Sequence[Record], task: str) -> list[float]:
    return [r["test"][task] for r in records]


def _half_width(values: Sequence[float]) -> float:
    if len(values) < 2:
        return float("nan")
    quantile = stats.t.ppf(0.975, len(values) - 1)
    return float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Returns Welch's 95 % interval of the difference of means; NaN for fewer than two values."""
    if min(len(a), len(b)) < 2:
        return float("nan"), float("nan")
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def _same(records: Sequence[Record]) -> str:
    """Compares pairs of disjoint sets of seeds of one configuration."""
    ordered = sorted(records, key=lambda r: r["number"])
    sets = [ordered[i : i + _SAME] for i in range(0, len(ordered) - _SAME + 1, _SAME)]
    pairs = list(zip(sets[::2], sets[1::2], strict=False))
    if not pairs:
        return ""
    task = PAIRS[records[0]["pair"]][0]
    claims = 0
    for a, b in pairs:
        low, high = difference(_aucs(a, task), _aucs(b, task))
        claims += not low <= 0 <= high
    epochs = max(r["epochs"] for r in records)
    return (
        "## The same against the same\n\n"
        f"The settings of {records[0]['architecture']} under {2 * len(pairs)} sets of {_SAME} "
        f"seeds, {epochs} epochs at most: {claims} of {len(pairs)} comparisons claim a difference "
        f"in {task}, where one in twenty is expected.\n"
    )
