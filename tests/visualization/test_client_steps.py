"""Steps that subclasses of other projects replace, and names that they import: each has its effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import video_visualizer, visualizer
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer

HEIGHT, WIDTH = 60, 80
PICTURE = np.random.default_rng(0).integers(40, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
METADATA = Metadata(
    thing_classes=["cat", "dog"],
    thing_colors=[(250, 0, 0), (0, 250, 0)],
    stuff_classes=["sky"],
    stuff_colors=[(0, 0, 250)],
)
IDS = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
IDS[:20], IDS[25:50, 10:40] = 1, 2
SEGMENTS = [{"id": 1, "category_id": 0, "isthing": False}, {"id": 2, "category_id": 1, "isthing": True}]


def _found(with_masks: bool = True, number: int = 2) -> Instances:
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(torch.tensor([[10.0, 15, 40, 45], [45.0, 15, 75, 45]])[:number])
    instances.scores = torch.tensor([0.9, 0.8])[:number]
    instances.pred_classes = torch.tensor([0, 1])[:number]
    if with_masks:
        masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
        masks[0, 15:45, 10:40] = masks[1, 15:45, 45:75] = True
        instances.pred_masks = masks[:number]
    return instances


def _draw_everything(drawer: Visualizer) -> None:
    drawer.draw_instance_predictions(_found())
    drawer.draw_panoptic_seg(IDS, SEGMENTS)
    drawer.draw_sem_seg(np.where(IDS == 1, 0, 255))
    points = [10.0, 20.0, 2.0, 30.0, 40.0, 2.0]
    box = {"bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "keypoints": points}
    drawer.draw_dataset_dict({"annotations": [box]})
    drawer.overlay_rotated_instances(np.array([[40.0, 30, 20, 10, 15]]), ["ship"])


@pytest.mark.parametrize(
    "step",
    [
        "_change_color_brightness", "_convert_boxes", "_convert_keypoints", "_convert_masks",
        "_create_grayscale_image", "_draw_text_in_mask", "_jitter", "draw_and_connect_keypoints",
        "draw_binary_mask", "draw_box", "draw_circle", "draw_line", "draw_panoptic_seg", "draw_polygon",
        "draw_rotated_box_with_label", "draw_sem_seg", "draw_text", "overlay_instances",
    ],
)  # fmt: skip
def test_every_step_is_called_by_those_above_it(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = getattr(Visualizer, step)

    def replaced(self: Visualizer, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Visualizer, step, replaced)
    for mode in ColorMode:
        _draw_everything(Visualizer(PICTURE, METADATA, instance_mode=mode))
    assert calls


def test_replacing_a_step_changes_the_picture() -> None:
    class Blue(Visualizer):
        def _jitter(self, color: Any) -> Any:
            return (0.0, 0.0, 1.0)

    image = Blue(PICTURE, METADATA).draw_panoptic_seg(IDS, [SEGMENTS[1]], alpha=0.8).get_image()
    np.testing.assert_allclose(image[45, 15], 0.2 * PICTURE[45, 15] + [0, 0, 204], atol=2)

    class White(Visualizer):
        def _create_grayscale_image(self, mask: np.ndarray | None = None) -> np.ndarray:
            return np.full(self.img.shape, 255.0)

    white = White(PICTURE, METADATA, instance_mode=ColorMode.IMAGE_BW)
    assert (white.draw_instance_predictions(_found()).get_image()[59, :5] == 255).all()


def test_grey_picture_is_the_mean_of_the_channels_outside_the_mask() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[10:20] = 1
    grey = Visualizer(PICTURE)._create_grayscale_image(mask)
    np.testing.assert_array_equal(grey[10:20], PICTURE[10:20])
    mean = PICTURE.mean(axis=2, keepdims=True).repeat(3, axis=2)
    np.testing.assert_allclose(grey[30:], mean[30:], rtol=1e-6)
    np.testing.assert_allclose(Visualizer(PICTURE)._create_grayscale_image(), mean, rtol=1e-6)


@pytest.mark.parametrize("number", [0, 2])
def test_grey_mode_without_masks_greys_everything(number: int) -> None:
    drawer = Visualizer(PICTURE, METADATA, instance_mode=ColorMode.IMAGE_BW)
    found = _found(with_masks=False, number=number)
    found.remove("scores")
    found.remove("pred_classes")
    image = drawer.draw_instance_predictions(found).get_image()[50:]
    assert (image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all()


def test_grey_mode_tints_lightly() -> None:
    image = Visualizer(PICTURE, METADATA, instance_mode=ColorMode.IMAGE_BW)
    tinted = image.draw_instance_predictions(_found(number=1)).get_image()
    np.testing.assert_allclose(tinted[40, 30], 0.7 * PICTURE[40, 30] + 0.3 * np.array([250, 0, 0]), atol=2)


def test_jitter_stays_near_and_differs_from_call_to_call() -> None:
    drawer = Visualizer(PICTURE)
    color = np.array([0.6, 0.4, 0.2])
    near = np.array([drawer._jitter(color) for _ in range(5)])
    assert near.min() >= 0 and near.max() <= 1
    assert (np.linalg.norm(near - color, axis=1) <= 0.6).all()
    assert len({tuple(c) for c in [*near.tolist(), color.tolist()]}) == 6


def test_brightness_changes_the_lightness() -> None:
    drawer = Visualizer(PICTURE)
    assert drawer._change_color_brightness("red", -0.5) == pytest.approx((0.5, 0.0, 0.0))
    assert drawer._change_color_brightness((0.4, 0.4, 0.4), 0.7) == pytest.approx((0.68, 0.68, 0.68))
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        drawer._change_color_brightness("red", 1.5)


@pytest.mark.parametrize("name", ["fig", "ax", "canvas"])
def test_the_missing_figure_says_why(name: str) -> None:
    with pytest.raises(AttributeError, match="without matplotlib"):
        getattr(VisImage(PICTURE), name)


def test_small_parts_of_a_mask_are_left_out() -> None:
    mask = np.zeros((HEIGHT, WIDTH))
    mask[10:30, 10:30] = mask[50, 70] = 1
    image = Visualizer(PICTURE).draw_binary_mask(mask, "red", area_threshold=10).get_image()
    assert (image[50, 70] == PICTURE[50, 70]).all() and (image[20, 20] != PICTURE[20, 20]).any()
    whole = Visualizer(PICTURE).draw_binary_mask(mask, "red", area_threshold=0).get_image()
    assert (whole[50, 70] != PICTURE[50, 70]).any()


def test_annotations_that_lack_a_mask_leave_those_of_others() -> None:
    box = {"bbox": [5, 5, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    polygon = [[20.0, 15, 50, 15, 50, 45, 20, 45]]
    drawer = Visualizer(PICTURE, METADATA)
    drawer.draw_dataset_dict({"annotations": [box, {**box, "segmentation": polygon}]})
    assert (drawer.get_output().get_image()[20:40, 25:45] != PICTURE[20:40, 25:45]).any(axis=2).all()


def test_a_panoptic_prediction_is_taken_apart() -> None:
    parts = visualizer._PanopticPrediction(torch.from_numpy(IDS), SEGMENTS, METADATA)
    np.testing.assert_array_equal(parts.non_empty_mask(), IDS > 0)
    (stuff, sky), (thing, dog) = next(parts.semantic_masks()), next(parts.instance_masks())
    assert (sky, dog) == (SEGMENTS[0], SEGMENTS[1]) and stuff.dtype == thing.dtype == bool
    np.testing.assert_array_equal(stuff, IDS == 1)
    np.testing.assert_array_equal(thing, IDS == 2)
    metadata = Metadata(thing_dataset_id_to_contiguous_id={7: 1}, label_divisor=100)
    encoded = np.where(IDS == 2, 103, -1)
    forged = video_visualizer._PanopticPrediction(encoded, None, metadata)
    assert [s for _, s in forged.instance_masks()] == [{"id": 103, "category_id": 1, "isthing": True}]
    np.testing.assert_array_equal(forged.non_empty_mask(), IDS == 2)


def test_colours_of_a_video_may_be_assigned_by_a_client() -> None:
    video = VideoVisualizer(METADATA)
    make = video_visualizer._DetectedInstance
    boxes = np.array([[0.0, 0, 20, 20], [30, 30, 60, 60]])
    first = video._assign_colors([make(0, boxes[0], None, None, 8), make(1, boxes[1], None, None, 8)])
    again = video._assign_colors([make(1, boxes[1] + 1, None, None, 8), make(0, boxes[0] + 1, None, None, 8)])
    assert again == first[::-1]
    assert video._assign_colors([make(0, boxes[0], None, (0.1, 0.2, 0.3), 8)]) == [(0.1, 0.2, 0.3)]


def test_numbers_of_a_tracker_keep_their_colours() -> None:
    video = VideoVisualizer(Metadata(_max_num_instances=2))
    found = _found()
    found.ID = [7, 9]
    seven, nine = video._assign_colors_by_id(found)
    found.ID = [9, 11]
    assert video._assign_colors_by_id(found) == [nine, seven]  # the colour of 7 is free again
    three = Instances((HEIGHT, WIDTH), ID=[9, 11, 12])
    assert len(set(video._assign_colors_by_id(three))) == 3  # more than was foreseen

    calls = []

    class Recording(VideoVisualizer):
        def _assign_colors_by_id(self, instances: Instances) -> Any:
            calls.append("id")
            return super()._assign_colors_by_id(instances)

        def _assign_colors(self, instances: Any) -> Any:
            calls.append("overlap")
            return super()._assign_colors(instances)

    for frame in (_found(), found):
        Recording(METADATA).draw_instance_predictions(PICTURE, frame)
    assert calls == ["overlap", "id"]


def test_given_colours_and_waiting_objects_of_a_video() -> None:
    found = _found()
    found.COLOR = [(0.0, 0.0, 1.0), (0.0, 1.0, 1.0)]
    image = VideoVisualizer(METADATA).draw_instance_predictions(PICTURE, found).get_image()
    np.testing.assert_allclose(image[40, 30], 0.5 * PICTURE[40, 30] + [0, 0, 127.5], atol=2)
    found.ID_period = [1, 5]
    metadata = Metadata(period_threshold=3)
    image = VideoVisualizer(metadata).draw_instance_predictions(PICTURE, found).get_image()
    assert (image[40, 30] == PICTURE[40, 30]).all() and (image[40, 60] != PICTURE[40, 60]).any()


def test_a_grey_video_keeps_the_colour_of_its_segments() -> None:
    video = VideoVisualizer(METADATA, ColorMode.IMAGE_BW)
    image = video.draw_panoptic_seg_predictions(PICTURE, IDS, SEGMENTS, alpha=0.3).get_image()
    np.testing.assert_allclose(image[45, 15], 0.7 * PICTURE[45, 15] + [0, 75, 0], atol=2)
    assert (image[55, :, 0] == image[55, :, 1]).all()
