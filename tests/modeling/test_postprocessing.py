from __future__ import annotations

import pytest
import torch

from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Boxes, Instances


def detections(boxes: list[list[float]], size: tuple[int, int] = (10, 20), **fields: object) -> Instances:
    return Instances(size, pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)), **fields)


def test_boxes_are_scaled_clipped_and_dropped_when_nothing_is_left() -> None:
    before = detections(
        [[0, 0, 10, 5], [15, 5, 30, 30], [25, 2, 30, 9]], scores=torch.tensor([0.9, 0.8, 0.7])
    )
    after = detector_postprocess(before, 20, 60)
    assert after.image_size == (20, 60)
    assert after.pred_boxes.tensor.tolist() == [[0, 0, 30, 10], [45, 10, 60, 20]]
    assert after.scores.tolist() == pytest.approx([0.9, 0.8])
    assert (
        before.pred_boxes.tensor[0].tolist() == [0, 0, 10, 5] and len(before) == 3
    )  # the argument is untouched


def test_proposals_are_rescaled_too() -> None:
    proposals = Instances((10, 10), proposal_boxes=Boxes(torch.tensor([[1.0, 2, 3, 4]])))
    assert detector_postprocess(proposals, 20, 10).proposal_boxes.tensor.tolist() == [[1, 4, 3, 8]]


def test_masks_are_pasted_into_their_boxes() -> None:
    masks = torch.ones(2, 1, 4, 4)
    masks[1] = 0
    after = detector_postprocess(detections([[4, 2, 8, 6], [0, 0, 5, 5]], pred_masks=masks), 10, 20)
    assert after.pred_masks.shape == (2, 10, 20) and after.pred_masks.dtype == torch.bool
    expected = torch.zeros(10, 20, dtype=torch.bool)
    expected[2:6, 4:8] = True
    assert torch.equal(after.pred_masks[0], expected)
    assert not after.pred_masks[1].any()


def test_the_mask_threshold_counts() -> None:
    masks = torch.full((1, 1, 4, 4), 0.4)
    box = [[0.0, 0, 10, 10]]
    assert not detector_postprocess(detections(box, pred_masks=masks), 10, 20).pred_masks.any()
    assert detector_postprocess(
        detections(box, pred_masks=masks), 10, 20, mask_threshold=0.3
    ).pred_masks.any()


def test_keypoints_are_scaled() -> None:
    keypoints = torch.tensor([[[2.0, 3.0, 0.5]]])
    before = detections([[0, 0, 5, 5]], pred_keypoints=keypoints)
    assert detector_postprocess(before, 20, 60).pred_keypoints.tolist() == [[[6, 6, 0.5]]]
    assert before.pred_keypoints.tolist() == [[[2, 3, 0.5]]]


def test_no_detections() -> None:
    empty = detections([], pred_masks=torch.zeros(0, 1, 28, 28), pred_keypoints=torch.zeros(0, 17, 3))
    after = detector_postprocess(empty, 7, 9)
    assert len(after) == 0 and after.pred_masks.shape == (0, 7, 9)


def test_one_pixel_images() -> None:
    after = detector_postprocess(
        detections([[0, 0, 1, 1]], (1, 1), pred_masks=torch.ones(1, 1, 28, 28)), 1, 1
    )
    assert after.pred_masks.tolist() == [[[True]]]
    assert sem_seg_postprocess(torch.ones(3, 32, 32), (1, 1), 1, 1).shape == (3, 1, 1)


def test_instances_without_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="pred_boxes or proposal_boxes"):
        detector_postprocess(Instances((1, 1), scores=torch.zeros(1)), 1, 1)


def test_semantic_logits_lose_the_padding_before_they_are_resized() -> None:
    logits = torch.zeros(2, 8, 8)
    logits[0, :4, :6] = 1.0
    logits[0, 4:] = logits[0, :, 6:] = 100.0  # padding
    resized = sem_seg_postprocess(logits, (4, 6), 8, 9)
    assert resized.shape == (2, 8, 9)
    torch.testing.assert_close(resized[0], torch.ones(8, 9))
