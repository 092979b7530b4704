from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.keypoint_head import (
    KRCNNConvDeconvUpsampleHead,
    keypoint_rcnn_inference,
    keypoint_rcnn_loss,
)
from detectron2.modeling.roi_heads.mask_head import (
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.modeling.roi_heads.roi_heads.selection import (
    select_foreground_proposals,
    select_proposals_with_visible_keypoints,
)
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

NUM_POINTS = 3  # where there are no objects to count them on
SHAPE = ShapeSpec(channels=4, height=3, width=3)


def with_masks(*classes: int) -> Instances:
    """Regions of 4x4 pixels whose left half is object."""
    count = len(classes)
    masks = torch.zeros(count, 4, 4, dtype=torch.bool)
    masks[:, :, :2] = True
    return Instances(
        (4, 4),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0, 4, 4]]).repeat(count, 1)),
        gt_masks=BitMasks(masks),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )


@pytest.mark.parametrize("agnostic", [False, True])
def test_mask_loss_by_hand(agnostic: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 1 if agnostic else 5, 4, 4)
    batch = [with_masks(4, 0), with_masks(), with_masks(2)]
    with EventStorage() as storage:
        loss = mask_rcnn_loss(logits, batch)
    total, wrong = 0.0, 0
    for row, true_class in enumerate([4, 0, 2]):
        for y in range(4):
            for x in range(4):
                value = logits[row, 0 if agnostic else true_class, y, x].item()
                total += math.log1p(math.exp(-value if x < 2 else value))
                wrong += (value > 0) != (x < 2)
    assert loss.item() == pytest.approx(total / 48, rel=1e-5)
    assert storage.latest()["mask_rcnn/accuracy"][0] == pytest.approx(1 - wrong / 48, abs=1e-6)
    assert {"mask_rcnn/false_positive", "mask_rcnn/false_negative"} <= set(storage.latest())


@pytest.mark.parametrize("batch", [[], [with_masks()], [with_masks(), with_masks()]])
def test_mask_loss_without_foreground(batch: list[Instances]) -> None:
    head = MaskRCNNConvUpsampleHead(SHAPE, num_classes=5, conv_dims=[6, 6])
    (loss,) = head(torch.zeros(0, 4, 3, 3), batch).values()
    loss.backward()
    assert loss == 0 and all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_mask_pictures_come_periodically() -> None:
    with EventStorage() as storage:
        for _ in range(3):
            mask_rcnn_loss(torch.zeros(2, 5, 4, 4), [with_masks(1, 2)], vis_period=2)
            storage.step()
        pictures = storage._vis_data
    assert [(iteration, tuple(image.shape)) for _, image, iteration in pictures] == [
        (0, (3, 4, 8)),
        (0, (3, 4, 8)),
        (2, (3, 4, 8)),
        (2, (3, 4, 8)),
    ]


@pytest.mark.parametrize("counts", [[2, 0, 1], [0], []])
def test_mask_inference_takes_the_channel_of_the_class(counts: list[int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(sum(counts), 5, 6, 6)
    classes = torch.randint(0, 5, (sum(counts),))
    batch = [Instances((9, 9), pred_classes=c) for c in classes.split(counts)] if counts else []
    mask_rcnn_inference(logits, batch)
    masks = torch.cat([x.pred_masks for x in batch]) if batch else torch.zeros(0, 1, 6, 6)
    assert masks.shape == (sum(counts), 1, 6, 6)
    for mask, of_region, c in zip(masks, logits, classes):
        torch.testing.assert_close(mask[0], of_region[c].sigmoid())


def test_mask_head_layout() -> None:
    head = MaskRCNNConvUpsampleHead(SHAPE, num_classes=5, conv_dims=[6, 7, 8], conv_norm="BN")
    assert {n.split(".")[0] for n, _ in head.named_parameters()} == {
        "mask_fcn1",
        "mask_fcn2",
        "deconv",
        "predictor",
    }
    assert "mask_fcn1.norm.weight" in head.state_dict() and "mask_fcn1.bias" not in head.state_dict()
    assert head.layers(torch.zeros(2, 4, 3, 3)).shape == (2, 5, 6, 6)
    with pytest.raises(ValueError, match="deconvolution"):
        MaskRCNNConvUpsampleHead(SHAPE, num_classes=5, conv_dims=[])


def with_keypoints(points: list[list[list[float]]]) -> Instances:
    count = len(points)
    return Instances(
        (40, 40),
        proposal_boxes=Boxes(torch.tensor([[10.0, 10, 30, 30]]).repeat(count, 1)),
        gt_keypoints=Keypoints(
            np.array(points, dtype="float32").reshape(count, NUM_POINTS if not count else -1, 3)
        ),
        gt_classes=torch.zeros(count, dtype=torch.int64),
    )


def test_keypoint_loss_by_hand() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4)
    # Cells of 5 pixels: (12, 27) lies in column 0, row 3; the second is invisible, the third out of the box.
    batch = [with_keypoints([[[12, 27, 2], [20, 20, 0], [5, 5, 2]]]), with_keypoints([])]
    expected = -math.log(logits[0, 0].flatten().softmax(0)[3 * 4 + 0])
    assert keypoint_rcnn_loss(logits, batch, None).item() == pytest.approx(expected, rel=1e-5)
    assert keypoint_rcnn_loss(logits, batch, 4.0).item() == pytest.approx(expected / 4, rel=1e-5)


@pytest.mark.parametrize("batch", [[], [with_keypoints([])], [with_keypoints([[[20, 20, 0]]])]])
def test_keypoint_loss_without_visible_keypoints(batch: list[Instances]) -> None:
    head = KRCNNConvDeconvUpsampleHead(SHAPE, num_keypoints=1, conv_dims=[6], loss_normalizer="visible")
    with EventStorage() as storage:
        (loss,) = head(torch.zeros(sum(len(b) for b in batch), 4, 3, 3), batch).values()
    loss.backward()
    assert loss == 0 and all(p.grad is not None and not p.grad.any() for p in head.parameters())
    assert storage.latest()["kpts_num_skipped_batches"][0] >= 1


def test_keypoint_inference_finds_the_peak() -> None:
    logits = torch.zeros(2, 1, 8, 8)
    logits[0, 0, 2, 6] = logits[1, 0, 7, 0] = 20.0
    batch = [Instances((99, 99), pred_boxes=Boxes(torch.tensor([[10.0, 20, 26, 36]]))) for _ in range(2)]
    batch.append(Instances((99, 99), pred_boxes=Boxes(torch.zeros(0, 4))))
    keypoint_rcnn_inference(logits, batch)
    assert [len(x.pred_keypoints) for x in batch] == [1, 1, 0]
    # Cells are 2 pixels wide: column 6, row 2 is [22, 24] x [24, 26].
    x, y, score = batch[0].pred_keypoints[0, 0].tolist()
    assert 22 <= x <= 24 and 24 <= y <= 26 and 0 < score <= 1
    assert batch[0].pred_keypoint_heatmaps.shape == (1, 1, 8, 8)


def test_keypoint_head_layout_and_normalizer() -> None:
    head = KRCNNConvDeconvUpsampleHead(SHAPE, num_keypoints=3, conv_dims=[6, 7])
    names = {n.split(".")[0] for n, _ in head.named_parameters()}
    assert names == {"conv_fcn1", "conv_fcn2", "score_lowres"}
    assert head.layers(torch.zeros(2, 4, 3, 3)).shape == (2, 3, 12, 12)
    with pytest.raises(ValueError, match="'visible' or a number"):
        KRCNNConvDeconvUpsampleHead(SHAPE, num_keypoints=3, conv_dims=[6], loss_normalizer="all")


def test_foreground_selection() -> None:
    batch = [
        Instances((9, 9), gt_classes=torch.tensor(c, dtype=torch.int64)) for c in ([0, 5, -1, 4], [5], [])
    ]
    kept, masks = select_foreground_proposals(batch, bg_label=5)
    assert [k.gt_classes.tolist() for k in kept] == [[0, 4], [], []]
    assert [m.tolist() for m in masks] == [[True, False, False, True], [False], []]


def test_selection_by_visible_keypoints() -> None:
    batch = [
        with_keypoints(
            [
                [[20, 20, 2], [0, 0, 0]],  # visible, inside
                [[20, 20, 0], [20, 20, 0]],  # not labelled
                [[5, 20, 2], [20, 35, 1]],  # outside
                [[10, 30, 1], [0, 0, 2]],  # hidden, on the border
            ]
        ),
        with_keypoints([]),
    ]
    with EventStorage() as storage:
        kept = select_proposals_with_visible_keypoints(batch)
    assert [len(k) for k in kept] == [2, 0]
    assert kept[0].gt_keypoints.tensor[:, 0, 1].tolist() == [20, 30]
    assert storage.latest()["keypoint_head/num_fg_samples"][0] == 1
