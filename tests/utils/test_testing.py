"""The helpers for tests of other projects notice what they are for."""

from __future__ import annotations

import unittest
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from detectron2 import model_zoo, testing
from detectron2.structures import Boxes, Instances


def make(boxes: list[list[float]], scores: list[float], size: Any = (4, 5)) -> Instances:
    classes = torch.arange(len(boxes))
    return Instances(
        size, pred_boxes=Boxes(torch.tensor(boxes)), scores=torch.tensor(scores), classes=classes
    )


@pytest.mark.parametrize("num_boxes", [0, 1, 50])
def test_random_boxes_are_boxes(num_boxes: int) -> None:
    boxes = testing.random_boxes(num_boxes, max_coord=10)
    assert boxes.shape == (num_boxes, 4)
    assert bool((boxes[:, 2:] - boxes[:, :2] >= 1).all())
    assert bool((boxes >= 0).all()) and bool((boxes <= 16).all())


def test_equal_instances_pass_and_each_difference_is_named() -> None:
    first = make([[0.0, 0, 10, 10]], [0.5])
    testing.assert_instances_allclose(first, make([[0.0, 0, 10, 10 + 5e-5]], [0.5]))
    testing.assert_instances_allclose(make([], []), make([], []))
    testing.assert_instances_allclose(
        first, make([[0.0, 0, 10, 10]], [0.5], torch.tensor([4, 5])), size_as_tensor=True
    )
    others = {
        "pred_boxes": make([[0.0, 0, 10, 11]], [0.5]),
        "scores": make([[0.0, 0, 10, 10]], [0.6]),
        "image sizes": make([[0.0, 0, 10, 10]], [0.5], (4, 6)),
        "shapes": make([[0.0, 0, 10, 10]] * 2, [0.5] * 2),
    }
    other = make([[0.0, 0, 10, 10]], [0.5])
    other.classes = torch.tensor([3])
    others["classes"] = other
    other = make([[0.0, 0, 10, 10]], [0.5])
    other.extra = torch.tensor([3])
    others["fields"] = other
    for message, different in others.items():
        with pytest.raises(AssertionError, match=f"here.*{message}"):
            testing.assert_instances_allclose(first, different, msg="here")


def test_a_picture_is_there_without_coco(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    image = testing.get_sample_coco_image()
    assert image.dtype == torch.uint8 and image.shape == (3, 480, 640) and image.float().std() > 10
    array = np.asarray(testing.get_sample_coco_image(tensor=False))
    assert torch.equal(torch.from_numpy(array.transpose(2, 0, 1).copy()), image)


def test_python_configs_survive_a_file() -> None:
    cfg = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
    loaded = testing.reload_lazy_config(cfg)
    assert loaded.model.num_classes == cfg.model.num_classes == 80


def test_models_of_the_zoo_are_built_from_yaml() -> None:
    model = testing.get_model_no_weights("COCO-Detection/rpn_R_50_FPN_1x.yaml")
    assert type(model).__name__ == "ProposalNetwork"


def test_dynamic_axes_are_seen() -> None:
    def value(*names: str) -> SimpleNamespace:
        shape = SimpleNamespace(dim=[SimpleNamespace(dim_param=name) for name in names])
        return SimpleNamespace(type=SimpleNamespace(tensor_type=SimpleNamespace(shape=shape)))

    def graph(*outputs: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(graph=SimpleNamespace(input=[value("", "height")], output=list(outputs)))

    assert testing.has_dynamic_axes(graph(value("n", "")))
    assert not testing.has_dynamic_axes(graph(value("n", ""), value("", "")))


def test_tests_are_skipped_where_versions_are_too_old() -> None:
    class Case(unittest.TestCase):
        opset_version = 11

        @testing.skipIfUnsupportedMinOpsetVersion(16)
        def test_new_opset(self) -> str:
            return "ran"

        @testing.skipIfUnsupportedMinOpsetVersion(16, 17)
        def test_given_opset(self) -> str:
            return "ran"

        @testing.skipIfUnsupportedMinTorchVersion("2.0")
        def test_old_torch(self) -> str:
            return "ran"

        @testing.skipIfUnsupportedMinTorchVersion("99.0")
        def test_new_torch(self) -> str:
            return "ran"

    case = Case("test_old_torch")
    assert case.test_given_opset() == case.test_old_torch() == "ran"
    for skipped in (case.test_new_opset, case.test_new_torch):
        with pytest.raises(unittest.SkipTest, match="needs"):
            skipped()


def test_operators_that_torch_knows_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.onnx, "register_custom_op_symbolic", lambda *a: calls.append(a))
    monkeypatch.setattr(torch.onnx, "unregister_custom_op_symbolic", lambda *a: calls.append(a))
    testing.register_custom_op_onnx_export("aten::x", print, 16, "1.9")
    testing.unregister_custom_op_onnx_export("aten::x", 16, "1.9")
    assert calls == []
    testing.register_custom_op_onnx_export("aten::x", print, 16, "99.0")
    testing.unregister_custom_op_onnx_export("aten::x", 16, "99.0")
    assert calls == [("aten::x", print, 16), ("aten::x", 16)]
