"""deepdoctection builds our Faster and Mask R-CNN from its own configs and maps what they say."""

from __future__ import annotations

import numpy as np
import pytest
from dd_core.utils.object_types import LayoutLabel
from deepdoctection.extern.d2detect import D2FrcnnDetector

from tests.clients.packages.conftest import Detector

# deepdoctection counts from one, as 0 is its background.
CATEGORIES = {
    1: LayoutLabel.TEXT,
    2: LayoutLabel.TITLE,
    3: LayoutLabel.LIST,
    4: LayoutLabel.TABLE,
    5: LayoutLabel.FIGURE,
}


@pytest.fixture
def d2_detector(detector: Detector) -> D2FrcnnDetector:
    # 2: its second suppression, over all classes together, keeps everything.
    return D2FrcnnDetector(
        detector.config_file,
        detector.weights,
        CATEGORIES,
        config_overwrite=["NMS_THRESH_CLASS_AGNOSTIC=2.0"],
        device="cpu",
    )


def test_results_are_the_predictions(
    d2_detector: D2FrcnnDetector, detector: Detector, image: np.ndarray
) -> None:
    found = d2_detector.predict(image)
    own = detector(image)
    assert len(found) > 0
    assert sorted(result.score for result in found) == pytest.approx(sorted(own.scores.tolist()), rel=0.2)
    assert {result.class_name for result in found} <= set(CATEGORIES.values())
    for result in found:
        assert CATEGORIES[result.class_id] == result.class_name


def test_a_clone_is_another_model(d2_detector: D2FrcnnDetector, image: np.ndarray) -> None:
    clone = d2_detector.clone()
    assert clone.d2_predictor is not d2_detector.d2_predictor
    boxes = [[result.box for result in model.predict(image)] for model in (d2_detector, clone)]
    assert boxes[0] == boxes[1]
