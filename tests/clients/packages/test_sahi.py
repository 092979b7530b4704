"""sahi cuts an image into slices and lets our predictor look at each of them."""

from __future__ import annotations

import numpy as np
import pytest
from sahi import AutoDetectionModel
from sahi.predict import get_prediction, get_sliced_prediction

from tests.clients.packages.conftest import CLASSES, Detector


@pytest.fixture(scope="module")
def model(detector: Detector) -> AutoDetectionModel:
    return AutoDetectionModel.from_pretrained(
        model_type="detectron2",
        model_path=detector.weights,
        config_path=detector.config_file,
        confidence_threshold=0.0,
        category_mapping={str(index): name for index, name in enumerate(CLASSES)},
        device="cpu",
    )


def test_a_whole_image(model: AutoDetectionModel, detector: Detector, image: np.ndarray) -> None:
    found = get_prediction(image[:, :, ::-1], model).object_prediction_list
    own = detector(image)
    own = own[own.pred_masks.flatten(1).any(dim=1)]
    # sahi drops masks whose outline has too few points.
    assert 0 < len(found) <= len(own)
    known = [(round(float(own.scores[i]), 5), CLASSES[int(own.pred_classes[i])]) for i in range(len(own))]
    assert {(round(p.score.value, 5), p.category.name) for p in found} <= set(known)


def test_slices_are_put_together(model: AutoDetectionModel, image: np.ndarray) -> None:
    options = {"overlap_height_ratio": 0.25, "overlap_width_ratio": 0.25, "verbose": 0}
    result = get_sliced_prediction(image[:, :, ::-1], model, slice_height=64, slice_width=96, **options)
    boxes = np.array([prediction.bbox.to_xyxy() for prediction in result.object_prediction_list])
    assert len(boxes) > 0
    height, width = image.shape[:2]
    assert (boxes >= 0).all() and (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
    # The last slice begins where only shifted boxes lie.
    assert (boxes[:, 2] > 96).any() and (boxes[:, 3] > 64).any()
    assert all(record["category_name"] in CLASSES for record in result.to_coco_annotations())
