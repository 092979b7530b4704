"""Exported programs and ONNX files do what the models do, at sizes they were not made with."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2.export import export_onnx, export_program, make_network, to_instances
from detectron2.layers.extension import missing_reason
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers

from .small_detectors import make_cfg

needs_operators = pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "faster_rcnn": ("GeneralizedRCNN", {"MODEL.MASK_ON": False}),
    "mask_rcnn": ("GeneralizedRCNN", {}),
    "cascade_agnostic": (
        "GeneralizedRCNN",
        {
            "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
        },
    ),
    "panoptic_fpn": ("PanopticFPN", {}),
    "retinanet": ("RetinaNet", {}),
}
# Panoptic FPN has all that Faster and Mask R-CNN have.
IN_ONNX = (
    pytest.param("faster_rcnn", marks=pytest.mark.full),
    pytest.param("mask_rcnn", marks=pytest.mark.full),
    "panoptic_fpn",
    "retinanet",
)
SIZES = ((160, 160), (133, 218), (301, 200))


# Some candidates are suppressed, and some of them fall below a threshold.
COUNTS: dict[str, Any] = {
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 60,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 40,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.2,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.012,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": 30,
    "TEST.DETECTIONS_PER_IMAGE": 30,
}


def make_model(name: str, **overrides: Any) -> Any:
    meta_architecture, own = MODELS[name]
    torch.manual_seed(5)
    model = build_model(make_cfg(meta_architecture, {**COUNTS, **own, **overrides})).eval()
    # Fresh heads are all but constant, so that nothing would be suppressed or fall below a threshold.
    for part, parameter in model.named_parameters():
        if parameter.ndim > 1 and any(
            head in part for head in ("cls", "bbox", "logits", "deltas", "predictor")
        ):
            parameter.data.mul_(12)
    return model


def make_image(size: tuple[int, int]) -> Tensor:
    noise = torch.rand(1, 3, size[0] // 16, size[1] // 16, generator=torch.Generator().manual_seed(sum(size)))
    return nn.functional.interpolate(noise, size=size, mode="bilinear")[0] * 255


@torch.no_grad()
def run_model(model: Any, image: Tensor) -> dict[str, Tensor]:
    """What the model's own code detects, in the frame of the network input."""
    extra: dict[str, Tensor] = {}
    if isinstance(model, META_ARCH_REGISTRY.get("RetinaNet")):
        images = model.preprocess_image([{"image": image}])
        features = [model.backbone(images.tensor)[name] for name in model.head_in_features]
        (instances,) = model.forward_inference(images, features, model.head(features))
    elif isinstance(model, META_ARCH_REGISTRY.get("PanopticFPN")):
        (instances,), logits = model.inference([{"image": image}], do_postprocess=False)
        extra["sem_seg"] = logits[0]
    else:
        (instances,) = model.inference([{"image": image}], do_postprocess=False)
    if instances.has("pred_masks"):
        extra["masks"] = instances.pred_masks
    boxes = instances.pred_boxes.tensor
    return {"boxes": boxes, "scores": instances.scores, "classes": instances.pred_classes, **extra}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert len(actual["boxes"]) == len(expected["boxes"])
    assert torch.equal(actual["classes"], expected["classes"])
    for name, tolerance in {"boxes": 1e-2, "scores": 1e-4, "masks": 1e-3, "sem_seg": 1e-2}.items():
        if name in expected:
            torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [*SIZES, (40, 31)])
def test_network_detects_what_the_model_detects(name: str, size: tuple[int, int]) -> None:
    model, image = make_model(name), make_image(size)
    expected = run_model(model, image)
    with torch.no_grad():
        actual = make_network(model)(image)
    assert list(actual) == make_network(model).output_names
    assert_same(actual, expected)


def test_models_of_these_tests_detect_something_but_not_all() -> None:
    for name in MODELS:
        counts = [len(run_model(make_model(name), make_image(size))["boxes"]) for size in SIZES]
        assert min(counts) > 1, (name, counts)


@pytest.mark.slow
@needs_operators
@pytest.mark.parametrize("name", MODELS)
def test_exported_program_works_at_other_sizes(name: str) -> None:
    model = make_model(name)
    program = export_program(model).module()
    for size in SIZES:
        image = make_image(size)
        assert_same(program(image), run_model(model, image))


@pytest.mark.slow
@needs_operators
def test_exported_program_without_detections_returns_empty_tensors() -> None:
    model = make_model("mask_rcnn", **{"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 1.0})
    outputs = export_program(model).module()(make_image(SIZES[0]))
    assert [tuple(x.shape) for x in outputs.values()] == [(0, 4), (0,), (0,), (0, 1, 12, 12)]


def onnx_missing() -> str:
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    return f"the optional packages {', '.join(missing)} are not installed" if missing else ""


def run_onnx(path: Path, image: Tensor) -> dict[str, Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"image": image.numpy()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values)}


# torch's exporter itself uses what torch deprecates.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.slow
@needs_operators
@pytest.mark.skipif(bool(onnx_missing()), reason=onnx_missing() or "-")
@pytest.mark.parametrize("name", IN_ONNX)
def test_onnx_file_agrees_with_the_model_at_three_sizes(name: str, tmp_path: Path) -> None:
    model, path = make_model(name), tmp_path / "model.onnx"
    export_onnx(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    for size in SIZES:
        image = make_image(size)
        assert_same(run_onnx(path, image), run_model(model, image))


def test_result_postprocesses_like_that_of_the_model() -> None:
    model, image = make_model("mask_rcnn"), make_image((133, 218))
    with torch.no_grad():
        instances = to_instances(make_network(model)(image), (133, 218))
        (expected,) = model([{"image": image, "height": 266, "width": 436}])
    result = detector_postprocess(instances, 266, 436)
    assert torch.equal(result.pred_masks, expected["instances"].pred_masks)
    assert torch.equal(result.pred_boxes.tensor, expected["instances"].pred_boxes.tensor)


def test_models_without_an_exportable_form_are_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        make_network(make_model("mask_rcnn").train())
    with pytest.raises(ValueError, match="got Linear"):
        make_network(nn.Linear(1, 1).eval())
    keypoints = make_model("faster_rcnn", **{"MODEL.KEYPOINT_ON": True})
    with pytest.raises(ValueError, match="KEYPOINT_ON"):
        make_network(keypoints)


class OwnPredictor(FastRCNNOutputLayers):
    """A predictor of a project, which may compute something else."""


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_agnostic"])
def test_own_predictors_are_refused(name: str) -> None:
    model = make_model(name)
    model.roi_heads.last_box_predictor.__class__ = OwnPredictor
    with pytest.raises(ValueError, match="FastRCNNOutputLayers to predict boxes; got OwnPredictor"):
        make_network(model)


@needs_operators
def test_example_image_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        export_program(make_model("retinanet"), torch.zeros(3, 64, 64, dtype=torch.uint8))
