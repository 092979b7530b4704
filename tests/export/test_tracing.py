"""Traced once, right at every size: what torch.jit.trace makes of the models through `TracingAdapter`."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2.export import TracingAdapter
from detectron2.layers import ShapeSpec
from detectron2.layers.extension import missing_reason
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Boxes, Instances
from detectron2.testing import assert_instances_allclose, random_boxes

from .small_detectors import make_cfg, uses_traces

pytestmark = [
    pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-"),
    uses_traces,
]

TRACED_SIZE = (160, 192)
SIZES = ((128, 128), (133, 218), (301, 200))
CASCADE = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.275,
}
COUNTS: dict[str, Any] = {
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 300,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 60,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.3,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.0109,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": 60,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "faster_rcnn": ("GeneralizedRCNN", {"MODEL.MASK_ON": False}),
    "mask_rcnn": ("GeneralizedRCNN", {}),
    "mask_rcnn_agnostic": ("GeneralizedRCNN", {"MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True}),
    "cascade_mask_rcnn": ("GeneralizedRCNN", CASCADE),
    "keypoint_rcnn": ("GeneralizedRCNN", {"MODEL.MASK_ON": False, "MODEL.KEYPOINT_ON": True}),
    "retinanet": ("RetinaNet", {}),
}


def make_model(name: str, **overrides: Any) -> Any:
    """A narrow model whose random heads find something."""
    meta_architecture, own = MODELS.get(name, (name, {}))
    torch.manual_seed(5)
    model = build_model(make_cfg(meta_architecture, {**COUNTS, **own, **overrides})).eval()
    for part, parameter in model.named_parameters():
        if parameter.ndim > 1 and any(
            weak in part for weak in ("rpn_head", "cls_", "bbox_", "predictor", "score_lowres")
        ):
            nn.init.normal_(parameter, std=0.6 / parameter[0].numel() ** 0.5)
    return model


def make_image(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed)) * 255


def trace(adapter: TracingAdapter, inputs: tuple[Tensor, ...]) -> Any:
    """Trace, and go through a file as a user does."""
    traced = torch.jit.trace(adapter, inputs)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file)


def in_input_frame(model: Any, image: Tensor) -> Any:
    if not hasattr(model, "roi_heads"):
        return model([{"image": image}])[0]["instances"]
    return model.inference([{"image": image}], do_postprocess=False)[0]


def in_larger_frame(model: Any, image: Tensor) -> Any:
    height, width = image.shape[1:]
    return model([{"image": image, "height": height * 2, "width": width + 50}])[0]["instances"]


@pytest.mark.parametrize("infer", [in_input_frame, in_larger_frame])
@pytest.mark.parametrize("name", MODELS)
def test_a_detector_traced_once_is_right_at_every_size(name: str, infer: Callable[..., Any]) -> None:
    model = make_model(name)
    adapter = TracingAdapter(model, make_image(TRACED_SIZE), infer)
    traced = trace(adapter, (make_image(TRACED_SIZE),))
    counts = set()
    for seed, size in enumerate(SIZES):
        image = make_image(size, seed)
        with torch.no_grad():
            expected = infer(model, image)
        found = adapter.outputs_schema(traced(image))
        assert_instances_allclose(found, expected, rtol=1e-5, size_as_tensor=True)
        assert tuple(found.image_size.tolist()) == tuple(expected.image_size)
        counts.add(len(expected))
    assert len(counts) > 1 and min(counts) > 0, f"the images have {counts} detections, which proves little"


@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn", "cascade_mask_rcnn", "retinanet"])
def test_a_traced_detector_finds_nothing_where_there_is_nothing(name: str) -> None:
    threshold = (
        "MODEL.RETINANET.SCORE_THRESH_TEST" if name == "retinanet" else "MODEL.ROI_HEADS.SCORE_THRESH_TEST"
    )
    model = make_model(name)
    adapter = TracingAdapter(model, make_image(TRACED_SIZE), in_larger_frame)
    traced = trace(adapter, (make_image(TRACED_SIZE),))
    # No score is above 1: this one finds nothing, neither while it is traced nor later.
    strict = make_model(name, **{threshold: 1.0})
    with torch.no_grad():
        assert len(in_larger_frame(strict, make_image(SIZES[1]))) == 0
    empty = TracingAdapter(strict, make_image(TRACED_SIZE), in_larger_frame)
    traced_on_nothing = trace(empty, (make_image(TRACED_SIZE),))
    found = empty.outputs_schema(traced_on_nothing(make_image(SIZES[1])))
    assert len(found) == 0 and found.image_size.tolist() == [SIZES[1][0] * 2, SIZES[1][1] + 50]
    assert len(adapter.outputs_schema(traced(make_image(SIZES[1])))) > 0


def test_a_program_traced_on_something_meets_an_image_without_detections() -> None:
    model = make_model("mask_rcnn")
    adapter = TracingAdapter(model, make_image(TRACED_SIZE), in_larger_frame)
    traced = trace(adapter, (make_image(TRACED_SIZE),))
    # Every pixel is NaN, which no score is above.
    image = torch.full((3, 140, 150), float("nan"))
    with torch.no_grad():
        expected = in_larger_frame(model, image)
    assert len(expected) == 0
    assert_instances_allclose(adapter.outputs_schema(traced(image)), expected, size_as_tensor=True)


def test_two_images_of_different_sizes() -> None:
    def infer(model: Any, first: Tensor, second: Tensor) -> Any:
        return model.inference([{"image": first}, {"image": second}], do_postprocess=False)

    model = make_model("mask_rcnn")
    example = (make_image(TRACED_SIZE), make_image((128, 160)))
    adapter = TracingAdapter(model, example, infer)
    traced = trace(adapter, example)
    for sizes in (SIZES[:2], SIZES[1:]):
        images = [make_image(size, seed) for seed, size in enumerate(sizes)]
        with torch.no_grad():
            expected = infer(model, *images)
        for found, wanted in zip(adapter.outputs_schema(traced(*images)), expected):
            assert_instances_allclose(found, wanted, size_as_tensor=True)


def test_panoptic_fpn_before_the_merge() -> None:
    def infer(model: Any, image: Tensor) -> Any:
        instances, logits = model.inference([{"image": image}], do_postprocess=False)
        return instances[0], logits

    model = make_model("PanopticFPN")
    adapter = TracingAdapter(model, make_image(TRACED_SIZE), infer)
    traced = trace(adapter, (make_image(TRACED_SIZE),))
    for size in SIZES:
        image = make_image(size)
        with torch.no_grad():
            expected, logits = infer(model, image)
        found, traced_logits = adapter.outputs_schema(traced(image))
        assert_instances_allclose(found, expected, size_as_tensor=True)
        torch.testing.assert_close(traced_logits, logits)


def test_a_merged_panoptic_map_is_refused() -> None:
    adapter = TracingAdapter(
        make_model("PanopticFPN"), make_image(TRACED_SIZE), lambda model, image: model([{"image": image}])
    )
    with pytest.raises(ValueError, match="Outputs for tracing must only contain tensors"):
        adapter(make_image(TRACED_SIZE))


def test_the_semantic_head_at_every_size() -> None:
    def infer(model: Any, image: Tensor) -> Tensor:
        inputs = {"image": image, "height": image.shape[1] + 3, "width": image.shape[2]}
        return model([inputs])[0]["sem_seg"]

    model = make_model("SemanticSegmentor")
    traced = trace(TracingAdapter(model, make_image(TRACED_SIZE), infer), (make_image(TRACED_SIZE),))
    for size in SIZES:
        with torch.no_grad():
            torch.testing.assert_close(traced(make_image(size))[0], infer(model, make_image(size)))


def test_tracing_a_detector_warns_of_nothing() -> None:
    adapter = TracingAdapter(make_model("mask_rcnn"), make_image(TRACED_SIZE), in_larger_frame)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.jit.trace(adapter, (make_image(TRACED_SIZE),), check_trace=False)
    unwanted = [str(w.message) for w in caught if not str(w.message).startswith("`torch.jit.trace")]
    assert unwanted == []


@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn", "cascade_mask_rcnn", "retinanet"])
def test_a_traced_detector_may_be_moved_to_another_device(name: str) -> None:
    """Where a device is written into the program, what is made there moves on to that of an input."""
    adapter = TracingAdapter(make_model(name), make_image(TRACED_SIZE), in_larger_frame)
    traced = torch.jit.trace(adapter, (make_image(TRACED_SIZE),), check_trace=False)
    lines = str(traced.inlined_graph).splitlines()
    devices = [line.split(" : ")[0].strip() for line in lines if ": Device = prim::Constant" in line]
    users = [line for line in lines if any(re.search(f"[ (,]{re.escape(d)}[,)]", line) for d in devices)]
    assert users and all("detectron2/layers/tracing.py" in line for line in users), users


def test_keypoint_head_with_other_numbers_of_boxes() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = KRCNNConvDeconvUpsampleHead(
                ShapeSpec(channels=4, height=8, width=8), num_keypoints=5, conv_dims=(4,)
            )

        def forward(self, x: Tensor, *boxes: Tensor) -> tuple[Tensor, ...]:
            instances = [Instances((100, 100), pred_boxes=Boxes(b)) for b in boxes]
            return tuple(found.pred_keypoints for found in self.head(x, instances))

    def draw(*counts: int) -> tuple[Tensor, ...]:
        return torch.randn(sum(counts), 4, 8, 8), *(random_boxes(count) for count in counts)

    torch.manual_seed(0)
    head = Head().eval()
    with torch.no_grad():
        traced = torch.jit.trace(head, draw(7, 5))
        for counts in ((3, 11), (0, 4), (0, 0)):
            inputs = draw(*counts)
            for found, expected in zip(traced(*inputs), head(*inputs)):
                torch.testing.assert_close(found, expected)


class PointHead(nn.Module):
    """A mask head in the way of PointRend: coarse masks, refined at the points that are least certain."""

    def __init__(self, num_classes: int = 3, side: int = 7, num_points: int = 12) -> None:
        super().__init__()
        self.side, self.num_points = side, num_points
        self.pooler = ROIPooler((side, side), (1 / 4, 1 / 8), 2, "ROIAlignV2")
        self.coarse = nn.Conv2d(8, num_classes, 1)
        self.point = nn.Conv1d(8 + num_classes, num_classes, 1)

    def forward(self, features: list[Tensor], instances: list[Instances]) -> list[Instances]:
        boxes = [x.pred_boxes for x in instances]
        logits = self.coarse(self.pooler(features, boxes))
        for _ in range(2):
            logits = nn.functional.interpolate(
                logits, scale_factor=2, mode="bilinear", align_corners=False
            )  # (R, K, S, S)
            uncertainty = -logits.amax(dim=1).abs().flatten(1)
            index = uncertainty.topk(self.num_points, dim=1).indices  # (R, P)
            side = logits.shape[-1]
            points = torch.stack([index % side, index // side], dim=2) / side + 0.5 / side  # (R, P, 2)
            coarse = sample(logits, points)
            fine = self._sample_in_boxes(features[0], boxes, points)
            refined = self.point(torch.cat([fine, coarse], dim=1))  # (R, K, P)
            spread = index[:, None].expand(-1, refined.shape[1], -1)
            logits = logits.flatten(2).scatter(2, spread, refined).view_as(logits)
        mask_rcnn_inference(logits, instances)
        return instances

    def _sample_in_boxes(self, feature: Tensor, boxes: list[Boxes], points: Tensor) -> Tensor:
        per_image = []
        for i, (of_image, places) in enumerate(zip(boxes, points.split([b.__len__() for b in boxes]))):
            start, end = of_image.tensor[:, None, :2], of_image.tensor[:, None, 2:]
            height, width = feature.shape[-2] * 4, feature.shape[-1] * 4
            x, y = (start + places * (end - start)).unbind(dim=2)
            normalised = torch.stack([x / width, y / height], dim=2).flatten(0, 1)[None]  # (1, R*P, 2)
            values = sample(feature[i][None], normalised)[0]  # (C, R*P)
            per_image.append(values.unflatten(1, (-1, self.num_points)).transpose(0, 1))
        return torch.cat(per_image)


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """(N, C, H, W) maps and (N, P, 2) points in [0, 1] -> (N, C, P)."""
    return nn.functional.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False).squeeze(3)


def test_a_mask_head_of_points() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 2, stride=2)
            self.head = PointHead()

        def forward(self, image: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
            fine = self.stem(image[None])
            found = Instances(image.shape[1:], pred_boxes=Boxes(boxes), pred_classes=classes)
            found.pred_boxes.clip(image.shape[1:])
            masks = self.head([fine, self.down(fine)], [found])[0].pred_masks
            return torch.cat([found.pred_boxes.tensor, masks.flatten(1)], dim=1)

    def draw(count: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return make_image(size) / 255, random_boxes(count, max_coord=150), torch.arange(count) % 3

    torch.manual_seed(0)
    model = Model().eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, draw(6, (64, 96)))
        for count, size in ((9, (96, 64)), (2, (128, 160)), (0, (64, 64))):
            inputs = draw(count, size)
            torch.testing.assert_close(traced(*inputs), model(*inputs))
