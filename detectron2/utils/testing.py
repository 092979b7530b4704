"""Facade: the public path of what lives in `detectron2.testing`."""

from detectron2.config.config.node import CfgNode as CfgNode
from detectron2.config.instantiate import instantiate as instantiate
from detectron2.config.lazy import LazyConfig as LazyConfig
from detectron2.data.catalog import DatasetCatalog as DatasetCatalog
from detectron2.data.detection_utils.image_io import read_image as read_image
from detectron2.export.compat_names import convert_scripted_instances as convert_scripted_instances
from detectron2.export.compat_names import (
    symbolic_repeat_interleave as _pytorch1111_symbolic_opset9_repeat_interleave,
)
from detectron2.export.compat_names import symbolic_to as _pytorch1111_symbolic_opset9_to
from detectron2.model_zoo import model_zoo as model_zoo
from detectron2.modeling.meta_arch.build import build_model as build_model
from detectron2.structures.boxes import Boxes as Boxes
from detectron2.structures.instances import Instances as Instances
from detectron2.structures.masks import ROIMasks as ROIMasks
from detectron2.testing import assert_instances_allclose as assert_instances_allclose
from detectron2.testing import get_model_no_weights as get_model_no_weights
from detectron2.testing import get_sample_coco_image as get_sample_coco_image
from detectron2.testing import has_dynamic_axes as has_dynamic_axes
from detectron2.testing import random_boxes as random_boxes
from detectron2.testing import register_custom_op_onnx_export as register_custom_op_onnx_export
from detectron2.testing import reload_lazy_config as reload_lazy_config
from detectron2.testing import reload_script_model as reload_script_model
from detectron2.testing import skipIfOnCPUCI as skipIfOnCPUCI
from detectron2.testing import skipIfUnsupportedMinOpsetVersion as skipIfUnsupportedMinOpsetVersion
from detectron2.testing import skipIfUnsupportedMinTorchVersion as skipIfUnsupportedMinTorchVersion
from detectron2.testing import unregister_custom_op_onnx_export as unregister_custom_op_onnx_export
from detectron2.utils.torch_version_utils import min_torch_version as min_torch_version

__all__ = [
    "assert_instances_allclose",
    "get_model_no_weights",
    "get_sample_coco_image",
    "has_dynamic_axes",
    "random_boxes",
    "register_custom_op_onnx_export",
    "reload_lazy_config",
    "reload_script_model",
    "skipIfOnCPUCI",
    "skipIfUnsupportedMinOpsetVersion",
    "skipIfUnsupportedMinTorchVersion",
    "unregister_custom_op_onnx_export",
]
