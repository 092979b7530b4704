"""Tracking by overlap, best overlap first."""

from __future__ import annotations

from detectron2.structures.instances import Instances

from .base_tracker import TRACKER_HEADS_REGISTRY
from .identity_tracker import IOUIdentityTracker


@TRACKER_HEADS_REGISTRY.register()
class BBoxIOUTracker(IOUIdentityTracker):
    """Match the pair of boxes with the largest IoU, then the next among those left, and so on."""

    def _match(self, instances: Instances, prev_instances: Instances) -> dict[int, int]:
        pairs = self._possible_matches(instances, prev_instances)
        matches: dict[int, int] = {}
        taken = set()
        for pair in sorted(pairs, key=lambda pair: -pair["IoU"]):
            if pair["idx"] not in matches and pair["prev_idx"] not in taken:
                matches[pair["idx"]] = pair["prev_idx"]
                taken.add(pair["prev_idx"])
        return matches
