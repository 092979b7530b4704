from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead, build_proposal_generator
from detectron2.modeling.proposal_generator.proposal_utils import (
    add_ground_truth_to_proposals,
    find_top_rpn_proposals,
)
from detectron2.modeling.proposal_generator.rrpn import RRPN, find_top_rrpn_proposals
from detectron2.structures import Boxes, ImageList, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage

SHAPES = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in range(2, 7)}


def features(num_images: int = 2, size: int = 64) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        name: torch.randn(num_images, 8, size // s.stride, size // s.stride) for name, s in SHAPES.items()
    }


def make_rpn(cfg) -> RPN:
    torch.manual_seed(0)
    rpn = build_proposal_generator(cfg, SHAPES)
    assert isinstance(rpn, RPN)
    return rpn


def ground_truth(*counts: int) -> list[Instances]:
    boxes = torch.tensor([[4.0, 4, 30, 28], [20, 30, 60, 62], [1, 40, 12, 50]])
    return [Instances((64, 64), gt_boxes=Boxes(boxes[:n])) for n in counts]


def iou(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return inter / (sum(areas) - inter) if inter else 0.0


def test_top_proposals_equal_a_loop() -> None:
    torch.manual_seed(3)
    size, thresh, pre, post, smallest = (50, 60), 0.5, 12, 9, 3.0
    levels = []
    for count in (30, 10):
        corner = torch.rand(2, count, 2) * 60 - 10
        levels.append(torch.cat((corner, corner + torch.rand(2, count, 2) * 25), dim=2))
    logits = [torch.randn(2, 30), torch.randn(2, 10)]
    results = find_top_rpn_proposals(levels, logits, [size, size], thresh, pre, post, smallest, training=True)
    for image, result in enumerate(results):
        kept: list[tuple[float, list[float], int]] = []
        for level, (boxes, scores) in enumerate(zip(levels, logits)):
            order = scores[image].argsort(descending=True)[:pre].tolist()
            of_level: list[tuple[float, list[float], int]] = []
            for row in order:
                x1, y1, x2, y2 = boxes[image, row].tolist()
                box = [min(max(v, 0), m) for v, m in zip((x1, y1, x2, y2), (60, 50, 60, 50))]
                too_small = box[2] - box[0] <= smallest or box[3] - box[1] <= smallest
                if too_small or any(iou(box, other) > thresh for _, other, _ in of_level):
                    continue
                of_level.append((scores[image, row].item(), box, level))
            kept += of_level
        kept = sorted(kept, reverse=True)[:post]
        assert result.image_size == size
        torch.testing.assert_close(result.objectness_logits, torch.tensor([k[0] for k in kept]))
        torch.testing.assert_close(result.proposal_boxes.tensor, torch.tensor([k[1] for k in kept]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_predictions_stop_training_and_are_dropped_in_testing(bad: float) -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 20, 30, 30]]])
    boxes[0, 0, 2] = bad
    arguments = ([boxes], [torch.tensor([[2.0, 1.0]])], [(40, 40)], 0.7, 10, 10, 0.0)
    with pytest.raises(FloatingPointError, match="SOLVER.BASE_LR"):
        find_top_rpn_proposals(*arguments, training=True)
    (result,) = find_top_rpn_proposals(*arguments, training=False)
    assert result.proposal_boxes.tensor.tolist() == [[20, 20, 30, 30]]


def test_rotated_proposals() -> None:
    boxes = torch.tensor([[[20.0, 20, 10, 4, 30], [20, 20, 10, 4, 31], [20, 20, 10, 4, 120]]])
    (result,) = find_top_rrpn_proposals(
        [boxes], [torch.tensor([[1.0, 3.0, 2.0]])], [(40, 40)], 0.7, 10, 10, 0.0, False
    )
    assert isinstance(result.proposal_boxes, RotatedBoxes)
    assert result.objectness_logits.tolist() == [3, 2]  # 30 and 31 degrees overlap, 120 does not


def test_ground_truth_joins_proposals() -> None:
    gt = ground_truth(2, 0)
    proposals = [
        Instances((64, 64), proposal_boxes=Boxes(torch.rand(n, 4)), objectness_logits=torch.full((n,), 0.5))
        for n in (3, 0)
    ]
    joined = add_ground_truth_to_proposals(gt, proposals)
    assert [len(j) for j in joined] == [5, 0] and [len(p) for p in proposals] == [3, 0]
    assert torch.equal(joined[0].proposal_boxes.tensor[3:], gt[0].gt_boxes.tensor)
    assert joined[0].objectness_logits[3:].sigmoid().tolist() == pytest.approx([1, 1])
    same = add_ground_truth_to_proposals([g.gt_boxes for g in gt], proposals)
    assert torch.equal(same[0].proposal_boxes.tensor, joined[0].proposal_boxes.tensor)
    with pytest.raises(ValueError, match="1 images for proposals of 2"):
        add_ground_truth_to_proposals(gt[:1], proposals)
    proposals[0].colour = torch.zeros(3)
    with pytest.raises(ValueError, match="colour"):
        add_ground_truth_to_proposals(gt, proposals)


@pytest.mark.parametrize(
    ("dims", "names"),
    [([-1], {"conv.weight"}), ([6, -1, 4], {"conv.conv0.weight", "conv.conv1.weight", "conv.conv2.weight"})],
)
def test_head_shapes_and_parameter_names(dims: list[int], names: set[str]) -> None:
    head = StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=dims)
    weights = {n: tuple(p.shape) for n, p in head.named_parameters() if n.startswith("conv") and p.dim() == 4}
    assert set(weights) == names
    logits, deltas = head([torch.zeros(2, 8, 5, 7), torch.zeros(2, 8, 1, 1)])
    assert [x.shape for x in logits] == [(2, 3, 5, 7), (2, 3, 1, 1)]
    assert [x.shape for x in deltas] == [(2, 12, 5, 7), (2, 12, 1, 1)]


def test_a_head_without_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match="CONV_DIMS"):
        StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=[])


def test_losses_by_hand(small_cfg: Callable) -> None:
    rpn = make_rpn(small_cfg("GeneralizedRCNN", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 8))
    anchors = [Boxes(torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 20]])), Boxes(torch.tensor([[5.0, 5, 9, 9]]))]
    logits = [torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0]])]
    deltas = [torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)]
    labels = [torch.tensor([1, -1, 0], dtype=torch.int8)]
    target = torch.tensor([[5.0, 0, 15, 10], [0, 0, 1, 1], [0, 0, 1, 1]])
    with EventStorage() as storage:
        losses = rpn.losses(anchors, logits, labels, deltas, [target])
    expected_cls = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(2.0))) / 8
    assert losses["loss_rpn_cls"].item() == pytest.approx(expected_cls, rel=1e-6)
    assert losses["loss_rpn_loc"].item() == pytest.approx(0.5 / 8)  # moved by half of its width, L1
    assert storage.latest()["rpn/num_pos_anchors"][0] == 1
    assert storage.latest()["rpn/num_neg_anchors"][0] == 1


def test_anchors_are_labelled_and_drawn(small_cfg: Callable) -> None:
    rpn = make_rpn(small_cfg("GeneralizedRCNN", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 40))
    anchors = rpn.anchor_generator([features()[n] for n in SHAPES])
    all_anchors = Boxes.cat(anchors).tensor.tolist()
    labels, boxes = rpn.label_and_sample_anchors(anchors, ground_truth(2, 0))
    gt = ground_truth(2)[0].gt_boxes.tensor.tolist()
    best = [max(iou(g, a) for a in all_anchors) for g in gt]
    for row in (labels[0] >= 0).nonzero().flatten().tolist():
        overlaps = [iou(g, all_anchors[row]) for g in gt]
        if labels[0][row] == 1:
            assert max(overlaps) >= 0.7 or any(o == pytest.approx(b) for o, b in zip(overlaps, best))
            assert boxes[0][row].tolist() in gt
        else:
            assert max(overlaps) < 0.3
    assert (labels[0] >= 0).sum() == 40 and 0 < (labels[0] == 1).sum() <= 20
    assert (labels[1] == 1).sum() == 0 and (labels[1] == 0).sum() == 40  # an image without objects


def test_anchors_beyond_the_boundary_are_ignored(small_cfg: Callable) -> None:
    rpn = make_rpn(
        small_cfg("GeneralizedRCNN", "MODEL.RPN.BOUNDARY_THRESH", 0, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 10000)
    )
    anchors = rpn.anchor_generator([features()[n] for n in SHAPES])
    labels, _ = rpn.label_and_sample_anchors(anchors, ground_truth(2))
    a = Boxes.cat(anchors).tensor
    inside = (a[:, :2] >= 0).all(1) & (a[:, 2:] < 64).all(1)
    assert (labels[0][~inside] == -1).all()
    assert (labels[0][inside] >= 0).any()


@pytest.mark.parametrize("counts", [(2, 1), (0, 0), (3, 0)])
@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_training_step_touches_all_parameters(
    small_cfg: Callable, counts: tuple[int, int], loss_type: str
) -> None:
    rpn = make_rpn(small_cfg("GeneralizedRCNN", "MODEL.RPN.BBOX_REG_LOSS_TYPE", loss_type))
    images = ImageList(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2)
    proposals, losses = rpn(images, features(), ground_truth(*counts))
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rpn.parameters())
    assert all(0 < len(p) <= 20 and not p.objectness_logits.requires_grad for p in proposals)


def test_training_without_ground_truth_says_so(small_cfg: Callable) -> None:
    images = ImageList(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2)
    with pytest.raises(ValueError, match="gt_instances"):
        make_rpn(small_cfg())(images, features())


def test_logits_and_anchors_keep_their_places(small_cfg: Callable) -> None:
    """Raise the logit of one anchor at one place; its box must come out first."""
    rpn = make_rpn(small_cfg()).eval()
    f = features(1)
    with torch.no_grad():
        for p in rpn.rpn_head.parameters():
            p.zero_()
    logits = [torch.zeros(1, 3, 64 // s.stride, 64 // s.stride) for s in SHAPES.values()]
    logits[2][0, 1, 1, 2] = 5.0  # level p4, second shape, row 1, column 2
    rpn.rpn_head.forward = lambda _: (logits, [F.pad(x, (0,) * 4 + (0, 9)) * 0 for x in logits])  # type: ignore[method-assign]
    (result,), losses = rpn(ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)]), f)
    assert losses == {} and result.objectness_logits[0] == 5
    # Stride 16, size 32, ratio 1, centre (2, 1) * 16.
    assert result.proposal_boxes.tensor[0].tolist() == [16, 0, 48, 32]


def test_precomputed_proposals_need_no_generator(small_cfg: Callable) -> None:
    cfg = small_cfg("GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    assert build_proposal_generator(cfg, SHAPES) is None


def test_rrpn_trains_and_proposes(small_cfg: Callable) -> None:
    cfg = small_cfg(
        "GeneralizedRCNN",
        "MODEL.PROPOSAL_GENERATOR.NAME",
        "RRPN",
        "MODEL.ANCHOR_GENERATOR.NAME",
        "RotatedAnchorGenerator",
        "MODEL.ANCHOR_GENERATOR.ANGLES",
        "[[0, 90]]",
        "MODEL.RPN.BBOX_REG_WEIGHTS",
        "(1, 1, 1, 1, 1)",
        "MODEL.RPN.IN_FEATURES",
        "['p5', 'p6']",
        "MODEL.ANCHOR_GENERATOR.SIZES",
        "[[16], [32]]",
    )
    torch.manual_seed(0)
    rrpn = build_proposal_generator(cfg, SHAPES)
    assert isinstance(rrpn, RRPN)
    gt = [Instances((64, 64), gt_boxes=RotatedBoxes(torch.tensor([[30.0, 30, 20, 10, 45]])))] * 2
    proposals, losses = rrpn(ImageList(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2), features(), gt)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in rrpn.parameters())
    assert isinstance(proposals[0].proposal_boxes, RotatedBoxes)
