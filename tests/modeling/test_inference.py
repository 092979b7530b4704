"""The core of inference, against loops in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from detectron2.config import CfgNode
from detectron2.modeling import build_model, inference
from detectron2.modeling.box_kinds import ROTATED, UPRIGHT, BoxKind
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, RotatedBoxes, pairwise_iou
from detectron2.structures.rotated_boxes import pairwise_iou as pairwise_iou_rotated

SIZE = (40, 60)  # of the image


def make_boxes(num: int, kind: BoxKind, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * 50 - 5
    side = torch.rand(num, 2, generator=generator) * 30 + 1
    if kind is UPRIGHT:
        return torch.cat([corner, corner + side], dim=1)
    return torch.cat([corner, side, torch.rand(num, 1, generator=generator) * 180 - 90], dim=1)


def greedy(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, kind: BoxKind) -> list[int]:
    """NMS by its definition."""
    if kind is UPRIGHT:
        iou = pairwise_iou(Boxes(boxes), Boxes(boxes))
    else:
        iou = pairwise_iou_rotated(RotatedBoxes(boxes), RotatedBoxes(boxes))
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        if all(groups[i] != groups[j] or iou[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("kind", [UPRIGHT, ROTATED], ids=["upright", "rotated"])
@pytest.mark.parametrize("num", [0, 1, 40])
def test_proposals_are_finite_clipped_large_and_the_best(kind: BoxKind, num: int) -> None:
    boxes = make_boxes(num, kind)
    scores = torch.randn(num, generator=torch.Generator().manual_seed(1))
    levels = torch.arange(num) % 2
    if num > 4:
        boxes[3, 2], scores[4] = torch.inf, torch.nan
    got_boxes, got_scores = inference.choose_proposals(
        boxes.clone(), scores, levels, SIZE, nms_thresh=0.3, topk=7, min_size=4.0, kind=kind
    )
    usable = [i for i in range(num) if boxes[i].isfinite().all() and scores[i].isfinite()]
    clipped = kind.structure(boxes[usable].clone())
    clipped.clip(SIZE)
    large = [n for n in range(len(usable)) if bool(clipped.nonempty(4.0)[n])]
    rows = [usable[n] for n in large]
    kept = greedy(clipped.tensor[large], scores[rows], levels[rows], 0.3, kind)[:7]
    torch.testing.assert_close(got_boxes, clipped.tensor[large][kept], rtol=0, atol=0)
    torch.testing.assert_close(got_scores, scores[rows][kept], rtol=0, atol=0)


@pytest.mark.parametrize("num_box_sets", [1, 3])
@pytest.mark.parametrize("topk", [-1, 0, 5])
def test_detections_are_the_best_of_every_class(num_box_sets: int, topk: int) -> None:
    boxes = make_boxes(20 * num_box_sets, UPRIGHT).unflatten(0, (20, num_box_sets))
    scores = torch.rand(20, 4, generator=torch.Generator().manual_seed(2))
    boxes[5, 0, 1], scores[6, 2] = torch.nan, torch.inf
    found = inference.choose_detections(boxes, scores, SIZE, score_thresh=0.4, nms_thresh=0.5, topk=topk)

    pairs = [(r, c) for r in range(20) if r not in (5, 6) for c in range(3) if scores[r, c] > 0.4]
    regions, classes = torch.tensor(pairs).unbind(dim=1)
    candidates = Boxes(boxes[regions, classes if num_box_sets > 1 else 0])
    candidates.clip(SIZE)
    kept = greedy(candidates.tensor, scores[regions, classes], classes, 0.5, UPRIGHT)
    kept = kept if topk < 0 else kept[:topk]
    assert found.regions.tolist() == regions[kept].tolist()
    assert found.classes.tolist() == classes[kept].tolist()
    assert torch.equal(found.boxes, candidates.tensor[kept])
    assert torch.equal(found.scores, scores[regions, classes][kept])


def test_top_of_every_level() -> None:
    boxes = [torch.arange(n * 4.0).reshape(1, n, 4) + 100 * n for n in (5, 2)]
    logits = [torch.tensor([[1.0, 5, 3, 2, 4]]), torch.tensor([[0.0, 9]])]
    top_boxes, scores, levels = inference.top_per_level(boxes, logits, 3)
    assert scores.tolist() == [[5, 4, 3, 9, 0]]
    assert levels.tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(top_boxes[0], torch.cat([boxes[0][0, [1, 4, 2]], boxes[1][0, [1, 0]]]))


def test_a_level_gives_one_candidate_per_anchor_and_class() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([[0.9, 0.2], [0.6, 0.7]])
    transform = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    deltas = torch.tensor([[0.0, 0, 0, 0], [0.5, 0, 0, 0]])
    boxes, best, classes = inference.decode_level(
        anchors, scores, deltas, transform, score_thresh=0.5, topk=2
    )
    assert boxes.tolist() == [[0, 0, 10, 10], [25, 20, 35, 30]]
    assert best.tolist() == pytest.approx([0.9, 0.7])
    assert classes.tolist() == [0, 1]


def test_dense_detections_of_all_levels_compete() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    levels = [
        (box, torch.tensor([0.5]), torch.tensor([1])),
        (torch.cat([box, box + 20, box]), torch.tensor([0.9, 0.4, 0.3]), torch.tensor([1, 1, 0])),
    ]
    found = inference.choose_dense_detections(levels, nms_thresh=0.5, topk=2)
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert found.regions.tolist() == [1, 2]
    assert len(inference.choose_dense_detections(levels, nms_thresh=0.5, topk=-1).scores) == 3


def test_all_stages_vote_for_the_class_and_the_last_says_the_box() -> None:
    seen: list[float] = []

    def run_stage(stage: int, source: float) -> tuple[list[Tensor], list[Tensor]]:
        seen.append(source)
        return [torch.tensor([source + 1])], [torch.tensor([2.0**stage])]

    boxes, probs = inference.run_cascade(3, 5.0, run_stage, lambda boxes: 10 * float(boxes[0]))
    assert seen == [5.0, 60.0, 610.0]
    assert [x.tolist() for x in boxes] == [[611.0]]
    assert [x.tolist() for x in probs] == [[pytest.approx(7 / 3)]]


@pytest.mark.parametrize("num", [0, 3])
def test_masks_of_own_class(num: int) -> None:
    logits = torch.randn(num, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([3, 0, 2])[:num]
    expected = [logits[i, c] for i, c in enumerate(classes.tolist())]
    picked = inference.own_class_masks(logits, classes)
    assert picked.shape == (num, 2, 2)
    assert all(torch.equal(a, b) for a, b in zip(picked, expected))
    probs = inference.own_class_mask_probabilities(logits[:, :1], classes)
    assert torch.equal(probs, logits[:, :1].sigmoid())


@pytest.mark.parametrize("use_sigmoid", [False, True])
def test_class_probabilities_are_float32(use_sigmoid: bool) -> None:
    logits = torch.tensor([[0.0, 1.0]])
    odds = logits.exp()
    expected = odds / (1 + odds) if use_sigmoid else odds / odds.sum()
    probs = inference.class_probabilities(logits.bfloat16(), use_sigmoid)
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs, expected)


def test_clipping_is_that_of_the_structure() -> None:
    boxes = make_boxes(50, UPRIGHT, seed=4)
    expected = Boxes(boxes.clone())
    expected.clip(SIZE)
    assert torch.equal(UPRIGHT.clip(boxes, SIZE), expected.tensor)


@pytest.mark.parametrize("name", ["standard", "cascade", "rotated"])
def test_one_image_is_detected_as_in_a_batch(small_cfg: Callable[..., CfgNode], name: str) -> None:
    """The form for exporters, and the one that goes by `Instances`."""
    torch.manual_seed(3)
    model: Any = build_model(small_cfg("GeneralizedRCNN", *OVERRIDES[name])).eval()
    for parameter in model.roi_heads.parameters():
        parameter.data.mul_(3)
    inputs = [{"image": torch.randint(0, 256, (3, 96, 70), dtype=torch.uint8)}]
    with torch.no_grad():
        images = model.preprocess_image(inputs)
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features)
        (expected,), _ = model.roi_heads(images, features, proposals)
        boxes = model.proposal_generator.propose_in_one_image(features, (96, 70))
        found = model.roi_heads.detect_in_one_image(features, boxes, (96, 70))
    assert len(expected) > 3
    assert torch.equal(boxes, proposals[0].proposal_boxes.tensor)
    assert torch.equal(found.boxes, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.classes, expected.pred_classes)
    if name == "standard":
        with torch.no_grad():
            masks = model.roi_heads.masks_in_one_image(features, found.boxes, found.classes)
        assert torch.equal(masks, expected.pred_masks)


OVERRIDES: dict[str, list[Any]] = {
    "standard": ["MODEL.MASK_ON", True],
    "cascade": ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True],
    "rotated": [
        "MODEL.PROPOSAL_GENERATOR.NAME",
        "RRPN",
        "MODEL.ANCHOR_GENERATOR.NAME",
        "RotatedAnchorGenerator",
        "MODEL.ANCHOR_GENERATOR.ANGLES",
        [[-60, 0, 60]],
        "MODEL.RPN.BBOX_REG_WEIGHTS",
        (1.0, 1.0, 1.0, 1.0, 1.0),
        "MODEL.ROI_HEADS.NAME",
        "RROIHeads",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
        "ROIAlignRotated",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        (10.0, 10.0, 5.0, 5.0, 1.0),
    ],
}
