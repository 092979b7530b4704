"""Result tables for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MAX_COLUMN_PAIRS = 3


def _number(value: float) -> str:
    return f"{value:.3f}"


def format_metrics_table(metrics: Mapping[str, float]) -> str:
    """One row of numbers under their names."""
    return format_rows(list(metrics), [[_number(value) for value in metrics.values()]])


def format_category_table(values: Mapping[str, float], value_title: str) -> str:
    """Name and value pairs, several pairs per row, read column by column."""
    entries = [(name, _number(value)) for name, value in values.items()]
    num_pairs = max(1, min(_MAX_COLUMN_PAIRS, len(entries)))
    num_rows = -(-len(entries) // num_pairs)
    columns = [entries[start : start + num_rows] for start in range(0, len(entries), max(num_rows, 1))]
    rows = [
        [cell for column in columns for cell in (column[r] if r < len(column) else ("", ""))]
        for r in range(num_rows)
    ]
    return format_rows(["category", value_title] * len(columns), rows)


def format_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in the pipe style that Markdown understands."""
    from tabulate import tabulate  # 10 ms, and only where results are printed

    return tabulate(
        rows,
        headers=list(header),
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left"] + ["center"] * (len(header) - 1),
    )
