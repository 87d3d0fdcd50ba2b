"""The page of the transfer benchmark, from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.transfer.comparison import ALL_ROWS
from components.report.headline import judge

_LEVEL = 0.05

Difference = Mapping[str, Any] | None


def page(result: dict[str, Any]) -> str:
    """Returns the page."""
    setting, metrics = result["setting"], result["metrics"]
    outputs = list(metrics)
    head = " | ".join(f"{output} ({metrics[output]})" for output in outputs)
    ruler = "|---" * (len(outputs) + 1) + "|"
    lines = [
        _introduction(setting, result["reference"]),
        "## Test values\n\nMeans over seeds.\n\n",
        f"| candidate, auxiliary tasks | {head} |\n{ruler}\n",
    ]
    for candidate, sides in result["values"].items():
        for side, values in sides.items():
            cells = " | ".join(f"{values[output]:.4f}" for output in outputs)
            lines.append(f"| {candidate}, {side} | {cells} |\n")
    lines.append(
        "\n## What the auxiliary tasks bring\n\n"
        f"With minus without {', '.join(setting['auxiliary_tasks'])}.\n\n"
        f"| candidate | {head} |\n{ruler}\n"
    )
    for candidate, found in result["auxiliary"].items():
        lines.append(f"| {candidate} | {_cells(found, outputs)} |\n")
    told = [d for found in result["auxiliary"].values() for d in _judged(found, metrics)]
    lines.append(f"\n{_verdict(told)}\n")
    lines.append(f"\n## Transfer against {result['reference']}\n\n{_meaning(result['reference'])}")
    for candidate, by_slice in result["transfer"].items():
        lines.append(f"\n### {candidate}\n\n| rows | {head} |\n{ruler}\n")
        for name, found in by_slice.items():
            lines.append(f"| {name} | {_cells(found, outputs)} |\n")
        everybody = list(_judged(by_slice[ALL_ROWS], metrics))
        slices = [
            told
            for name, found in by_slice.items()
            if name != ALL_ROWS
            for told in _judged(found, metrics)
        ]
        lines.append(f"\nAll rows: {_verdict(everybody)}\nSlices: {_verdict(slices)}\n")
    return "".join(lines)


def _introduction(setting: Mapping[str, Any], reference: str) -> str:
    rows = setting["rows"]
    return (
        "# Auxiliary tasks and negative transfer\n\n"
        "Made by `python -m benchmarks.transfer.run` on simulated logs of "
        f"{setting['impressions']:,} impressions, with the configuration\n"
        "of `examples/simulated`: its features, candidates, settings and early stopping on "
        f"validation. {rows['train']:,} train,\n{rows['validation']:,} validation and "
        f"{rows['test']:,} test rows ({setting['num_users']:,} users), the same for all; "
        f"{setting['num_seeds']} seeds of start, shuffling and\ndropout. Every difference is "
        "paired by seed and test row. Its 95 % interval counts two things that would fall out\n"
        "otherwise another time: the seeds (t-interval over them) and who is in the test split "
        f"({setting['num_replicates']} resamples of users).\n**Bold** marks intervals without 0; "
        "of intervals where nothing is to be found, one in twenty is bold too.\n\n"
    )


def _meaning(reference: str) -> str:
    return (
        f"Candidate minus {reference}, both with the auxiliary tasks; below 0 is negative transfer "
        f"(of metrics where higher is\nbetter). Embedding tables are shared in every architecture, "
        f"{reference} included: what sharing them does to a task is not in\nthese numbers.\n"
    )


def _cells(found: Mapping[str, Difference], outputs: list[str]) -> str:
    return " | ".join(_cell(found[output]) for output in outputs)


def _cell(difference: Difference) -> str:
    if difference is None:
        return "undefined"
    text = "{value:+.4f} [{low:+.4f}, {high:+.4f}]".format(**difference)
    return f"**{text}**" if difference["low"] > 0 or difference["high"] < 0 else text


def _judged(found: Mapping[str, Difference], metrics: Mapping[str, str]) -> Iterator[str]:
    """Yields good, bad or muted for every difference that is defined."""
    for output, difference in found.items():
        if difference is not None:
            yield judge(metrics[output], difference)


def _verdict(told: list[str]) -> str:
    """Says what the intervals allow to say, and how much of it chance alone would say."""
    return (
        f"{told.count('good')} better, {told.count('bad')} worse, {told.count('muted')} undecided "
        f"of {len(told)} differences; chance alone would decide about {_LEVEL * len(told):.1f}."
    )
