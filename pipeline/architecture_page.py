"""Writes `docs/architectures.md` from the registry: ``python -m pipeline.architecture_page``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from models.spec.architecture import ArchitectureConfig, ArchitectureSettings

_DOCS = Path(__file__).resolve().parent.parent / "docs"
TARGET = _DOCS / "architectures.md"
COSTS = _DOCS / "benchmarks" / "architecture_costs.json"

_INTRODUCTION = """# Architectures

Made from the code by `python -m pipeline.architecture_page`; a test fails when it is stale.

**Unsure?** Start with `single_task`, `shared_bottom` and `mmoe` as three candidates of one run. The
report compares each with `single_task`, on the same rows and with intervals. If `shared_bottom`
loses on no task, keep it: nothing serves cheaper. If it loses on some and `mmoe` does not, keep
`mmoe`. If both lose on the same task, try `ple`; if that does not win it back, this task does not
want company. Outcomes that follow on each other (click, basket, purchase) are declared with
[`conditioned_on`](tasks.md#conversion), with any architecture; `aitm` is worth a try then. Public
gains of one architecture over another are .001 to .006 AUC: believe none without several seeds and
an interval.

Embedding tables are shared by all tasks in every one of them. Settings and defaults:
[configuration reference](configuration.md). ESMM and ESCM2 are no architectures here but
[links and losses of a task](tasks.md#conversion).
"""

_READING = """
## What the report shows
Under *Inside the models*, for what mixes row by row (gates, attention): the mean weights per task,
the same per value of every declared slice that is a feature with at most 12 values, the mean
entropy of a row's weights, and sources under 1 % for everybody who can read them (dead experts).
For what is learnt once (stitches, alpha, beta): the matrices. Under *Learning curves*: losses per
task, and apart from them the penalties that an architecture adds to the objective (balance,
distance, orthogonality, calibrator). `insights.json` and `training.json` of a candidate hold the
same numbers.

What the tests of these architectures can tell apart: [planted faults](benchmarks/mutations.md).
What `mmoe` is worth as tasks grow apart: [the synthetic experiment](benchmarks/synthetic.md). Where
sharing helped and hurt on simulated logs, and what auxiliary tasks brought:
[negative transfer](benchmarks/transfer.md).
"""


def page() -> str:
    """Returns the page: costs of all, then one section each, in the registry's order."""
    measured = costs()
    setting = measured["setting"]
    lines = [
        _INTRODUCTION,
        "\n## Costs\n\n"
        f"With default settings, {setting['num_tasks']} tasks and {setting['input_width']} inputs; "
        "parameters without heads and\nembeddings. The step is forward, backward and Adam on a "
        f"batch of {setting['batch_size']}, as CPU time relative to\n`shared_bottom` in the same "
        f"run (median of {setting['rounds']} interleaved rounds; "
        "`python -m benchmarks.architecture_costs.measure`).\nDefault widths differ, so this "
        "compares what you get by writing only the name.\n\n"
        "| architecture | parameters | relative | step time | paper |\n|---|---|---|---|---|\n",
    ]
    base = measured["architectures"]["shared_bottom"]["parameters"]
    for name, settings in architectures().items():
        cost = measured["architectures"][name]
        relative = cost["parameters"] / base
        lines.append(
            f"| [`{name}`](#{name}) | {cost['parameters']:,} | {relative:.2f} x "
            f"| {cost['relative_step']:.2f} x | {settings.guide.paper} |\n"
        )
    for name, settings in architectures().items():
        guide = settings.guide
        document = " ".join((settings.__doc__ or "").split())
        lines.append(
            f"\n## {name}\n{document}\n\n"
            f"Use it for: {guide.use_when}.\\\nLook at: {guide.look_at}.\n"
        )
        variants = [example for example in settings.examples if example]
        if variants:
            told = "; ".join(f"`{_yaml(name, example)}`" for example in variants)
            lines.append(f"Variants: {told}.\n")
    return "".join([*lines, _READING])


def architectures() -> dict[str, type[ArchitectureSettings]]:
    """Returns the settings class of every architecture by name."""
    union = get_args(get_args(ArchitectureConfig)[0])
    return {get_args(c.model_fields["architecture"].annotation)[0]: c for c in union}


def costs() -> dict[str, Any]:
    """Returns what `benchmarks.architecture_costs` measured."""
    measured: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    return measured


def _yaml(name: str, example: Any) -> str:
    settings = ", ".join(f"{key}: {value}" for key, value in example.items())
    return f"{{architecture: {name}, {settings}}}"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
