from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.modeling import (
    DatasetMapperTTA,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    PanopticFPNWithTTA,
    build_model,
    find_tta_class,
)
from detectron2.structures import Boxes, Instances

MASKS = ("MODEL.MASK_ON", True)
PLAIN = ("TEST.AUG.MIN_SIZES", (64,), "TEST.AUG.FLIP", False)
MIRRORED = ("TEST.AUG.MIN_SIZES", (64,), "TEST.AUG.FLIP", True)
PANOPTIC = ("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.1)


def make_pair(cfg: Any) -> tuple[Any, Any]:
    """A model, and the same with augmentation."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    return model, find_tta_class(cfg)(cfg, model)


def image_input(size: tuple[int, int] = (64, 96), scale: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    image = torch.as_tensor(rng.integers(0, 256, (3, *size)), dtype=torch.uint8)
    return {"image": image, "height": size[0] * scale, "width": size[1] * scale, "image_id": 7}


# ------------------------------------------------------------------------------------------------ mapper


def test_mapper_makes_every_size_plain_and_mirrored() -> None:
    x = image_input((40, 60), scale=2)
    versions = DatasetMapperTTA(min_sizes=[20, 40, 100], max_size=90, flip=True)(x)
    assert [tuple(v["image"].shape) for v in versions] == [
        size for size in [(3, 20, 30), (3, 40, 60), (3, 60, 90)] for _ in range(2)
    ]
    assert torch.equal(versions[2]["image"], x["image"])
    corners = np.array([[0.0, 0.0], [120.0, 80.0]])  # of the results
    for plain, mirrored in zip(versions[::2], versions[1::2]):
        height, width = plain["image"].shape[1:]
        assert torch.equal(plain["image"].flip(2), mirrored["image"]) and plain["image"].dtype == torch.uint8
        np.testing.assert_allclose(plain["transforms"].apply_coords(corners), [[0, 0], [width, height]])
        np.testing.assert_allclose(mirrored["transforms"].apply_coords(corners), [[width, 0], [0, height]])
        assert plain["image_id"] == mirrored["image_id"] == 7
    assert "transforms" not in x and x["image"].shape == (3, 40, 60)


def test_mapper_from_config() -> None:
    mapper = DatasetMapperTTA(get_cfg())
    assert list(mapper.min_sizes) == list(range(400, 1300, 100)) and mapper.max_size == 4000 and mapper.flip
    assert len(DatasetMapperTTA([16], 100, flip=False)({**image_input((1, 1))})) == 1


# --------------------------------------------------------------------------------- against the plain model


@pytest.mark.parametrize("name", ["GeneralizedRCNN", "PanopticFPN"])
@pytest.mark.parametrize("scale", [1, 2])
def test_one_plain_version_gives_what_the_model_gives(small_cfg: Callable, name: str, scale: int) -> None:
    model, augmented = make_pair(small_cfg(name, *MASKS, *PLAIN, *PANOPTIC))
    x = image_input(scale=scale)
    with torch.no_grad():
        expected, result = model([x])[0], augmented([x])[0]
    for field in ("scores", "pred_classes", "pred_masks"):
        assert torch.equal(result["instances"].get(field), expected["instances"].get(field))
    boxes = [r["instances"].pred_boxes.tensor for r in (result, expected)]
    torch.testing.assert_close(*boxes, atol=1e-3, rtol=1e-5)
    if name == "PanopticFPN":
        torch.testing.assert_close(result["sem_seg"], expected["sem_seg"].softmax(dim=0))
        assert torch.equal(result["panoptic_seg"][0], expected["panoptic_seg"][0])
        assert len(result["panoptic_seg"][1]) == len(expected["panoptic_seg"][1]) > 0
    assert model.roi_heads.mask_on


@pytest.mark.parametrize("name", ["GeneralizedRCNN", "PanopticFPN"])
def test_with_mirrored_versions_the_result_of_a_mirrored_image_is_mirrored(
    small_cfg: Callable, name: str
) -> None:
    _, augmented = make_pair(small_cfg(name, *MASKS, *MIRRORED))
    x = image_input()
    there, back = augmented([x, {**x, "image": x["image"].flip(2)}])
    assert len(there["instances"]) == len(back["instances"]) > 0
    torch.testing.assert_close(there["instances"].scores, back["instances"].scores)
    mirrored = back["instances"].pred_boxes.tensor[:, [2, 1, 0, 3]]
    mirrored[:, [0, 2]] = 96 - mirrored[:, [0, 2]]
    torch.testing.assert_close(there["instances"].pred_boxes.tensor, mirrored, atol=1e-3, rtol=1e-4)
    differing = there["instances"].pred_masks != back["instances"].pred_masks.flip(2)
    assert differing.float().mean() < 1e-3
    if name == "PanopticFPN":
        torch.testing.assert_close(there["sem_seg"], back["sem_seg"].flip(2), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(there["sem_seg"].sum(dim=0), torch.ones(64, 96))


def test_several_sizes_and_no_detections(small_cfg: Callable) -> None:
    overrides = ("TEST.AUG.MIN_SIZES", (32, 64), "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.1)
    _, augmented = make_pair(small_cfg("PanopticFPN", *overrides))
    (result,) = augmented([image_input((33, 50))])
    assert result["instances"].pred_masks.shape == (0, 33, 50)
    assert result["sem_seg"].shape == (4, 33, 50) and not any(s["isthing"] for s in result["panoptic_seg"][1])


def test_mask_switches_come_back_after_an_error(small_cfg: Callable) -> None:
    model, augmented = make_pair(small_cfg("GeneralizedRCNN", *MASKS, *PLAIN))
    with pytest.raises(ValueError, match="channels"):
        augmented([{"image": torch.zeros(4, 8, 8)}])
    assert model.roi_heads.mask_on


# ----------------------------------------------------------------------------- with a model that cannot err


class Oracle(GeneralizedRCNN):
    """Sees all that is bright as one box, of which the brightness is the mask; larger images score higher."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.roi_heads = SimpleNamespace(mask_on=True, keypoint_on=False)  # type: ignore[assignment]
        self.input_format = "RGB"
        self.batch_sizes: list[int] = []

    def inference(
        self, batched_inputs: Any, detected_instances: Any = None, do_postprocess: bool = True
    ) -> list[Instances]:
        assert not do_postprocess
        self.batch_sizes.append(len(batched_inputs))
        if detected_instances is None:
            assert not self.roi_heads.mask_on
            return [self.detect(x["image"]) for x in batched_inputs]
        for x, instances in zip(batched_inputs, detected_instances):
            instances.pred_masks = torch.stack([self.mask(x["image"], b) for b in instances.pred_boxes])
        return detected_instances

    @staticmethod
    def detect(image: torch.Tensor) -> Instances:
        rows, columns = (image[0] > 127).nonzero().unbind(dim=1)
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return Instances(
            tuple(image.shape[1:]),
            pred_boxes=Boxes(box[None]),
            scores=torch.tensor([image.shape[1] / 1000]),
            pred_classes=torch.tensor([1]),
        )

    @staticmethod
    def mask(image: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        x1, y1, x2, y2 = box.round().int().tolist()
        return F.interpolate(image[None, :1, y1:y2, x1:x2].float() / 255, size=(14, 14), mode="area")[0]


@pytest.fixture
def shape_of_an_l() -> dict[str, Any]:
    """No mirroring maps it onto itself."""
    image = torch.zeros(3, 80, 120, dtype=torch.uint8)
    image[:, 10:60, 20:40] = 255
    image[:, 40:60, 20:90] = 255
    return {"image": image, "height": 160, "width": 240}


def oracle_cfg() -> Any:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.TEST.AUG.MIN_SIZES = (60, 80, 120)
    return cfg


def test_boxes_and_masks_come_back_from_every_version(shape_of_an_l: dict[str, Any]) -> None:
    oracle = Oracle()
    (result,) = GeneralizedRCNNWithTTA(oracle_cfg(), oracle, batch_size=4)([shape_of_an_l])
    instances = result["instances"]
    assert oracle.batch_sizes == [4, 2, 4, 2]  # boxes, then masks, in 6 versions
    assert instances.image_size == (160, 240) and instances.pred_classes.tolist() == [1]
    assert instances.scores.tolist() == pytest.approx([0.12])  # of the best version
    torch.testing.assert_close(
        instances.pred_boxes.tensor, torch.tensor([[40.0, 20, 180, 120]]), atol=2.5, rtol=0
    )
    truth = F.interpolate(shape_of_an_l["image"][None, :1].float(), size=(160, 240))[0, 0] > 127
    mask = instances.pred_masks[0]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93


def test_vertical_mirroring_by_an_own_mapper(shape_of_an_l: dict[str, Any]) -> None:
    def mapper(x: dict[str, Any]) -> list[dict[str, Any]]:
        flip = T.VFlipTransform(80)
        resize = T.ResizeTransform(160, 240, 80, 120)
        return [{**x, "image": x["image"].flip(1), "transforms": T.TransformList([resize, flip])}]

    (result,) = GeneralizedRCNNWithTTA(oracle_cfg(), Oracle(), tta_mapper=mapper)([shape_of_an_l])
    truth = F.interpolate(shape_of_an_l["image"][None, :1].float(), size=(160, 240))[0, 0] > 127
    mask = result["instances"].pred_masks[0]
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93


def test_masks_are_not_brought_back_from_turned_versions(shape_of_an_l: dict[str, Any]) -> None:
    def mapper(x: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**x, "transforms": T.TransformList([T.RotationTransform(160, 240, 30)])}]

    with pytest.raises(ValueError, match="turned"):
        GeneralizedRCNNWithTTA(oracle_cfg(), Oracle(), tta_mapper=mapper)([shape_of_an_l])


def test_semantic_maps_are_of_whole_images(small_cfg: Callable) -> None:
    cfg = small_cfg("PanopticFPN")
    model = build_model(cfg).eval()

    def mapper(x: dict[str, Any]) -> list[dict[str, Any]]:
        crop = T.CropTransform(10, 0, 40, 64)
        return [{**x, "image": x["image"][:, :, 10:50], "transforms": T.TransformList([crop])}]

    with pytest.raises(ValueError, match="whole images"):
        PanopticFPNWithTTA(cfg, model, tta_mapper=mapper)([image_input()])


def test_images_may_be_named(tmp_path: Path, shape_of_an_l: dict[str, Any]) -> None:
    file = tmp_path / "l.png"
    Image.fromarray(shape_of_an_l["image"].permute(1, 2, 0).numpy()).save(file)
    cfg = oracle_cfg()
    augmented = GeneralizedRCNNWithTTA(cfg, Oracle())
    (named,) = augmented([{"file_name": str(file)}])
    (given,) = augmented([{"image": shape_of_an_l["image"]}])
    assert named["instances"].image_size == (80, 120)
    assert torch.equal(named["instances"].pred_boxes.tensor, given["instances"].pred_boxes.tensor)


# ------------------------------------------------------------------------------ steps that projects replace


def test_scores_and_classes_are_lists_that_a_subclass_may_extend(shape_of_an_l: dict[str, Any]) -> None:
    class WithOneMore(GeneralizedRCNNWithTTA):
        def _get_augmented_boxes(self, augmented_inputs: Any, tfms: Any) -> Any:
            boxes, scores, classes = super()._get_augmented_boxes(augmented_inputs, tfms)
            assert len(boxes) == len(scores) == len(classes) == 6 and len(tfms) == 6
            assert not any("transforms" in x for x in augmented_inputs)
            scores.append(torch.tensor(0.9))
            classes.append(torch.tensor(2))
            return torch.cat([boxes, torch.tensor([[0.0, 0, 9, 9]])]), scores, classes

    cfg = oracle_cfg()
    cfg.MODEL.MASK_ON = False
    (result,) = WithOneMore(cfg, Oracle())([shape_of_an_l])
    assert result["instances"].pred_classes.tolist() == [2, 1]
    torch.testing.assert_close(result["instances"].scores, torch.tensor([0.9, 0.12]))


def test_plain_numbers_merge_as_tensors_do() -> None:
    augmented = GeneralizedRCNNWithTTA(oracle_cfg(), Oracle())
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 30]])
    merged = augmented._merge_detections(boxes, [0.5, 0.7, 0.6], [1, 1, 0], (20, 20))
    assert merged.pred_classes.tolist() == [1, 0] and merged.image_size == (20, 20)
    torch.testing.assert_close(merged.pred_boxes.tensor, torch.tensor([[1.0, 0, 10, 10], [0, 0, 10, 20]]))
    assert len(augmented._merge_detections(torch.zeros(0, 4), [], [], (20, 20))) == 0


@pytest.mark.parametrize("name", ["GeneralizedRCNN", "PanopticFPN"])
def test_every_step_is_run_and_can_be_replaced(small_cfg: Callable, name: str) -> None:
    cfg = small_cfg(name, *MASKS, *MIRRORED)
    plain = build_model(cfg).eval()
    base: Any = find_tta_class(cfg)
    steps = []

    class Watched(base):
        def _get_augmented_inputs(self, input: Any) -> Any:
            versions, tfms = super()._get_augmented_inputs(input)
            steps.append("inputs")
            return versions[:1], tfms[:1]  # without the mirrored one

        def _turn_off_roi_heads(self, attrs: Any) -> Any:
            steps.append(f"off: {' '.join(attrs)}")
            return super()._turn_off_roi_heads(attrs)

        def _get_augmented_boxes(self, augmented_inputs: Any, tfms: Any) -> Any:
            assert len(augmented_inputs) == len(tfms) == 1 and not self.model.roi_heads.mask_on
            steps.append("boxes")
            return super()._get_augmented_boxes(augmented_inputs, tfms)

        def _batch_inference(self, batched_inputs: Any, detected_instances: Any = None) -> Any:
            steps.append("batches" if detected_instances is None else "batches with boxes")
            return super()._batch_inference(batched_inputs, detected_instances)

        def _merge_detections(self, *args: Any) -> Any:
            steps.append("merge")
            return super()._merge_detections(*args)[:1]

        def _rescale_detected_boxes(self, augmented_inputs: Any, merged_instances: Any, tfms: Any) -> Any:
            assert len(merged_instances) == 1
            steps.append("rescale")
            return super()._rescale_detected_boxes(augmented_inputs, merged_instances, tfms)

        def _reduce_pred_masks(self, outputs: Any, tfms: Any) -> Any:
            steps.append("masks")
            return torch.ones_like(super()._reduce_pred_masks(outputs, tfms))

    (result,) = Watched(cfg, plain)([image_input()])
    assert steps == [
        "inputs", "off: mask_on keypoint_on", "boxes", "batches", "merge", "rescale",
        "batches with boxes", "masks",
    ]  # fmt: skip
    assert len(result["instances"]) == 1
    x1, y1, x2, y2 = result["instances"].pred_boxes.tensor[0].tolist()
    assert result["instances"].pred_masks.sum() >= (x2 - x1 - 2) * (y2 - y1 - 2)  # all of its box


# --------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("key", ["KEYPOINT_ON", "LOAD_PROPOSALS"])
def test_what_cannot_be_merged_is_told_from_the_config(key: str) -> None:
    cfg = get_cfg()
    cfg.MODEL[key] = True
    with pytest.raises(ValueError, match=f"MODEL.{key}"):
        find_tta_class(cfg)
    with pytest.raises(ValueError, match=f"MODEL.{key}"):
        GeneralizedRCNNWithTTA(cfg, Oracle())


def test_only_models_of_the_right_kind_are_augmented(small_cfg: Callable) -> None:
    cfg = get_cfg()
    assert find_tta_class(cfg) is GeneralizedRCNNWithTTA
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(ValueError, match="RetinaNet"):
        find_tta_class(cfg)
    with pytest.raises(TypeError, match="got a Identity"):
        GeneralizedRCNNWithTTA(cfg, torch.nn.Identity())
    with pytest.raises(TypeError, match="PanopticFPNWithTTA"):
        GeneralizedRCNNWithTTA(cfg, build_model(small_cfg("PanopticFPN")))
