"""The plot and the page of the synthetic experiment, from what was measured."""

from __future__ import annotations

from typing import Any

import vl_convert

_COLORS = {"shared_bottom": "#b3541e", "mmoe": "#1f5fa8"}


def plot(result: dict[str, Any]) -> str:
    """Returns an SVG: test error of both models, and the gap, by correlation."""
    errors = [
        {"correlation": row["correlation"], "model": name, **row["means"][name]}
        for row in result["rows"]
        for name in _COLORS
    ]
    gaps = [{"correlation": row["correlation"], **row["gap"]} for row in result["rows"]]
    color = {
        "field": "model",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(_COLORS), "range": list(_COLORS.values())},
    }
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "hconcat": [
            _panel(errors, "mean squared error on test", {"color": color}),
            _panel(gaps, "shared_bottom minus mmoe, paired", {"color": {"value": "#333"}}, True),
        ],
    }
    return str(vl_convert.vegalite_to_svg(spec))


def _panel(
    rows: list[dict[str, Any]], title: str, color: dict[str, Any], zero: bool = False
) -> dict[str, Any]:
    x = {
        "field": "correlation",
        "type": "quantitative",
        "title": "correlation of the tasks' weights",
        "scale": {"reverse": True},
    }
    y = {"type": "quantitative", "scale": {"zero": zero}}
    band = {"y": {**y, "field": "low", "title": title}, "y2": {"field": "high"}}
    return {
        "width": 300,
        "height": 220,
        "data": {"values": rows},
        "encoding": {"x": x, **color},
        "layer": [
            {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": band},
            {
                "mark": {"type": "line", "point": True},
                "encoding": {"y": {**y, "field": "mean", "title": title}},
            },
        ],
    }


def page(result: dict[str, Any]) -> str:
    """Returns the page."""
    setting, parameters = result["setting"], result["parameters"]
    lines = [
        "# The synthetic experiment of the MMoE paper\n\n"
        "Made by `python -m benchmarks.synthetic.run`. Two regression tasks "
        "`y_k = w_k.x + sum_i sin(alpha_i w_k.x + beta_i) + noise`\nwith unit `w_1`, "
        "`w_2 = p w_1 + sqrt(1 - p^2) u` and `u` orthogonal to `w_1`: the weights' correlation is "
        "p (Ma et al., KDD 2018,\nsection 3.2).\n\n"
        f"{setting['num_inputs']} standard normal inputs, {setting['num_train']:,} train and "
        f"{setting['num_test']:,} test rows, alpha {list(setting['alphas'])}, "
        f"beta {list(setting['betas'])}, "
        f"noise {setting['noise']}.\nBoth models get the same rows, batches of "
        f"{setting['batch_size']}, {setting['epochs']} epochs, and the best of the Adam rates "
        f"{list(setting['learning_rates'])}\nby {setting['num_validation']:,} validation rows: "
        "mmoe with "
        f"8 experts of\n16 units ({parameters['mmoe']:,} parameters), shared_bottom with one layer "
        f"of 126 ({parameters['shared_bottom']:,}), towers of 8. {setting['num_seeds']} seeds of\n"
        f"rows and start; intervals are 95 % t-intervals over seeds. {result['cpu_seconds']} CPU "
        "seconds in all.\n\n![error and gap](synthetic.svg)\n\n"
        "| p | label correlation | shared_bottom | mmoe | gap | rates |\n"
        "|---|---|---|---|---|---|\n"
    ]
    for row in result["rows"]:
        cells = [_told(row["means"]["shared_bottom"]), _told(row["means"]["mmoe"])]
        lines.append(
            f"| {row['correlation']:g} | {row['label_correlation']:.2f} | {cells[0]} | {cells[1]} "
            f"| {_told(row['gap'])} | {', '.join(map(str, row['learning_rates'].values()))} |\n"
        )
    lines.append(f"\n{_verdict(result['rows'])}\n")
    chosen = {rate for row in result["rows"] for rate in row["learning_rates"].values()}
    if chosen == {max(setting["learning_rates"])}:
        lines.append(
            "Every chosen rate is the largest that was tried: neither model is tuned to its end.\n"
        )
    return "".join(lines)


def _told(value: dict[str, float]) -> str:
    return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Says what the intervals allow to say, and no more."""
    better = [f"{r['correlation']:g}" for r in rows if r["gap"]["low"] > 0]
    worse = [f"{r['correlation']:g}" for r in rows if r["gap"]["high"] < 0]
    open_ = [f"{r['correlation']:g}" for r in rows if r["gap"]["low"] <= 0 <= r["gap"]["high"]]
    far, near = rows[0], rows[-1]
    grows = far["gap"]["low"] > near["gap"]["high"]
    shrinks = far["gap"]["high"] < near["gap"]["low"]
    return (
        f"mmoe is better at p = {', '.join(better) or 'none'}, worse at "
        f"{', '.join(worse) or 'none'}, undecided at {', '.join(open_) or 'none'}.\n"
        + f"From p = {near['correlation']:g} to p = {far['correlation']:g} the gap "
        + (
            "grows, as the paper says."
            if grows
            else "shrinks, against the paper."
            if shrinks
            else "does not change by more than its intervals."
        )
    )
