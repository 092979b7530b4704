"""Linear assignment: pair rows and columns of a matrix so that the costs add up to as little as possible."""

from __future__ import annotations

import numpy as np

from detectron2.utils.user_errors import UserValueError


def linear_sum_assignment(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair every row with a column of its own, or every column with a row where there are fewer columns.

    Exact, by shortest augmenting paths (Jonker and Volgenant, 1987), in O(N^2 M) steps for N <= M.

    Args:
        cost: (N, M) finite costs, which may be negative.

    Returns:
        (min(N, M),) int64 rows, ascending, and their columns.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.ndim != 2:
        raise UserValueError(f"expected an (N, M) matrix of costs, got the shape {cost.shape}")
    if not np.isfinite(cost).all():
        raise UserValueError("costs must be finite; give pairs that are not wanted a large cost")
    if len(cost) > cost.shape[1]:
        columns, rows = linear_sum_assignment(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]

    # Prices keep all reduced costs (cost - row price - column price) >= 0, and 0 on the pairs made so far.
    row_price, column_price = np.zeros(len(cost)), np.zeros(cost.shape[1])
    column_of = np.full(len(cost), -1)
    row_of = np.full(cost.shape[1], -1)
    for start in range(len(cost)):
        end, row_before, distance, reached = _shortest_path(start, cost - column_price, row_price, row_of)
        # Every price on the way moves by what the end is farther away.
        saved = np.where(reached, distance[end] - distance, 0)
        column_price -= saved
        passed = reached & (row_of >= 0)
        row_price[row_of[passed]] += saved[passed]
        row_price[start] += distance[end]
        # Going back along the path, every row takes the column by which it was left.
        column = end
        while column >= 0:
            row = row_before[column]
            row_of[column] = row
            column, column_of[row] = (column_of[row] if row != start else -1), column
    return np.arange(len(cost)), column_of


def _shortest_path(
    start: int, cost: np.ndarray, row_price: np.ndarray, row_of: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Dijkstra's algorithm from a row to the nearest column without a row.

    A step goes from a row to any column, and from a column to the row that it is paired with.

    Args:
        cost: (N, M), column prices subtracted.
        row_of: (M,) row that each column is paired with, or -1.

    Returns:
        The column; and for all columns, each (M,): the row before it, its distance, and whether the search
        has reached it (then its distance is final).
    """
    distance = np.full(cost.shape[1], np.inf)
    row_before = np.full(cost.shape[1], -1)
    reached = np.zeros(cost.shape[1], dtype=bool)
    row, travelled = start, 0.0
    while True:
        through_row = travelled + cost[row] - row_price[row]
        is_shorter = ~reached & (through_row < distance)
        distance[is_shorter] = through_row[is_shorter]
        row_before[is_shorter] = row
        column = int(np.where(reached, np.inf, distance).argmin())
        reached[column] = True
        if row_of[column] < 0:
            return column, row_before, distance, reached
        row, travelled = row_of[column], distance[column]
