"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

Shapes: N images, R boxes over all images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detectron2.config.config.construction import configurable
from detectron2.data.detection_utils.image_io import convert_image_to_rgb
from detectron2.data.transforms.augmentation import apply_augmentations
from detectron2.data.transforms.augmentation_impl.moving import RandomFlip
from detectron2.data.transforms.augmentation_impl.resizing import ResizeShortestEdge
from detectron2.data.transforms.transform import ResizeTransform
from detectron2.layers.batch_norm import CycleBatchNormList, get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.deform_conv import DeformConv, ModulatedDeformConv
from detectron2.layers.nms import batched_nms, batched_nms_rotated
from detectron2.layers.rotated_boxes import pairwise_iou_rotated
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.tracing import is_tracing
from detectron2.layers.wrappers import (
    Conv2d,
    cat,
    cross_entropy,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)
from detectron2.structures.boxes import Boxes, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.rotated_boxes import RotatedBoxes
from detectron2.utils.compat_names import log_api_usage
from detectron2.utils.events.storage import get_event_storage
from detectron2.utils.logger import log_first_n
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.offer import offer
from detectron2.utils.tracing import assert_fx_safe, is_fx_tracing

from .anchor_generator import location_grid
from .backbone.pyramid import check_strides_double
from .backbone.residual import BottleneckBlock
from .backbone.resnet import ResNet
from .backbone.utils import add_decomposed_rel_pos, get_abs_pos, window_partition, window_unpartition
from .box_regression import dense_box_regression_loss
from .matcher import Matcher
from .meta_arch.dense_detector import permute_to_N_HWA_K
from .mmdet_wrapper import MMDetBackbone, MMDetDetector
from .poolers import ROIPooler
from .proposal_generator import rpn, rrpn
from .proposal_generator.proposal_utils import add_ground_truth_to_proposals
from .roi_heads.box_head import build_box_head
from .roi_heads.detections import fast_rcnn_inference_single_image
from .roi_heads.fast_rcnn import FastRCNNOutputLayers
from .roi_heads.keypoint_head import build_keypoint_head
from .roi_heads.mask_head import build_mask_head
from .sampling import subsample_labels


def _create_grid_offsets(
    size: Sequence[int], stride: int, offset: float, target_device_tensor: Tensor
) -> tuple[Tensor, Tensor]:
    """The x and the y of the locations of a feature map, each (height * width,), row by row."""
    x, y = location_grid(size, stride, offset, target_device_tensor).unbind(dim=1)
    return x, y


def _convert_boxes_to_pooler_format(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Put the index of its image before each box.

    Args:
        boxes: (R, B), image by image.
        sizes: (N,) how many of them each image has.

    Returns:
        (R, 1 + B).
    """
    indices = torch.arange(len(sizes), device=boxes.device).repeat_interleave(sizes.to(boxes.device))
    return torch.cat((indices.to(boxes.dtype)[:, None], boxes), dim=1)


def _create_zeros(
    batch_target: Tensor | None, channels: int, height: int, width: int, like_tensor: Tensor
) -> Tensor:
    """Zeros of shape (length of `batch_target` or 0, channels, height, width), on the device of a tensor."""
    count = 0 if batch_target is None else batch_target.shape[0]
    return like_tensor.new_zeros(count, channels, height, width)


offer("detectron2.modeling", MMDetBackbone, MMDetDetector)
offer("detectron2.modeling.anchor_generator", _create_grid_offsets, move_device_like)
offer("detectron2.modeling.backbone.fpn", get_norm)
offer(
    "detectron2.modeling.backbone.mvit",
    add_decomposed_rel_pos,
    get_abs_pos,
    window_partition,
    window_unpartition,
)
offer("detectron2.modeling.backbone.regnet", ShapeSpec, get_norm)
offer("detectron2.modeling.backbone.resnet", Conv2d, DeformConv, ModulatedDeformConv, get_norm)
offer(
    "detectron2.modeling.backbone.vit",
    CNNBlockBase,
    Conv2d,
    add_decomposed_rel_pos,
    get_abs_pos,
    get_norm,
    window_partition,
    window_unpartition,
    _assert_strides_are_log2_contiguous=check_strides_double,
)
offer("detectron2.modeling.box_regression", cat)
offer("detectron2.modeling.matcher", nonzero_tuple)
offer("detectron2.modeling.meta_arch.build", _log_api_usage=log_api_usage)
offer("detectron2.modeling.meta_arch.dense_detector", convert_image_to_rgb, move_device_like)
offer(
    "detectron2.modeling.meta_arch.fcos",
    batched_nms,
    get_event_storage,
    _dense_box_regression_loss=dense_box_regression_loss,
)
offer("detectron2.modeling.meta_arch.panoptic_fpn", ImageList)
offer("detectron2.modeling.meta_arch.rcnn", convert_image_to_rgb, log_first_n, move_device_like)
offer(
    "detectron2.modeling.meta_arch.retinanet",
    CycleBatchNormList,
    ShapeSpec,
    batched_nms,
    cat,
    get_event_storage,
    get_norm,
    permute_to_N_HWA_K,
    _dense_box_regression_loss=dense_box_regression_loss,
)
offer("detectron2.modeling.meta_arch.semantic_seg", ImageList)
offer(
    "detectron2.modeling.poolers",
    _convert_boxes_to_pooler_format,
    _create_zeros,
    assert_fx_safe,
    cat,
    is_fx_tracing,
    nonzero_tuple,
    shapes_to_tensor,
)
offer("detectron2.modeling.proposal_generator.build", rpn, rrpn)
offer(
    "detectron2.modeling.proposal_generator.proposal_utils",
    batched_nms,
    cat,
    move_device_like,
    _is_tracing=is_tracing,
)
offer(
    "detectron2.modeling.proposal_generator.rpn",
    Conv2d,
    cat,
    get_event_storage,
    _dense_box_regression_loss=dense_box_regression_loss,
)
offer(
    "detectron2.modeling.proposal_generator.rrpn",
    RotatedBoxes,
    batched_nms_rotated,
    cat,
    pairwise_iou_rotated,
    retry_if_cuda_oom,
    _is_tracing=is_tracing,
)
offer(
    "detectron2.modeling.roi_heads.fast_rcnn",
    Boxes,
    batched_nms,
    cat,
    cross_entropy,
    get_event_storage,
    nonzero_tuple,
    _dense_box_regression_loss=dense_box_regression_loss,
)
offer("detectron2.modeling.roi_heads.keypoint_head", cat)
offer("detectron2.modeling.roi_heads.mask_head", cat, move_device_like)
offer(
    "detectron2.modeling.roi_heads.roi_heads",
    BottleneckBlock,
    Boxes,
    FastRCNNOutputLayers,
    ImageList,
    Instances,
    Matcher,
    ROIPooler,
    ResNet,
    ShapeSpec,
    add_ground_truth_to_proposals,
    build_box_head,
    build_keypoint_head,
    build_mask_head,
    configurable,
    get_event_storage,
    nonzero_tuple,
    pairwise_iou,
    subsample_labels,
)
offer(
    "detectron2.modeling.roi_heads.rotated_fast_rcnn",
    ROIPooler,
    RotatedBoxes,
    add_ground_truth_to_proposals,
    batched_nms_rotated,
    get_event_storage,
)
offer("detectron2.modeling.sampling", nonzero_tuple)
offer(
    "detectron2.modeling.test_time_augmentation",
    RandomFlip,
    ResizeShortestEdge,
    ResizeTransform,
    apply_augmentations,
    configurable,
    fast_rcnn_inference_single_image,
)
