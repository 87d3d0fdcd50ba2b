"""The first screen: pushed or not, why, and what changed for each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.report import formatting as f
from components.report.blocks import Cell, Row, Table, Tone
from components.report.gates import gate_rows
from components.report.headline import headline_metric, judge
from components.report.inputs import ReportInputs
from models.spec.metric import METRICS
from models.spec.task import Output

_MAX_REASONS = 8
_MAX_REASON = 500

METRIC_GATE_FAILED = "a metric gate failed"
"""How Champion sums up what the gate rows say in full."""


@dataclass(frozen=True)
class Outcome:
    """What happened and why.

    Attributes:
        badge: One word: pushed, superseded, refused, failed or finished.
        tone: good or bad.
        title: The outcome as a sentence.
        reasons: Why, most telling first.
        facts: Name and value of what frames the run: window, rows, time.
        changes: The candidate's headline metrics against what came before and against references.
        note: How to read `changes`, or why it is missing.
    """

    badge: str
    tone: Tone
    title: str
    reasons: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    changes: Table | None
    note: str


def outcome(inputs: ReportInputs) -> Outcome:
    """Reads the outcome off what the run left behind."""
    badge, tone, title = _verdict(inputs)
    focus = focus_candidate(inputs)
    reasons = _reasons(inputs)
    if len(reasons) > _MAX_REASONS:
        rest = len(reasons) - _MAX_REASONS
        reasons = [*reasons[:_MAX_REASONS], f"and {rest} more; see Gates."]
    return Outcome(
        badge=badge,
        tone=tone,
        title=title,
        reasons=tuple(reasons),
        facts=tuple(_facts(inputs)),
        changes=_changes(inputs, focus) if focus else None,
        note=_note(inputs, focus),
    )


def focus_candidate(inputs: ReportInputs) -> str | None:
    """Returns the champion, or without one the candidate that came closest to passing."""
    if inputs.champion in inputs.candidates:
        return inputs.champion

    def missed(name: str) -> tuple[bool, int, float]:
        rows = [row for row in gate_rows(inputs, name) if not row.passed]
        was_measured = bool(inputs.candidate(name).get("metrics"))
        return (
            not was_measured,
            len(rows),
            sum((row.miss or 0.0) / (abs(row.threshold or 0.0) or 1.0) for row in rows),
        )

    return min(inputs.candidates, key=missed, default=None)


def _verdict(inputs: ReportInputs) -> tuple[str, Tone, str]:
    pushed = inputs.summary.get("pushed") or {}
    if inputs.state == "succeeded" and pushed:
        name = inputs.champion or "a candidate"
        return (
            "pushed",
            "good",
            f"{name} was pushed as {pushed.get('model')}, version {pushed.get('version')}",
        )
    newer = inputs.summary.get("superseded_by")
    if inputs.state == "succeeded" and newer:
        return (
            "superseded",
            "",
            f"Every gate passed; not pushed, because version {newer['version']} comes from a newer "
            f"window (up to {f.moment(newer['test_end'])} UTC)",
        )
    if inputs.state == "succeeded":
        return "finished", "", "The run finished; nothing was pushed"
    if inputs.state == "refused":
        return "refused", "bad", "A gate refused; nothing was pushed"
    if inputs.state == "failed":
        kept = f" {inputs.champion} was pushed before that." if pushed else " Nothing was pushed."
        return "failed", "bad", f"The run failed.{kept}"
    return inputs.state, "bad", "The run's state was not recorded"


def _reasons(inputs: ReportInputs) -> list[str]:
    reasons: list[str] = []
    # A refusal's own message only repeats the gates below.
    error = inputs.summary.get("error") if inputs.state != "refused" else None
    failed = [
        str(c.get("name"))
        for c in inputs.summary.get("components") or []
        if str(c.get("state", "")).lower() == "failed"
    ]
    if error:
        where = f"{', '.join(failed)}: " if failed else ""
        reasons.append(f"{where}{error}")
    elif failed:
        reasons.append(f"{', '.join(failed)} failed; no error was recorded")
    for name in inputs.candidates:
        missed = [row.sentence for row in gate_rows(inputs, name) if not row.passed]
        if missed:
            reasons.append(f"{name}: {'; '.join(missed)}.")
    for verdict in inputs.verdicts:
        if not verdict.passed and verdict.gate != "champion":
            told = verdict.reasons or ("no reason was given",)
            reasons += [f"{verdict.gate} refused: {reason}" for reason in told]
    told_so_far = " ".join(reasons)
    for name in inputs.candidates:
        refusals = inputs.candidate(name).get("refusals") or []
        others = [str(r) for r in refusals if r != METRIC_GATE_FAILED and str(r) not in told_so_far]
        if others:
            reasons.append(f"{name}: {'; '.join(others)}")
    if inputs.champion and inputs.state == "succeeded":
        reasons.insert(0, _why_champion(inputs))
    if inputs.summary.get("superseded_by"):
        reasons.append(
            "An older window does not replace a newer one; push.allow_older: true lets it."
        )
    if not reasons and inputs.summary.get("error"):
        reasons.append(str(inputs.summary["error"]))
    return [f.clipped(reason, _MAX_REASON) for reason in reasons] or ["No reason was recorded."]


def _why_champion(inputs: ReportInputs) -> str:
    blessed = [n for n in inputs.candidates if inputs.candidate(n).get("blessed")]
    passed = f"{len(blessed)} of {len(inputs.candidates)} candidates passed every gate"
    objective = next(
        (v.details.get("objective") for v in inputs.verdicts if v.gate == "champion"), None
    )
    if not isinstance(objective, Mapping) or inputs.champion not in objective:
        return f"{passed}; {inputs.champion} has the best objective on validation."
    ranked = sorted(
        ((v, n) for n, v in objective.items() if n in blessed and isinstance(v, int | float)),
        reverse=True,
    )
    values = ", ".join(f"{n} {f.number(v)}" for v, n in ranked)
    return f"{passed}; {inputs.champion} has the best objective on validation ({values})."


def _facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    summary = inputs.summary
    facts = []
    for split, text in (("train", "Train window"), ("test", "Test window")):
        window = (summary.get("window") or {}).get(split)
        if window:
            facts.append((text, f"{f.moment(window[0])} to {f.moment(window[1])} UTC"))
    examples = summary.get("examples") or {}
    if examples:
        splits = " / ".join(f.count(examples.get(s)) for s in ("train", "validation", "test"))
        facts.append(("Rows in train / validation / test", splits))
    components = summary.get("components") or []
    if components:
        total = sum(c.get("seconds") or 0 for c in components)
        cached = sum(bool(c.get("cached")) for c in components)
        reused = f", {cached} of {len(components)} steps re-used" if cached else ""
        facts.append(("Time", f"{f.seconds(total)}{reused}"))
    return facts


def _changes(inputs: ReportInputs, focus: str) -> Table:
    has_oracle = bool(inputs.summary.get("oracle"))
    single_task = (inputs.report_data or {}).get("single_task") or "single_task"
    headers = ["Task", focus, "Since the previous window", f"Against {single_task}"]
    headers += ["Against the linear floor"]
    if has_oracle:
        headers.append("To the oracle")
    headers.append("Gates")
    rows = [_change_row(inputs, focus, o, single_task, has_oracle) for o in inputs.ranking.outputs]
    return Table(
        caption=f"What changed for each task: {focus} on the test window, 95 % intervals",
        headers=tuple(Cell(text) for text in headers),
        rows=tuple(rows),
    )


def _change_row(
    inputs: ReportInputs, focus: str, output: Output, single_task: str, has_oracle: bool
) -> Row:
    metric = headline_metric(output, inputs.ranking)
    unit = f.metric_unit(metric, output.kind)
    named = f.metric_label(metric) + (f" ({unit})" if unit else "")
    measured = inputs.metric(focus, output.name, metric)
    compared = ((inputs.report_data or {}).get("comparisons") or {}).get(focus) or {}
    cells = [
        Cell(output.name, f"{named}, {f.metric_direction(metric)}"),
        Cell(f.number(measured.get("value")), f.bounds(measured)),
        _since_previous(inputs, focus, output, metric, measured),
    ]
    for reference, text in ((single_task, "is single_task"), ("linear", "")):
        if reference == focus:
            cells.append(Cell(f.ABSENT, text, "muted"))
            continue
        difference = ((compared.get(reference) or {}).get(output.name) or {}).get(metric) or {}
        cells.append(difference_cell(metric, difference))
    if has_oracle:
        cells.append(_oracle_cell(inputs, output, metric, measured.get("value")))
    cells.append(_gates_cell(inputs, focus, output))
    return Row(tuple(cells))


def _oracle_cell(inputs: ReportInputs, output: Output, metric: str, value: float | None) -> Cell:
    best = ((inputs.summary.get("oracle") or {}).get(output.name) or {}).get(metric)
    if best is None or value is None:
        return Cell(f.ABSENT, "", "muted")
    return Cell(f.signed(value - best), f"oracle {f.number(best)}")


def difference_cell(metric: str, difference: Mapping[str, Any]) -> Cell:
    """Shows a paired difference, coloured only where its interval excludes 0."""
    if difference.get("value") is None:
        return Cell(f.ABSENT, "", "muted")
    tone = judge(metric, difference)
    return Cell(f.signed(difference["value"]), f.signed_bounds(difference), tone)


def _since_previous(
    inputs: ReportInputs, focus: str, output: Output, metric: str, measured: Mapping[str, Any]
) -> Cell:
    changes = inputs.candidate(focus).get("changes") or {}
    paired = (changes.get(output.name) or {}).get(metric) or {}
    if paired.get("value") is not None:
        detail = " ".join(filter(None, (f.signed_bounds(paired), "same rows")))
        return Cell(f.signed(paired["value"]), detail, judge(metric, paired))
    previous = inputs.previous_summary or {}
    before = (
        (
            (((previous.get("candidates") or {}).get(previous.get("champion"))) or {}).get(
                "metrics"
            )
            or {}
        )
        .get(output.name, {})
        .get(metric, {})
        .get("value")
    )
    if before is None or measured.get("value") is None:
        return Cell("first" if not previous else f.ABSENT, "", "muted")
    definition = METRICS.get(metric)
    change = measured["value"] - before
    overlap = (
        definition is None
        or measured.get("low") is None
        or measured["low"] <= before <= measured["high"]
    )
    detail = f"was {f.number(before)}" + (
        ", within the interval" if overlap else ", outside the interval"
    )
    return Cell(f.signed(change), detail, "muted")


def _gates_cell(inputs: ReportInputs, focus: str, output: Output) -> Cell:
    rows = [row for row in gate_rows(inputs, focus) if row.output == output.name]
    if not rows:
        return Cell("none", "", "muted")
    passed = sum(row.passed for row in rows)
    missed = [f"{f.metric_label(row.metric)} {row.bound}" for row in rows if not row.passed]
    text = f"{passed} of {len(rows)} passed"
    return Cell(text, "; ".join(missed), "good" if passed == len(rows) else "bad")


def _note(inputs: ReportInputs, focus: str | None) -> str:
    if focus is None:
        return f"No candidate was measured: {inputs.why_absent()}."
    parts = []
    if focus != inputs.champion:
        parts.append(f"No champion; {focus} came closest to passing and is shown.")
    if inputs.previous_summary is None:
        parts.append("No earlier window has a pushed model to compare with.")
    else:
        parts.append(
            f"The previous window's model is {inputs.previous_summary.get('champion')} of run "
            f"{inputs.previous_summary.get('run_id')}; unless marked “same rows”, its value is "
            "from its own test window and the difference is not paired."
        )
    if inputs.report_data is None:
        parts.append(f"No comparisons: {inputs.why_absent()}.")
    else:
        parts.append(
            "Other differences are paired on the same test rows; green or red where the 95 % "
            "interval excludes 0."
        )
    return " ".join(parts)
