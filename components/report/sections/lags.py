"""Quality against how late events become visible."""

from __future__ import annotations

from components.log_example_gen.window import duration_text
from components.report import formatting as f
from components.report.blocks import Block, Cell, Notice, Row, Section, Table
from components.report.inputs import Json, ReportInputs


def section(inputs: ReportInputs) -> Section:
    """Shows the champion's gated metrics with every lag, and the change against the declared."""
    block: Block
    if inputs.lags is not None:
        block = _table(inputs, inputs.lags)
    elif inputs.wants_lags:
        block = Notice(f"No lags were tried: {inputs.why_absent()}.")
    else:
        block = Notice("None was asked for: list some under evaluation.lags, e.g. [0s, 5m, 1h].")
    return Section(
        anchor="lags",
        title="Freshness of features",
        lead="The champion on the test split, its as-of features recomputed as if every event "
        "became visible that late. The model is the same, trained with the declared lags.",
        blocks=(block,),
    )


def _table(inputs: ReportInputs, lags: Json) -> Table:
    columns = [(o.name, metric) for o in inputs.ranking.outputs for metric, _ in o.gates]
    declared = lags["declared"]
    rows = [Row((Cell("as declared"), *(_value(declared, None, *c) for c in columns)))]
    for each in lags["lags"]:
        cells = (_value(each["metrics"], declared, *c) for c in columns)
        rows.append(Row((Cell(duration_text(each["lag_ms"])), *cells)))
    headers = (Cell("Lag"), *(Cell(f"{o} {f.metric_label(m)}") for o, m in columns))
    return Table(f"Quality of {lags['champion']} against lag", headers, tuple(rows))


def _value(metrics: Json, declared: Json | None, output: str, metric: str) -> Cell:
    value = (metrics.get(output) or {}).get(metric)
    before = ((declared or {}).get(output) or {}).get(metric)
    if value is None or before is None:
        return Cell(f.number(value))
    return Cell(f.number(value), f.signed(value - before))
