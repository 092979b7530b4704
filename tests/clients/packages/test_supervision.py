"""supervision reads what our predictor returns, tracks it and draws it."""

from __future__ import annotations

import numpy as np
import supervision
import torch

from detectron2.structures import Boxes, Instances
from tests.clients.packages.conftest import Detector


def test_detections_hold_the_predictions(detector: Detector, image: np.ndarray) -> None:
    own = detector(image)
    found = supervision.Detections.from_detectron2({"instances": own})
    assert len(found) == len(own) > 0
    np.testing.assert_array_equal(found.xyxy, own.pred_boxes.tensor.numpy())
    np.testing.assert_array_equal(found.confidence, own.scores.numpy())
    np.testing.assert_array_equal(found.class_id, own.pred_classes.numpy())
    np.testing.assert_array_equal(found.mask, own.pred_masks.numpy())


def test_annotators_draw_them(detector: Detector, image: np.ndarray) -> None:
    found = supervision.Detections.from_detectron2({"instances": detector(image)})
    drawn = supervision.BoxAnnotator().annotate(image.copy(), found)
    drawn = supervision.MaskAnnotator().annotate(drawn, found)
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_key_points() -> None:
    instances = Instances((40, 60))
    instances.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 30.0, 20.0]]))
    instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    instances.pred_keypoints = torch.rand(1, 17, 3)
    found = supervision.KeyPoints.from_detectron2({"instances": instances})
    np.testing.assert_array_equal(found.xy, instances.pred_keypoints[:, :, :2].numpy())
