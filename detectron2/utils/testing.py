"""Facade: the public path of what lives in `detectron2.testing`."""

from detectron2.testing import assert_instances_allclose as assert_instances_allclose
from detectron2.testing import get_model_no_weights as get_model_no_weights
from detectron2.testing import get_sample_coco_image as get_sample_coco_image
from detectron2.testing import has_dynamic_axes as has_dynamic_axes
from detectron2.testing import random_boxes as random_boxes
from detectron2.testing import register_custom_op_onnx_export as register_custom_op_onnx_export
from detectron2.testing import reload_lazy_config as reload_lazy_config
from detectron2.testing import reload_script_model as reload_script_model
from detectron2.testing import skipIfUnsupportedMinOpsetVersion as skipIfUnsupportedMinOpsetVersion
from detectron2.testing import skipIfUnsupportedMinTorchVersion as skipIfUnsupportedMinTorchVersion
from detectron2.testing import unregister_custom_op_onnx_export as unregister_custom_op_onnx_export

__all__ = [
    "assert_instances_allclose",
    "get_model_no_weights",
    "get_sample_coco_image",
    "has_dynamic_axes",
    "random_boxes",
    "register_custom_op_onnx_export",
    "reload_lazy_config",
    "reload_script_model",
    "skipIfUnsupportedMinOpsetVersion",
    "skipIfUnsupportedMinTorchVersion",
    "unregister_custom_op_onnx_export",
]
