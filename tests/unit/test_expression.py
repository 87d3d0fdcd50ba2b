"""Which columns an expression reads, and which expressions are refused."""

from __future__ import annotations

import pytest

from models.spec.expression import ExpressionError, referenced_columns


@pytest.mark.parametrize(
    ("expression", "columns"),
    [
        ("list_contains(clicked_ids, item) AND seconds > 3", {"clicked_ids", "item", "seconds"}),
        ("extract('hour' FROM shown_at)", {"shown_at"}),
        ("list_sum(list_transform(parts, lambda x: x * weight))", {"parts", "weight"}),
        ("CASE WHEN a IS NULL THEN 0 ELSE greatest(b, 1) END", {"a", "b"}),
        ("1 + 1", set()),
    ],
)
def test_columns(expression: str, columns: set[str]) -> None:
    assert referenced_columns(expression) == columns


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("a +", "not a DuckDB expression"),
        ("1; DROP TABLE x", "not a DuckDB expression"),
        ("(SELECT max(a) FROM b)", "max"),
        ("(SELECT a FROM b)", "subqueries"),
        ("row_number() OVER (ORDER BY a)", "row_number"),
        ("random() < a", "random"),
        ("now() - a", "now"),
        ("a / sum(a)", "sum"),
    ],
)
def test_refused(expression: str, reason: str) -> None:
    with pytest.raises(ExpressionError, match=reason):
        referenced_columns(expression)
