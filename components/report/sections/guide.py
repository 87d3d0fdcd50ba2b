"""How to read the page: what each metric on it means."""

from __future__ import annotations

from components.report.blocks import Block, Cell, Paragraph, Row, Section, Table
from components.report.formatting import metric_direction, metric_label
from components.report.inputs import ReportInputs

_MEANINGS = {
    "auc": "Probability that a random positive row is scored above a random negative one.",
    "gauc": "AUC inside each group (slate, or user without slates), averaged over the groups that "
    "have both classes.",
    "pr_auc": "Area under precision over recall; compare with the positive rate, not with .5.",
    "log_loss": "Mean negative log of the probability given to what happened.",
    "normalized_entropy": "Log loss over that of always predicting the mean rate; below 1 the "
    "model knows more than the mean.",
    "calibration": "Sum of predictions over sum of outcomes; above 1 the model predicts too much.",
    "ece": "Mean gap between predicted and observed rates over bins of equal weight.",
    "mae": "Mean absolute error.",
    "rmse": "Root of the mean squared error; ruled by the largest errors.",
    "spearman": "Correlation of the ranks of prediction and outcome.",
    "xauc": "Share of row pairs that the model orders as their outcomes do.",
    "ndcg": "How close the order inside each group of two or more comes to the best one, top "
    "positions first.",
}


def section(inputs: ReportInputs) -> Section:
    """Explains intervals, references and metrics."""
    used = dict.fromkeys(m for o in inputs.ranking.outputs for m in o.metrics)
    rows = tuple(
        Row((Cell(metric_label(m)), Cell(_MEANINGS.get(m, "")), Cell(metric_direction(m))))
        for m in used
    )
    headers = (Cell("Metric"), Cell("Meaning"), Cell("Better"))
    blocks: tuple[Block, ...] = (
        Paragraph(
            "Intervals hold the middle 95 % of the metric over resamples of users, each with all "
            "their rows: rows of one user are alike, so resampling rows would make them too narrow."
        ),
        Paragraph(
            "The popularity floor predicts each item's smoothed mean outcome of the train window. "
            "The linear floor is a logistic regression (ridge regression for numbers) on the same "
            "request features. A ranker that does not beat both is not worth its servers."
        ),
        Table("Metrics", headers, rows, num_text=3),
    )
    return Section("guide", "How to read this page", "", blocks)
