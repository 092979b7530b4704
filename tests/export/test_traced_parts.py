"""Parts of models traced alone, as projects do that build programs of their own from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2.layers import ShapeSpec, batched_nms, paste_masks_in_image
from detectron2.layers.extension import missing_reason
from detectron2.layers.tracing import fixed_size, script_in_traces
from detectron2.layers.wrappers import shapes_to_tensor, smaller_size
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, RotatedAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, ImageList, Instances, RotatedBoxes
from detectron2.testing import random_boxes

from .small_detectors import uses_traces

Trace = Callable[..., Any]
needs_operators = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")
pytestmark = uses_traces


class Method(nn.Module):
    """A function as a module, which is what is traced with the parameters of `owner`."""

    def __init__(self, function: Callable[..., Any], owner: nn.Module | None = None) -> None:
        super().__init__()
        self.owner = owner
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def check(
    function: Callable[..., Any], example: tuple, *others: tuple, owner: nn.Module | None = None
) -> None:
    """Trace with the example, and compare with the function itself on all inputs."""
    with torch.no_grad():
        traced = torch.jit.trace(Method(function, owner), example)
        for inputs in (example, *others):
            for found, expected in zip(_flat(traced(*inputs)), _flat(function(*inputs)), strict=True):
                torch.testing.assert_close(found, expected, check_dtype=False)


def _flat(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, (list, tuple)):
        if outputs and isinstance(outputs[0], int):
            return [torch.tensor(outputs)]  # sizes, which a trace gives as a tensor
        return [value for part in outputs for value in _flat(part)]
    return [outputs]


@pytest.mark.parametrize("shapes", [[(3, 10, 10)], [(3, 12, 12)], [(10, 10)], [(3, 16, 10), (3, 13, 11)]])
@pytest.mark.parametrize("divisor", [0, 4])
def test_image_list(shapes: list[tuple[int, ...]], divisor: int) -> None:
    def batch(*images: Tensor) -> Any:
        made = ImageList.from_tensors(list(images), divisor, pad_value=2.0)
        return made.tensor, tuple(made.image_sizes), tuple(made[i] for i in range(len(made)))

    def draw(grow: int) -> tuple[Tensor, ...]:
        return tuple(torch.rand(*s[:-2], s[-2] + grow + i, s[-1] + 2 * grow) for i, s in enumerate(shapes))

    check(batch, draw(0), draw(5), draw(17))


def test_image_list_of_a_list_that_is_traced() -> None:
    def batch(images: list[Tensor]) -> Any:
        made = ImageList.from_tensors(images, 4)
        return made.tensor, tuple(made.image_sizes)

    traced = torch.jit.trace(batch, ([torch.ones(3, 16, 10), torch.ones(3, 13, 11)],))
    tensor, sizes = traced([torch.ones(3, 25, 20), torch.ones(3, 10, 10)])
    assert tensor.shape == (2, 3, 28, 20)
    assert [size.tolist() for size in sizes] == [[25, 20], [10, 10]]


def test_square_images() -> None:
    def batch(image: Tensor) -> Tensor:
        return ImageList.from_tensors([image], padding_constraints={"square_size": 40}).tensor

    check(batch, (torch.rand(3, 10, 12),), (torch.rand(3, 40, 33),))


@pytest.mark.parametrize("kind", [Boxes, RotatedBoxes])
def test_boxes(kind: type[Boxes]) -> None:
    def use(tensor: Tensor, size: Tensor) -> Any:
        boxes = kind(tensor.clone())
        boxes.clip(size)
        inside, large = boxes.inside_box(size), boxes.nonempty(2.0)
        boxes.scale(2.0, 3.0)
        picked = boxes[large]
        both = kind.cat([picked, boxes])
        return inside, large, boxes.area(), boxes.get_centers(), both.tensor, picked.clone().tensor

    def draw(count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        boxes = random_boxes(count) - 20
        turned = torch.cat([boxes, torch.rand(count, 1) * 4 - 2], dim=1)
        return turned if kind is RotatedBoxes else boxes, torch.tensor(size)

    check(use, draw(6, (50, 60)), draw(9, (70, 20)), draw(0, (5, 5)))


@pytest.mark.parametrize(
    "generator",
    [
        DefaultAnchorGenerator(sizes=[[8], [16]], aspect_ratios=[[0.5, 1]], strides=[4, 8]),
        RotatedAnchorGenerator(sizes=[[8], [16]], aspect_ratios=[[1]], angles=[[0, 30]], strides=[4, 8]),
    ],
)
def test_anchors(generator: nn.Module) -> None:
    def anchors(*features: Tensor) -> tuple[Tensor, ...]:
        return tuple(boxes.tensor for boxes in generator(list(features)))

    def draw(height: int, width: int) -> tuple[Tensor, ...]:
        return torch.zeros(1, 1, height, width), torch.zeros(1, 1, height // 2, width // 2)

    check(anchors, draw(6, 8), draw(9, 4), draw(2, 30), owner=generator)


@pytest.mark.parametrize(
    ("transform", "dim"), [(Box2BoxTransform((5, 5, 10, 10)), 4), (Box2BoxTransformRotated((1,) * 5), 5)]
)
def test_box_deltas(transform: Any, dim: int) -> None:
    def draw(count: int) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 5 * dim), torch.randn(count, dim)

    check(transform.apply_deltas, draw(10), draw(5), draw(0))


@needs_operators
@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
def test_roi_pooler(pooler_type: str) -> None:
    pooler = ROIPooler(4, (1 / 16, 1 / 32), 0, pooler_type)

    def pool(fine: Tensor, coarse: Tensor, boxes: Tensor) -> Tensor:
        return pooler([fine, coarse], [Boxes(boxes)])

    def draw(count: int, side: int) -> tuple[Tensor, ...]:
        return (
            torch.rand(1, 3, side, side),
            torch.rand(1, 3, side // 2, side // 2),
            random_boxes(count, side * 16),
        )

    check(pool, draw(10, 20), draw(5, 30), draw(0, 12))


@needs_operators
def test_top_proposals() -> None:
    def choose(boxes: Tensor, logits: Tensor, size: Tensor) -> Any:
        found = find_top_rpn_proposals([boxes], [logits], [size], 0.7, 100, 50, 0, False)[0]
        return found.proposal_boxes.tensor, found.objectness_logits, found.image_size

    def draw(count: int, side: int) -> tuple[Tensor, ...]:
        return torch.stack([random_boxes(count)] * 2), torch.rand(2, count), torch.tensor([side, side])

    check(choose, draw(450, 100), draw(270, 60), draw(30, 800))


def test_predictions_of_the_box_head() -> None:
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=8), box2box_transform=Box2BoxTransform((10, 10, 5, 5)), num_classes=5
    )

    def predict(logits: Tensor, deltas: Tensor, *boxes: Tensor) -> Any:
        proposals = [Instances((10, 10), proposal_boxes=Boxes(b)) for b in boxes]
        predicted = logits, deltas
        boxes, probs = (
            predictor.predict_boxes(predicted, proposals),
            predictor.predict_probs(predicted, proposals),
        )
        return *boxes, *probs

    def draw(*counts: int) -> tuple[Tensor, ...]:
        total = sum(counts)
        return torch.randn(total, 6), torch.randn(total, 20), *(torch.randn(c, 4) for c in counts)

    check(predict, draw(10, 3), draw(5, 7), draw(0, 20), draw(0, 0), owner=predictor)


@needs_operators
def test_detections_in_a_frame_of_any_size() -> None:
    def post(boxes: Tensor, masks: Tensor, keypoints: Tensor, image: Tensor, wanted: Tensor) -> Any:
        found = Instances(
            tuple(image.shape[-2:]), pred_boxes=Boxes(boxes), pred_masks=masks, pred_keypoints=keypoints
        )
        results = detector_postprocess(found, wanted.shape[0], wanted.shape[1])
        return results.pred_boxes.tensor, results.pred_masks, results.pred_keypoints

    def draw(count: int, size: tuple[int, int], wanted: tuple[int, int]) -> tuple[Tensor, ...]:
        masks, keypoints = torch.rand(count, 1, 6, 6), torch.rand(count, 4, 3)
        return random_boxes(count), masks, keypoints, torch.zeros(size), torch.zeros(wanted)

    check(post, draw(5, (80, 90), (100, 95)), draw(8, (60, 70), (30, 140)), draw(0, (9, 9), (8, 7)))


@pytest.mark.parametrize("with_operator", [True, False])
def test_pasted_masks(monkeypatch: pytest.MonkeyPatch, with_operator: bool) -> None:
    if with_operator and missing_reason():
        pytest.skip(missing_reason())
    if not with_operator:
        monkeypatch.setattr("detectron2.layers.mask_ops.find_operator", lambda name, device: None)

    def paste(masks: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        return paste_masks_in_image(masks, boxes, image.shape[:2])

    def draw(count: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return torch.rand(count, 7, 7), random_boxes(count, 20) - 3.3, torch.zeros(size)

    check(paste, draw(3, (30, 25)), draw(5, (12, 40)), draw(0, (6, 7)))


@needs_operators
def test_nms() -> None:
    def suppress(boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        return batched_nms(boxes, scores, classes, 0.5)

    def draw(count: int) -> tuple[Tensor, ...]:
        return random_boxes(count, 30), torch.rand(count), torch.arange(count) % 3

    check(suppress, draw(20), draw(45), draw(0))


def test_sizes() -> None:
    def sizes(x: Tensor) -> Any:
        smaller = smaller_size(x.shape[0], 5)
        assert type(fixed_size(x, 1)) is int
        return shapes_to_tensor(x.shape), shapes_to_tensor([smaller, 7]), x[:smaller]

    check(sizes, (torch.rand(3, 2),), (torch.rand(9, 2),), (torch.rand(0, 2),))


def test_a_loop_is_compiled_in_traces_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    check(_running_sums, (torch.rand(3),), (torch.rand(7),), (torch.rand(0),))
    monkeypatch.setattr(torch.jit, "script", None)
    torch.testing.assert_close(_running_sums(torch.ones(3)), torch.tensor([1.0, 2, 3]))
    with pytest.raises(TypeError, match="not callable"):
        torch.jit.trace(Method(_running_sums), (torch.ones(3),))


@script_in_traces
def _running_sums(x: Tensor) -> Tensor:
    sums = torch.zeros_like(x)
    for i in range(x.shape[0]):
        sums[i] = x[: i + 1].sum()
    return sums
