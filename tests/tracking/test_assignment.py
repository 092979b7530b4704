from __future__ import annotations

import itertools

import numpy as np
import pytest

from detectron2.tracking.assignment import linear_sum_assignment


def cheapest(cost: np.ndarray) -> float:
    """Try everything."""
    num_rows, num_columns = cost.shape
    k = min(num_rows, num_columns)
    return min(
        sum(cost[i, j] for i, j in zip(rows, columns))
        for rows in itertools.combinations(range(num_rows), k)
        for columns in itertools.permutations(range(num_columns), k)
    )


@pytest.mark.parametrize("seed", range(60))
def test_is_as_cheap_as_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(0, 6, 2))
    # Few different costs: ties. Few small ones: the matrices of trackers.
    cost = [rng.normal(size=shape), rng.integers(-2, 3, shape), np.where(rng.random(shape) < 0.3, -1, 1e5)][
        seed % 3
    ]
    rows, columns = linear_sum_assignment(cost)
    assert len(rows) == len(columns) == min(shape)
    assert rows.tolist() == sorted(set(rows.tolist())) and len(set(columns.tolist())) == len(columns)
    assert cost[rows, columns].sum() == pytest.approx(cheapest(cost), abs=1e-9)


def test_a_cycle_of_cheap_pairs_is_found() -> None:
    cost = np.full((30, 40), 7.0)
    order = np.random.default_rng(0).permutation(40)[:30]
    cost[np.arange(30), order] = 1.0
    rows, columns = linear_sum_assignment(cost)
    assert columns.tolist() == order.tolist()
    rows, columns = linear_sum_assignment(cost.T)
    assert columns[np.argsort(rows)].tolist() == np.argsort(order).tolist()


@pytest.mark.parametrize("cost", [np.zeros(3), np.array([[np.nan, 1.0]]), np.array([[np.inf]])])
def test_what_is_no_matrix_of_costs_is_refused(cost: np.ndarray) -> None:
    with pytest.raises(ValueError, match="costs"):
        linear_sum_assignment(cost)
