from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import PanopticFPN, build_model
from detectron2.modeling.meta_arch.build import find_device
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.user_errors import UserValueError

OUTPUTS = {
    "GeneralizedRCNN": {"instances"},
    "PanopticFPN": {"sem_seg", "instances", "panoptic_seg"},
    "ProposalNetwork": {"proposals"},
    "SemanticSegmentor": {"sem_seg"},
}
ALL = list(OUTPUTS)


def make(cfg: Any) -> Any:
    torch.manual_seed(0)
    return build_model(cfg)


def train_step(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("counts", [(2, 1), (0, 0)])
def test_training_reaches_all_parameters(
    small_cfg: Callable, make_input: Callable, name: str, counts: tuple[int, int]
) -> None:
    """Also without an object in the batch: DistributedDataParallel hangs on parameters without gradient."""
    model = make(small_cfg(name))
    batch = [make_input(n) for n in counts]
    if not sum(counts):
        for x in batch:
            x["sem_seg"][:] = 255
    losses = train_step(model, batch)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_panoptic_losses(small_cfg: Callable, make_input: Callable) -> None:
    losses = train_step(make(small_cfg("PanopticFPN")), [make_input(2)])
    expected = {"loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    assert set(losses) == expected


def test_instance_loss_weight(small_cfg: Callable, make_input: Callable) -> None:
    weight = 0.25
    model = make(small_cfg("PanopticFPN", "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", weight))
    plain = make(small_cfg("PanopticFPN"))
    torch.manual_seed(0)
    weighted_losses = train_step(model, [make_input(2)])
    torch.manual_seed(0)
    losses = train_step(plain, [make_input(2)])
    for name, loss in losses.items():
        factor = weight if name in ("loss_cls", "loss_box_reg", "loss_mask") else 1.0
        torch.testing.assert_close(weighted_losses[name], loss * factor)


def test_instance_loss_weight_scales_every_loss_of_the_heads(
    small_cfg: Callable, make_input: Callable
) -> None:
    cfg = small_cfg("PanopticFPN", "MODEL.KEYPOINT_ON", True)
    torch.manual_seed(0)
    plain = PanopticFPN(cfg)
    torch.manual_seed(0)
    weighted = PanopticFPN(cfg, instance_loss_weight=0.5)
    for model in (plain, weighted):
        model.roi_heads.box_predictor = _WithIoULoss(model.roi_heads.box_predictor)
    torch.manual_seed(0)
    expected = train_step(plain, [make_input(2)])
    torch.manual_seed(0)
    losses = train_step(weighted, [make_input(2)])
    of_heads = {"loss_cls", "loss_box_reg", "loss_iou", "loss_mask", "loss_keypoint"}
    assert of_heads < set(losses)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss * (0.5 if name in of_heads else 1.0))


class _WithIoULoss(torch.nn.Module):
    """A predictor with a third loss."""

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, x: Tensor) -> Any:
        return self.predictor(x)

    def losses(self, predictions: Any, proposals: list[Instances]) -> dict[str, Tensor]:
        losses = self.predictor.losses(predictions, proposals)
        return {**losses, "loss_iou": predictions[1].square().mean()}


@pytest.mark.parametrize("keypoints", [False, True])
def test_panoptic_inference_starts_from_given_boxes(small_cfg: Callable, keypoints: bool) -> None:
    model = make(small_cfg("PanopticFPN", "MODEL.KEYPOINT_ON", keypoints)).eval()
    inputs = [{"image": torch.full((3, 64, 96), 99, dtype=torch.uint8), "height": 128, "width": 192}]
    given = Instances(
        (64, 96),
        pred_boxes=Boxes(torch.tensor([[5.0, 8, 40, 60], [30, 10, 90, 50]])),
        pred_classes=torch.tensor([2, 0]),
        scores=torch.tensor([0.9, 0.8]),
    )
    with torch.no_grad():
        (result,) = model.inference(inputs, detected_instances=[given])
        instances, logits = model.inference(inputs, False, [given])
        (sem_seg,) = [x["sem_seg"] for x in model.inference(inputs)]
    assert set(result) == {"sem_seg", "instances", "panoptic_seg"}
    assert torch.equal(result["sem_seg"], sem_seg)
    detections = result["instances"]
    assert torch.equal(detections.pred_boxes.tensor, 2 * given.pred_boxes.tensor)
    assert detections.pred_masks.shape == (2, 128, 192)
    assert detections.has("pred_keypoints") is keypoints
    assert {s["instance_id"] for s in result["panoptic_seg"][1] if s["isthing"]} <= {0, 1}
    assert torch.equal(instances[0].pred_boxes.tensor, given.pred_boxes.tensor)
    assert instances[0].pred_masks.ndim == 4 and logits.shape[0] == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sizes", [[(64, 96)], [(33, 50), (64, 40)], [(1, 1)]])
def test_testing_returns_results_of_the_size_asked_for(
    small_cfg: Callable, name: str, sizes: list[tuple[int, int]]
) -> None:
    model = make(small_cfg(name)).eval()
    inputs = [
        {"image": torch.randint(0, 256, (3, h, w), dtype=torch.uint8), "height": 3 * h, "width": 2 * w}
        for h, w in sizes
    ]
    with torch.no_grad():
        results = model(inputs)
    assert len(results) == len(sizes)
    for result, (h, w) in zip(results, sizes):
        size = (3 * h, 2 * w)
        assert set(result) == OUTPUTS[name]
        if "sem_seg" in result:
            assert result["sem_seg"].shape == (4, *size)
        if "instances" in result:
            assert result["instances"].image_size == size
        if "proposals" in result:
            assert result["proposals"].image_size == size
        if name == "PanopticFPN":
            panoptic, segments = result["panoptic_seg"]
            assert panoptic.shape == size and result["instances"].pred_masks.shape[1:] == size
            assert set(panoptic.unique().tolist()) - {0} <= {s["id"] for s in segments}


def test_without_detections_there_is_a_panoptic_map_of_stuff(
    small_cfg: Callable, make_input: Callable
) -> None:
    overrides = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.1, "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 1)
    model = make(small_cfg("PanopticFPN", *overrides)).eval()
    with torch.no_grad():
        (result,) = model([make_input(0)])
    assert len(result["instances"]) == 0 and result["instances"].pred_masks.shape == (0, 128, 192)
    assert not any(s["isthing"] for s in result["panoptic_seg"][1])


def test_raw_results_stay_in_the_frame_of_the_input(small_cfg: Callable, make_input: Callable) -> None:
    with torch.no_grad():
        instances, logits = (
            make(small_cfg("PanopticFPN")).eval().inference([make_input(1)], do_postprocess=False)
        )
        assert instances[0].image_size == (64, 96) and logits.shape == (1, 4, 64, 96)
        model = make(small_cfg()).eval()
        (raw,) = model.inference([make_input(1)], do_postprocess=False)
        known = Instances(
            (64, 96), pred_boxes=Boxes(raw.pred_boxes.tensor[:2]), pred_classes=raw.pred_classes[:2]
        )
        (given,) = model.inference([make_input(1)], detected_instances=[known])
    assert raw.image_size == (64, 96) and given["instances"].image_size == (128, 192)
    assert len(given["instances"]) == 2


# CPUs are slow at float16: once is enough.
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.bfloat16) for name in ALL), ("PanopticFPN", torch.float16)]
)
def test_mixed_precision(
    small_cfg: Callable, make_input: Callable, name: str, dtype: torch.dtype, device: str
) -> None:
    cfg = small_cfg(name, "MODEL.DEVICE", device, "MODEL.KEYPOINT_ON", name == "GeneralizedRCNN")
    model = make(cfg)
    with torch.autocast(device, dtype=dtype):
        losses = train_step(model, [make_input(2), make_input(0)])
        with torch.no_grad():
            (result,) = model.eval()([make_input(2)])
    assert set(result) == OUTPUTS[name]
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    for key in ("instances", "proposals"):
        if key in result:
            boxes = result[key].get("pred_boxes" if key == "instances" else "proposal_boxes")
            assert boxes.tensor.dtype == torch.float32


@pytest.mark.parametrize("name", ["GeneralizedRCNN", "PanopticFPN"])
@pytest.mark.parametrize("wrong", [3, -1, 91])
def test_class_ids_without_an_output_are_named(
    small_cfg: Callable, make_input: Callable, name: str, wrong: int
) -> None:
    batch = [make_input(2), make_input(1)]
    batch[1]["instances"].gt_classes[:] = wrong
    batch[1]["file_name"] = "somewhere/cat.jpg"
    with pytest.raises(ValueError, match=rf"cat\.jpg has the class id {wrong}.*ROI_HEADS\.NUM_CLASSES is 3"):
        make(small_cfg(name))(batch)


def test_proposal_networks_do_not_care_for_classes(small_cfg: Callable, make_input: Callable) -> None:
    batch = [make_input(1)]
    batch[0]["instances"].gt_classes[:] = 1000
    train_step(make(small_cfg("ProposalNetwork")), batch)


@pytest.mark.parametrize("name", ["SemanticSegmentor", "PanopticFPN"])
@pytest.mark.parametrize("wrong", [4, -1, 254])
def test_semantic_labels_without_an_output_are_named(
    small_cfg: Callable, make_input: Callable, name: str, wrong: int
) -> None:
    batch = [make_input(1)]
    batch[0]["sem_seg"][5, 6] = wrong
    with pytest.raises(ValueError, match=rf"label {wrong}, but MODEL\.SEM_SEG_HEAD\.NUM_CLASSES is 4"):
        make(small_cfg(name))(batch)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("GeneralizedRCNN", "instances"),
        ("ProposalNetwork", "instances"),
        ("PanopticFPN", "instances"),
        ("PanopticFPN", "sem_seg"),
        ("SemanticSegmentor", "sem_seg"),
    ],
)
def test_training_without_ground_truth_says_what_is_missing(
    small_cfg: Callable, make_input: Callable, name: str, key: str
) -> None:
    batch = [make_input(1)]
    del batch[0][key]
    with pytest.raises(ValueError, match=key):
        make(small_cfg(name))(batch)


def test_images_with_other_channels_are_refused(small_cfg: Callable) -> None:
    with pytest.raises(ValueError, match=r"3 channels.*INPUT\.FORMAT"):
        make(small_cfg()).eval()([{"image": torch.zeros(4, 8, 8)}])


def test_precomputed_proposals(small_cfg: Callable, make_input: Callable) -> None:
    model = make(small_cfg("GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"))
    x = make_input(2)
    with pytest.raises(ValueError, match="LOAD_PROPOSALS"):
        model([x])
    x["proposals"] = Instances(
        (64, 96), proposal_boxes=x["instances"].gt_boxes.clone(), objectness_logits=torch.zeros(2)
    )
    assert set(train_step(model, [x])) == {"loss_cls", "loss_box_reg"}
    with torch.no_grad():
        assert len(model.eval()([x])[0]["instances"]) > 0


def test_pictures_of_training(small_cfg: Callable, make_input: Callable) -> None:
    model = make(small_cfg("GeneralizedRCNN", "VIS_PERIOD", 2))
    with EventStorage(1) as storage:
        model([make_input(2)])
        assert not storage._vis_data
        storage.step()
        model([make_input(2)])
        ((name, picture, iteration),) = storage._vis_data
    assert "GT" in name and iteration == 2
    assert picture.shape[0] == 3 and picture.shape[2] == 2 * (picture.shape[1] * 96 // 64)


def test_a_missing_gpu_is_reported_with_the_override_to_use(small_cfg: Callable) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=r"`MODEL\.DEVICE cpu`"):
        build_model(small_cfg("GeneralizedRCNN", "MODEL.DEVICE", "cuda"))


def test_devices_by_name(small_cfg: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    cfg = small_cfg("SemanticSegmentor")
    cfg.MODEL.DEVICE = "auto"
    model = make(cfg)
    assert model.device.type == "cpu" and cfg.MODEL.DEVICE == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto").type == "cuda"
    with pytest.raises(UserValueError, match="MODEL.DEVICE is 'mps'.*finds no Metal device.*cpu"):
        find_device("mps")
    with pytest.raises(UserValueError, match="MODEL.DEVICE is 'gpu', which is no device of PyTorch.*auto"):
        find_device("gpu")


def test_unknown_architecture_lists_near_matches(small_cfg: Callable) -> None:
    with pytest.raises(KeyError, match="PanopticFPN"):
        build_model(small_cfg("PanopticFPM"))


def test_pixel_statistics_stay_out_of_checkpoints(small_cfg: Callable) -> None:
    model = make(small_cfg())
    assert not [k for k in model.state_dict() if "pixel" in k or "anchor_generator" in k]
    with pytest.raises(ValueError, match="PIXEL_STD"):
        make(small_cfg("GeneralizedRCNN", "MODEL.PIXEL_STD", "[1.0]"))


def test_seeded_construction_repeats(small_cfg: Callable) -> None:
    first, second = (make(small_cfg("PanopticFPN")).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def semantic_head() -> SemSegFPNHead:
    shapes = {"p3": ShapeSpec(channels=2, stride=8), "p2": ShapeSpec(channels=2, stride=4)}
    torch.manual_seed(0)
    return SemSegFPNHead(shapes, num_classes=3, conv_dims=32, common_stride=4, norm="GN", ignore_value=255)


def test_semantic_head_layout() -> None:
    head = semantic_head()
    assert head.in_features == ["p2", "p3"]  # finest first
    assert {k.rsplit(".", 1)[0] for k in head.state_dict()} == {
        "p2.0",
        "p2.0.norm",
        "p3.0",
        "p3.0.norm",
        "predictor",
    }
    logits, losses = head.eval()({"p2": torch.zeros(1, 2, 8, 4), "p3": torch.zeros(1, 2, 4, 2)})
    assert logits.shape == (1, 3, 32, 16) and losses == {}


def test_semantic_loss_is_the_mean_over_labelled_pixels() -> None:
    head = semantic_head()
    logits = torch.randn(2, 3, 2, 2)
    targets = torch.randint(0, 3, (2, 8, 8))
    targets[0, :5] = 255
    full = nn.functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    log_probs = full.log_softmax(dim=1)
    values = [
        -log_probs[n, targets[n, y, x], y, x].item()
        for n in range(2)
        for y in range(8)
        for x in range(8)
        if targets[n, y, x] != 255
    ]
    loss = head.losses(logits, targets)["loss_sem_seg"].item()
    assert loss == pytest.approx(sum(values) / len(values), rel=1e-5)
