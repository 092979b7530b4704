"""Tracking by the cheapest assignment of detections to those of the frame before."""

from __future__ import annotations

import numpy as np

from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserNotImplementedError

from .assignment import linear_sum_assignment
from .identity_tracker import IdentityTracker
from .utils import LARGE_COST_VALUE


class BaseHungarianTracker(IdentityTracker):
    """Match so that the costs add up to as little as possible; a subclass says what a match costs.

    A pair that costs `LARGE_COST_VALUE` or more is no match, even when nothing else is left for both.
    """

    def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
        """Say what every match would cost.

        Args:
            instances: N detections of this frame.
            prev_instances: M of the frame before, remembered ones included.

        Returns:
            (N, M) finite costs.
        """
        raise UserNotImplementedError(f"{type(self).__name__} does not define build_cost_matrix")

    def _follow(self, instances: Instances, prev_instances: Instances) -> Instances:
        matches = self._match(instances, prev_instances)
        rows, columns = np.array([*matches.items()], dtype=np.int64).reshape(-1, 2).T
        instances = self._process_matched_idx(instances, rows, columns)
        instances = self._process_unmatched_idx(instances, rows)
        return self._process_unmatched_prev_idx(instances, columns)

    def _process_matched_idx(
        self, instances: Instances, matched_idx: np.ndarray, matched_prev_idx: np.ndarray
    ) -> Instances:
        """Hand identities on, in place, from previous detections to those that continue them."""
        self._hand_identities_on(instances, dict(zip(matched_idx.tolist(), matched_prev_idx.tolist())))
        return instances

    def _process_unmatched_idx(self, instances: Instances, matched_idx: np.ndarray) -> Instances:
        """Give identities to the other detections, in place."""
        self._give_new_identities(instances, sorted(set(range(len(instances))) - {*matched_idx.tolist()}))
        return instances

    def _process_unmatched_prev_idx(self, instances: Instances, matched_prev_idx: np.ndarray) -> Instances:
        """Append those of the other previous detections that are worth remembering."""
        lost = set(range(len(self._require_previous()))) - {*matched_prev_idx.tolist()}
        return self._with_remembered(instances, lost)

    def _match(self, instances: Instances, prev_instances: Instances) -> dict[int, int]:
        cost = self.build_cost_matrix(instances, prev_instances)
        rows, columns = linear_sum_assignment(cost)
        is_match = cost[rows, columns] < LARGE_COST_VALUE
        return dict(zip(rows[is_match].tolist(), columns[is_match].tolist()))
