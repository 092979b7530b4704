from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    Res5ROIHeads,
    ROIHeads,
    RROIHeads,
    StandardROIHeads,
    build_roi_heads,
)
from detectron2.modeling.roi_heads import roi_heads as public_path
from detectron2.structures import Boxes, ImageList, Instances, RotatedBoxes, pairwise_iou
from detectron2.utils.events import EventStorage

SIZE = (64, 96)
SHAPES = {f"p{i}": ShapeSpec(channels=8, stride=2**i) for i in range(2, 6)}
C4_SHAPES = {"res4": ShapeSpec(channels=32, stride=16)}
CASCADE = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
C4 = (
    "MODEL.ROI_HEADS.NAME",
    "Res5ROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES",
    "['res4']",
    "MODEL.RESNETS.RES2_OUT_CHANNELS",
    8,
    "MODEL.RESNETS.WIDTH_PER_GROUP",
    2,
)


def features(shapes: dict[str, ShapeSpec] = SHAPES, num_images: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        name: torch.randn(
            num_images, s.channels, SIZE[0] // s.stride, SIZE[1] // s.stride, requires_grad=True
        )
        for name, s in shapes.items()
    }


def proposals(*counts: int) -> list[Instances]:
    torch.manual_seed(1)
    out = []
    for n in counts:
        corner = torch.rand(n, 2) * torch.tensor([50.0, 30.0])
        boxes = Boxes(torch.cat((corner, corner + 5 + torch.rand(n, 2) * 30), 1))
        out.append(Instances(SIZE, proposal_boxes=boxes, objectness_logits=torch.zeros(n)))
    return out


def run(heads: ROIHeads, f: dict, p: list[Instances], targets: list[Instances] | None = None) -> Any:
    return heads(ImageList(torch.zeros(len(p), 3, *SIZE), [SIZE] * len(p)), f, p, targets)


def make(cfg: Any, shapes: dict[str, ShapeSpec] = SHAPES) -> Any:
    torch.manual_seed(0)
    return build_roi_heads(cfg, shapes)


def test_drawn_proposals_carry_their_ground_truth(small_cfg: Callable, make_input: Callable) -> None:
    heads = make(small_cfg("GeneralizedRCNN", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 12))
    targets = [make_input(2)["instances"], make_input(0)["instances"]]
    with EventStorage() as storage:
        drawn = heads.label_and_sample_proposals(proposals(30, 5), targets)
    assert [len(d) for d in drawn] == [12, 5]
    gt, first = targets[0], drawn[0]
    assert {"gt_boxes", "gt_classes", "gt_masks", "gt_keypoints"} <= set(first.get_fields())
    overlap, match = pairwise_iou(gt.gt_boxes, first.proposal_boxes).max(dim=0)
    foreground = first.gt_classes < 3
    assert torch.equal(foreground, overlap >= 0.5) and 2 <= foreground.sum() <= 3  # a quarter of 12
    assert torch.equal(first.gt_classes[foreground], gt.gt_classes[match[foreground]])
    assert torch.equal(first.gt_boxes.tensor[foreground], gt.gt_boxes.tensor[match[foreground]])
    assert (drawn[1].gt_classes == 3).all() and not drawn[1].has("gt_boxes")
    num = storage.latest()
    assert num["roi_head/num_fg_samples"][0] == foreground.sum().item() / 2
    assert num["roi_head/num_bg_samples"][0] == (17 - foreground.sum().item()) / 2


def test_ground_truth_need_not_be_appended(small_cfg: Callable, make_input: Callable) -> None:
    heads = make(small_cfg("GeneralizedRCNN", "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", False))
    (drawn,) = heads.label_and_sample_proposals(proposals(0), [make_input(2)["instances"]])
    assert len(drawn) == 0


@pytest.mark.parametrize("counts", [(2, 1), (0, 0), (0, 2)])
@pytest.mark.parametrize(
    ("kind", "shapes", "overrides"),
    [
        (StandardROIHeads, SHAPES, ()),
        (StandardROIHeads, SHAPES, ("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True)),
        (CascadeROIHeads, SHAPES, CASCADE),
        (Res5ROIHeads, C4_SHAPES, C4),
    ],
)
def test_training_touches_all_parameters_with_and_without_objects(
    small_cfg: Callable, make_input: Callable, counts: tuple, kind: type, shapes: dict, overrides: tuple
) -> None:
    keypoints = kind is not Res5ROIHeads
    heads = make(
        small_cfg("GeneralizedRCNN", "MODEL.MASK_ON", True, "MODEL.KEYPOINT_ON", keypoints, *overrides),
        shapes,
    )
    assert type(heads) is kind
    with EventStorage():
        _, losses = run(
            heads, features(shapes), proposals(8, 0), [make_input(n)["instances"] for n in counts]
        )
    stages = ("_stage0", "_stage1", "_stage2") if kind is CascadeROIHeads else ("",)
    expected = {f"{name}{stage}" for stage in stages for name in ("loss_cls", "loss_box_reg")} | {"loss_mask"}
    assert set(losses) == expected | ({"loss_keypoint"} if keypoints else set())
    sum(losses.values()).backward()
    without = [n for n, p in heads.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in heads.parameters() if p.grad is not None)
    if sum(counts) == 0:
        assert losses["loss_mask"] == 0


@pytest.mark.parametrize(
    ("shapes", "overrides"), [(SHAPES, ("MODEL.KEYPOINT_ON", True)), (SHAPES, CASCADE), (C4_SHAPES, C4)]
)
@pytest.mark.parametrize("counts", [(6, 3), (4, 0), (0, 0)])
def test_testing_gives_detections_per_image(
    small_cfg: Callable, counts: tuple, shapes: dict, overrides: tuple
) -> None:
    heads = make(small_cfg("GeneralizedRCNN", "MODEL.MASK_ON", True, *overrides), shapes).eval()
    with torch.no_grad():
        detections, losses = run(heads, features(shapes), proposals(*counts))
    assert losses == {} and len(detections) == 2
    for found, count in zip(detections, counts):
        assert len(found) <= 10 and (len(found) > 0) == (count > 0)
        assert found.pred_masks.shape[:2] == (len(found), 1)
        assert (found.scores.diff() <= 0).all()
        if "MODEL.KEYPOINT_ON" in overrides:
            assert found.pred_keypoints.shape == (len(found), 5, 3)


def test_masks_in_given_boxes_equal_those_of_detection(small_cfg: Callable) -> None:
    heads = make(small_cfg("GeneralizedRCNN", "MODEL.MASK_ON", True)).eval()
    f = features()
    with torch.no_grad():
        detections, _ = run(heads, f, proposals(6, 3))
        bare = [Instances(SIZE, pred_boxes=d.pred_boxes, pred_classes=d.pred_classes) for d in detections]
        again = heads.forward_with_given_boxes(f, bare)
    for a, b in zip(detections, again):
        torch.testing.assert_close(a.pred_masks, b.pred_masks)


def test_cascade_scores_are_the_mean_of_its_stages(small_cfg: Callable) -> None:
    heads = make(small_cfg("GeneralizedRCNN", *CASCADE)).eval()
    for stage, predictor in enumerate(heads.box_predictor):
        torch.nn.init.zeros_(predictor.cls_score.weight)
        torch.nn.init.zeros_(predictor.bbox_pred.weight)
        with torch.no_grad():
            predictor.cls_score.bias.copy_(torch.tensor([[4.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 2]][stage]))
    with torch.no_grad():
        (found,), _ = run(heads, features(num_images=1), proposals(1))
    biases = torch.stack([p.cls_score.bias for p in heads.box_predictor])
    expected = biases.softmax(dim=1).mean(dim=0)[:3].sort(descending=True)
    torch.testing.assert_close(found.scores, expected.values)
    assert torch.equal(found.pred_classes, expected.indices)


def test_cascade_scales_the_gradient_of_shared_features_only(small_cfg: Callable) -> None:
    heads = make(small_cfg("GeneralizedRCNN", *CASCADE))
    f = features(num_images=1)
    p = proposals(4)
    scores, _ = heads._run_stage([f[n] for n in heads.box_in_features], p, 0)
    scores.sum().backward()
    scaled, weight_grad = f["p2"].grad.clone(), heads.box_head[0].fc1.weight.grad.clone()
    f["p2"].grad = heads.box_head[0].fc1.weight.grad = None
    pooled = heads.box_pooler([f[n] for n in heads.box_in_features], [x.proposal_boxes for x in p])
    heads.box_predictor[0](heads.box_head[0](pooled))[0].sum().backward()
    torch.testing.assert_close(scaled * 3, f["p2"].grad)
    torch.testing.assert_close(weight_grad, heads.box_head[0].fc1.weight.grad)


def test_rotated_heads_train_and_detect(small_cfg: Callable) -> None:
    overrides = (
        "MODEL.ROI_HEADS.NAME",
        "RROIHeads",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
        "ROIAlignRotated",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        "(10, 10, 5, 5, 1)",
    )
    heads = make(small_cfg("GeneralizedRCNN", *overrides))
    assert isinstance(heads, RROIHeads)
    box = torch.tensor([[40.0, 30, 20, 10, 30]])
    target = Instances(SIZE, gt_boxes=RotatedBoxes(box), gt_classes=torch.tensor([1]))
    candidates = [
        Instances(SIZE, proposal_boxes=RotatedBoxes(box + 1), objectness_logits=torch.zeros(1))
        for _ in range(2)
    ]
    _, losses = run(heads, features(), candidates, [target, target])
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in heads.parameters())
    with torch.no_grad():
        detections, _ = run(heads.eval(), features(), candidates)
    assert isinstance(detections[0].pred_boxes, RotatedBoxes)
    with pytest.raises(ValueError, match="MASK_ON"):
        make(small_cfg("GeneralizedRCNN", "MODEL.MASK_ON", True, *overrides))


@pytest.mark.parametrize(
    ("conv_dims", "fc_dims", "expected"),
    [([], [16, 12], (12, None, None)), ([5], [], (5, 4, 4)), ([5, 6], [9], (9, None, None))],
)
def test_box_head_shapes(conv_dims: list[int], fc_dims: list[int], expected: tuple) -> None:
    head = FastRCNNConvFCHead(
        ShapeSpec(channels=3, height=4, width=4), conv_dims=conv_dims, fc_dims=fc_dims, conv_norm="BN"
    )
    shape = head.output_shape
    assert (shape.channels, shape.height, shape.width) == expected
    out = head(torch.zeros(2, 3, 4, 4))
    assert tuple(out.shape[1:]) == tuple(s for s in expected if s is not None)
    prefixes = {n.split(".")[0] for n in head.state_dict()}
    assert prefixes == {f"conv{i + 1}" for i in range(len(conv_dims))} | {
        f"fc{i + 1}" for i in range(len(fc_dims))
    }


def test_box_head_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="NUM_FC"):
        FastRCNNConvFCHead(ShapeSpec(channels=3, height=4, width=4), conv_dims=[], fc_dims=[])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*C4, "MODEL.KEYPOINT_ON", True), "keypoint"),
        (("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"), "CLS_AGNOSTIC_BBOX_REG"),
        ((*CASCADE, "MODEL.ROI_HEADS.IOU_THRESHOLDS", "[0.6]"), "IOU_THRESHOLDS"),
        (("MODEL.ROI_HEADS.NAME", "RROIHeads"), "ROIAlignRotated"),
    ],
)
def test_configs_that_cannot_work_are_refused(small_cfg: Callable, overrides: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(small_cfg("GeneralizedRCNN", *overrides), C4_SHAPES if overrides[:2] == C4[:2] else SHAPES)


def test_public_path_holds_the_same_objects() -> None:
    assert public_path.StandardROIHeads is StandardROIHeads and public_path.build_roi_heads is build_roi_heads


def test_heads_made_by_methods_of_instances_are_left_to_their_constructor(small_cfg: Callable) -> None:
    """The habit of the first releases."""

    class OwnMaskHead(StandardROIHeads):
        def __init__(self, cfg: Any, input_shape: Any) -> None:
            super().__init__(cfg, input_shape)
            self._init_mask_head(cfg, input_shape)

        def _init_mask_head(self, cfg: Any, input_shape: Any) -> None:  # type: ignore[override]
            self.mask_on = cfg.MODEL.MASK_ON
            self.mask_head = torch.nn.Identity()

    heads = OwnMaskHead(small_cfg("GeneralizedRCNN", "MODEL.MASK_ON", True), SHAPES)
    assert heads.mask_on and isinstance(heads.mask_head, torch.nn.Identity)

    class ExtraNorm(Res5ROIHeads):
        def _build_res5_block(self, cfg: Any) -> Any:  # type: ignore[override]
            stage, channels = super()._build_res5_block(cfg)
            stage.add_module("norm", torch.nn.BatchNorm2d(channels))
            return stage, channels

    for _ in range(2):
        heads = ExtraNorm(small_cfg("GeneralizedRCNN", *C4), C4_SHAPES)
        assert isinstance(heads.res5[-1], torch.nn.BatchNorm2d)
