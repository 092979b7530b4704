"""Pictures of boxes for the event storage, to watch a training."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from detectron2.utils.events.storage import get_event_storage


def put_picture_of_boxes(
    name: str, batched_input: dict[str, Any], predicted: Tensor, input_format: str
) -> None:
    """Put a picture into the event storage: ground truth on the left, predictions on the right.

    Args:
        name: of the picture.
        batched_input: one image of a training batch, with `image` (C, H, W) and `instances`.
        predicted: (R, 4) XYXY boxes in the frame of that image.
        input_format: channel order of the image.
    """
    # Drawing is rare: do not make every training process load what it needs.
    from detectron2.data.detection_utils.image_io import convert_image_to_rgb
    from detectron2.visualization.visualizer import Visualizer

    image = convert_image_to_rgb(batched_input["image"].permute(1, 2, 0), input_format)

    def draw(boxes: Tensor) -> np.ndarray:
        return Visualizer(image, None).overlay_instances(boxes=boxes.detach().cpu().numpy()).get_image()

    halves = draw(batched_input["instances"].gt_boxes.tensor), draw(predicted)
    get_event_storage().put_image(name, np.concatenate(halves, axis=1).transpose(2, 0, 1))
