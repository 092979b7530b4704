"""Colours stay with objects from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectron2.structures import Boxes, Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode

FRAME = np.full((60, 80, 3), 90, dtype=np.uint8)


def _found(boxes: list[list[float]], classes: list[int], with_masks: bool) -> Instances:
    instances = Instances((60, 80))
    instances.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    instances.scores = torch.ones(len(classes))
    if with_masks:
        masks = torch.zeros(len(boxes), 60, 80, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        instances.pred_masks = masks
    return instances


@pytest.mark.parametrize("with_masks", [True, False])
def test_moving_object_keeps_its_colour(with_masks: bool) -> None:
    video = VideoVisualizer(None)
    video.draw_instance_predictions(FRAME, _found([[5, 5, 35, 35], [45, 5, 75, 35]], [0, 0], with_masks))
    first, second = (track.color for track in video._old_instances)
    image = video.draw_instance_predictions(
        FRAME, _found([[46, 6, 76, 36], [6, 6, 36, 36]], [0, 0], with_masks)
    )
    assert [track.color for track in video._old_instances] == [second, first]
    assert image.get_image().shape == FRAME.shape


def test_object_is_remembered_over_a_gap_but_not_for_another_class() -> None:
    video = VideoVisualizer(None)
    box = [[5.0, 5, 35, 35]]
    video.draw_instance_predictions(FRAME, _found(box, [1], True))
    color = video._old_instances[0].color
    video.draw_instance_predictions(FRAME, _found([], [], True))
    video.draw_instance_predictions(FRAME, _found(box, [1], True))
    assert video._old_instances[0].color == color
    video.draw_instance_predictions(FRAME, _found(box, [2], True))
    assert video._old_instances[0].color != color


def test_object_is_forgotten_in_the_end() -> None:
    video = VideoVisualizer(None)
    video.draw_instance_predictions(FRAME, _found([[5.0, 5, 35, 35]], [1], False))
    for _ in range(20):
        video.draw_instance_predictions(FRAME, _found([], [], False))
    assert not video._old_instances


@pytest.mark.parametrize("mode", [ColorMode.IMAGE, ColorMode.IMAGE_BW])
def test_panoptic_and_semantic_frames_are_drawn(mode: ColorMode) -> None:
    video = VideoVisualizer(None, mode)
    ids = torch.zeros(60, 80, dtype=torch.int32)
    ids[:, :40] = 1
    ids[10:30, 50:70] = 2
    segments = [{"id": 1, "category_id": 0, "isthing": False}, {"id": 2, "category_id": 3, "isthing": True}]
    colors = set()
    for _ in range(2):
        image = video.draw_panoptic_seg_predictions(FRAME, ids, segments).get_image()
        colors.add(video._old_instances[0].color)
        assert (image[20, 60] != 90).any() and (image[50, 5] != 90).any()
    assert len(colors) == 1
    video.draw_panoptic_seg_predictions(FRAME, torch.zeros(60, 80, dtype=torch.int32), [])
    assert video.draw_sem_seg(FRAME, ids).get_image().shape == FRAME.shape


def test_class_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="IMAGE or IMAGE_BW"):
        VideoVisualizer(None, ColorMode.SEGMENTATION)
