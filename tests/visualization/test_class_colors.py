"""One class has one colour, wherever it is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode, Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode, Visualizer
from detectron2.visualization.class_colors import ClassColors, ColorBy

HEIGHT, WIDTH = 60, 80
PICTURE = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
WITH_COLORS = Metadata(
    thing_classes=["cat", "dog"], thing_colors=[(200, 0, 0), (0, 200, 40)], stuff_classes=["sky"]
)
WITHOUT_COLORS = Metadata(thing_classes=["cat", "dog"], stuff_classes=["sky"])
MASKS = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
MASKS[0, 5:25, 5:35], MASKS[1, 35:55, 5:35], MASKS[2, 35:55, 45:75] = True, True, True
CLASSES = [0, 1, 1]


def _predictions() -> Instances:
    return Instances((HEIGHT, WIDTH), pred_masks=torch.from_numpy(MASKS), pred_classes=torch.tensor(CLASSES))


def _panoptic() -> tuple[np.ndarray, list[dict[str, Any]]]:
    ids = sum(mask.astype(np.int64) * i for i, mask in enumerate(MASKS, 1))
    return np.asarray(ids), [{"id": i, "category_id": c, "isthing": True} for i, c in enumerate(CLASSES, 1)]


def _annotations() -> dict[str, Any]:
    boxes = [[5, 5, 35, 25], [5, 35, 35, 55], [45, 35, 75, 55]]
    return {
        "annotations": [
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": category,
                "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            }
            for category, box in zip(CLASSES, boxes)
            for x0, y0, x1, y1 in [box]
        ]
    }


def _hues(image: np.ndarray) -> list[np.ndarray]:
    """The direction of the most common colour in each mask: tints differ in strength alone."""
    found = []
    for mask in MASKS:
        colors, counts = np.unique(image[mask], axis=0, return_counts=True)
        color = colors[counts.argmax()].astype(float)
        found.append(color / np.linalg.norm(color))
    return found


def _all_drawings(metadata: Metadata, color_by: ColorBy) -> list[np.ndarray]:
    def fresh(mode: ColorMode = ColorMode.IMAGE) -> Visualizer:
        return Visualizer(PICTURE, metadata, instance_mode=mode, color_by=color_by)

    video = VideoVisualizer(metadata, color_by=color_by)
    drawings = [
        *(fresh(mode).draw_instance_predictions(_predictions()) for mode in ColorMode),
        fresh().draw_panoptic_seg(*_panoptic()),
        fresh().draw_dataset_dict(_annotations()),
        video.draw_instance_predictions(PICTURE, _predictions()),
        video.draw_panoptic_seg_predictions(PICTURE, *_panoptic()),
    ]
    return [drawing.get_image() for drawing in drawings]


@pytest.mark.parametrize("metadata", [WITH_COLORS, WITHOUT_COLORS], ids=["given", "palette"])
def test_by_class_every_instance_has_the_colour_of_its_class_everywhere(metadata: Metadata) -> None:
    colors = [np.array(ClassColors(metadata).of_thing(c)) for c in CLASSES]
    for image in _all_drawings(metadata, "class"):
        for hue, color in zip(_hues(image), colors):
            np.testing.assert_allclose(hue, color / np.linalg.norm(color), atol=0.02)


def test_given_colours_are_honoured() -> None:
    assert ClassColors(WITH_COLORS).of_thing(1) == pytest.approx((0, 200 / 255, 40 / 255))
    plain = Visualizer(PICTURE, WITH_COLORS).draw_instance_predictions(_predictions()).get_image()
    cat, dog, _ = _hues(plain)  # the first instance of a class has its very colour in any mode
    np.testing.assert_allclose(cat, [1, 0, 0], atol=0.02)
    np.testing.assert_allclose(dog, np.array([0, 200, 40]) / np.hypot(200, 40), atol=0.02)


@pytest.mark.parametrize("color_by", ["instance", "track"])
def test_by_instance_those_of_one_class_differ(color_by: ColorBy) -> None:
    for image in _all_drawings(WITH_COLORS, color_by):
        _, first, second = _hues(image)
        assert np.abs(first - second).max() > 0.02


def test_by_track_a_colour_moves_with_its_object_and_by_class_with_the_class() -> None:
    turned = _predictions()[torch.tensor([2, 1, 0])]
    for color_by in ("track", "class"):
        video = VideoVisualizer(WITH_COLORS, color_by=color_by)
        first, second = (
            _hues(video.draw_instance_predictions(PICTURE, found).get_image())
            for found in (_predictions(), turned)
        )
        np.testing.assert_allclose(first, second, atol=0.02)


def test_classes_of_both_lists_share_a_colour_and_all_others_differ() -> None:
    names = [f"class {i}" for i in range(150)]
    colors = ClassColors(Metadata(thing_classes=names[:100], stuff_classes=names[50:]))
    things = [colors.of_thing(i) for i in range(100)]
    stuff = [colors.of_stuff(i) for i in range(100)]
    assert things[50:] == stuff[:50] and len({*things, *stuff}) == 150
    street = Metadata(
        thing_classes=["car"], stuff_classes=["road", "car"], stuff_colors=[[1, 2, 3], [4, 5, 6]]
    )
    assert ClassColors(street).of_thing(0) == ClassColors(street).of_stuff(1) == (4 / 255, 5 / 255, 6 / 255)


def test_other_wishes_are_refused() -> None:
    for make in (lambda **how: Visualizer(PICTURE, **how), lambda **how: VideoVisualizer(None, **how)):
        with pytest.raises(ValueError, match="color_by should be one of"):
            make(color_by="score")
