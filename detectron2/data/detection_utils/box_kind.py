"""Which kind of boxes a model works with, as its config says."""

from __future__ import annotations

from typing import Any

_NUMBERS_OF_A_ROTATED_BOX = 5


def has_rotated_boxes(cfg: Any) -> bool:
    """Tell whether the model of a config predicts rotated boxes.

    A component that regresses boxes has one weight for each number of a box, whatever its name: four for an
    upright box, five for one with an angle.

    Args:
        cfg: a config.
    """
    parts = (cfg.MODEL.RPN, cfg.MODEL.ROI_BOX_HEAD)
    return any(len(part.BBOX_REG_WEIGHTS) == _NUMBERS_OF_A_ROTATED_BOX for part in parts)
