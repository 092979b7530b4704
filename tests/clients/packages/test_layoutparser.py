"""layoutparser finds the blocks of a page with our predictor."""

from __future__ import annotations

import layoutparser
import numpy as np
import pytest
from PIL import Image

from tests.clients.packages.conftest import CLASSES, Detector


def test_blocks_are_the_predictions(detector: Detector, image: np.ndarray) -> None:
    model = layoutparser.Detectron2LayoutModel(
        detector.config_file,
        detector.weights,
        label_map=dict(enumerate(CLASSES)),
        extra_config=["TEST.DETECTIONS_PER_IMAGE", 4],
        device="cpu",
    )
    layout = model.detect(image)
    own = detector(image)[:4]
    assert [block.type for block in layout] == [CLASSES[i] for i in own.pred_classes.tolist()]
    assert [block.score for block in layout] == pytest.approx(own.scores.tolist())
    for block, box in zip(layout, own.pred_boxes.tensor.tolist()):
        assert block.coordinates == pytest.approx(box)


def test_a_pil_image_and_the_automatic_choice(detector: Detector, image: np.ndarray) -> None:
    assert layoutparser.is_detectron2_available()
    model = layoutparser.Detectron2LayoutModel(detector.config_file, detector.weights)
    assert len(model.detect(Image.fromarray(image))) > 0
