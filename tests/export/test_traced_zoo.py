"""Narrowed models of the zoo, of kinds that `test_tracing.py` does not build, traced at one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectron2 import model_zoo
from detectron2.config import CfgNode, instantiate
from detectron2.export import TracingAdapter
from detectron2.layers.extension import missing_reason
from detectron2.modeling import build_model
from detectron2.testing import assert_instances_allclose

from .small_detectors import uses_traces

pytestmark = [
    pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-"),
    uses_traces,
]
NARROW = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.PIXEL_STD": [58.0, 58.0, 58.0],
    "MODEL.RPN.POST_NMS_TOPK_TEST": 60,
    "MODEL.ROI_HEADS.NUM_CLASSES": 4,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.1,
    "TEST.DETECTIONS_PER_IMAGE": 20,
}
ROTATED = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "RRPN",
    "MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.ANGLES": [[-60, 0, 60]],
    "MODEL.RPN.BBOX_REG_WEIGHTS": (1.0,) * 5,
    "MODEL.ROI_HEADS.NAME": "RROIHeads",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0, 1.0),
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "c4": ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", {}),
    "deformable": ("Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml", {}),
    "rotated": ("Base-RCNN-FPN.yaml", ROTATED),
    "proposals": ("COCO-Detection/rpn_R_50_FPN_1x.yaml", {}),
    "fcos": ("COCO-Detection/fcos_R_50_FPN_1x.py", {}),
}
WEAK_PARTS = ("rpn_head", "cls_score", "bbox_pred", "cls_subnet", "predictor", "offset")


def make_model(name: str) -> nn.Module:
    config, own = MODELS[name]
    cfg = model_zoo.get_config(config)
    torch.manual_seed(3)
    if isinstance(cfg, CfgNode):
        cfg.merge_from_list([x for item in {**NARROW, **own}.items() for x in item])
        model = build_model(cfg).eval()
    else:
        cfg.model.test_score_thresh = 0.05
        model = instantiate(cfg.model).eval()
    for part, parameter in model.named_parameters():
        if parameter.ndim > 1 and any(weak in part for weak in WEAK_PARTS):
            # Without training, features of a C4 model are large.
            gain = 0.01 if name == "c4" else 1.2
            nn.init.normal_(parameter, std=gain / parameter[0].numel() ** 0.5)
    return model


def find(model: Callable[..., Any], image: Tensor) -> Any:
    results = model([{"image": image, "height": image.shape[1] + 20, "width": image.shape[2]}])[0]
    return results.get("instances", results.get("proposals"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_zoo_traced_once_is_right_at_every_size(name: str) -> None:
    model = make_model(name)
    image = torch.rand(3, 160, 192) * 255
    adapter = TracingAdapter(model, image, find)
    traced = torch.jit.trace(adapter, (image,), check_trace=False)
    for size in ((128, 128), (133, 218), (301, 200)):
        image = torch.rand(3, *size) * 255
        with torch.no_grad():
            expected = find(model, image)
            found = adapter.outputs_schema(traced(image))
        assert len(expected)
        assert_instances_allclose(found, expected, size_as_tensor=True)
