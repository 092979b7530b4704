"""What the trackers share about pairs of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

# What a pair costs that is no match: more than all matches together can save.
LARGE_COST_VALUE = 100000


def create_prediction_pairs(
    instances: Instances, prev_instances: Instances, iou_all: np.ndarray, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """List the pairs of boxes that overlap enough to be the same object.

    Args:
        instances: N detections of this frame.
        prev_instances: M of the frame before, with `ID` and `ID_period`.
        iou_all: (N, M) IoU, an array or a tensor.
        threshold: least IoU.

    Returns:
        Per pair `idx` and `prev_idx`, `prev_id` and `prev_period` of the previous one, and `IoU`.
    """
    # A tensor may be on a GPU.
    iou = np.asarray(iou_all.cpu() if hasattr(iou_all, "cpu") else iou_all)
    if iou.shape != (len(instances), len(prev_instances)):
        raise UserValueError(
            f"expected an IoU for each of {len(instances)} x {len(prev_instances)} pairs, got {iou.shape}"
        )
    return [
        {
            "idx": idx,
            "prev_idx": prev_idx,
            "prev_id": prev_instances.ID[prev_idx],
            "IoU": float(iou[idx, prev_idx]),
            "prev_period": prev_instances.ID_period[prev_idx],
        }
        for idx, prev_idx in np.argwhere(iou >= threshold).tolist()
    ]
