"""Imports as published projects write them work, from whichever path they take a name."""

from __future__ import annotations

import warnings

import pytest
import torch

from detectron2.modeling.backbone.fpn import _assert_strides_are_log2_contiguous
from detectron2.modeling.roi_heads.cascade_rcnn import _ScaleGradient
from detectron2.utils.memory import _ignore_torch_cuda_oom
from detectron2.utils.visualizer import _create_text_labels

STATEMENTS = """
import detectron2.data.transforms as T
import detectron2.utils.comm as comm
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.checkpoint import Checkpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode as CN
from detectron2.config import CfgNode, configurable, get_cfg, global_cfg, set_global_cfg
from detectron2.config import LazyCall as L
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.config import downgrade_config, upgrade_config
from detectron2.config.config import CfgNode as CN
from detectron2.config.defaults import _C
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data import DatasetFromList, DatasetMapper, MapDataset, ToIterableDataset
from detectron2.data import build_batch_data_loader, build_detection_test_loader, build_detection_train_loader
from detectron2.data import detection_utils as utils
from detectron2.data import get_detection_dataset_dicts, load_proposals_into_dataset, print_instances_class_histogram
from detectron2.data import transforms as T
from detectron2.data.build import build_detection_train_loader, filter_images_with_only_crowd_annotations
from detectron2.data.build import filter_images_with_few_keypoints, get_detection_dataset_dicts, worker_init_reset_seed
from detectron2.data.build import trivial_batch_collator
from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.common import AspectRatioGroupedDataset, DatasetFromList, MapDataset
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.data.datasets import load_coco_json, load_sem_seg, register_coco_instances
from detectron2.data.datasets import register_coco_panoptic, register_coco_panoptic_separated
from detectron2.data.datasets.builtin import _PREDEFINED_SPLITS_COCO, register_all_coco
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES, _get_builtin_metadata
from detectron2.data.datasets.coco import convert_to_coco_dict, convert_to_coco_json, load_coco_json
from detectron2.data.detection_utils import SizeMismatchError, annotations_to_instances, build_augmentation
from detectron2.data.detection_utils import check_image_size, convert_image_to_rgb, convert_PIL_to_numpy
from detectron2.data.detection_utils import filter_empty_instances, gen_crop_transform_with_instance, read_image
from detectron2.data.detection_utils import transform_instance_annotations, transform_keypoint_annotations
from detectron2.data.samplers import InferenceSampler, RandomSubsetTrainingSampler, RepeatFactorTrainingSampler
from detectron2.data.samplers import TrainingSampler
from detectron2.data.transforms import Augmentation, AugInput, AugmentationList, StandardAugInput
from detectron2.data.transforms import CropTransform, HFlipTransform, NoOpTransform, PadTransform, Transform
from detectron2.data.transforms import ExtentTransform, ResizeTransform, RotationTransform, TransformList, VFlipTransform
from detectron2.data.transforms import FixedSizeCrop, MinIoURandomCrop, RandomApply, RandomCrop, RandomFlip
from detectron2.data.transforms import RandomCrop_CategoryAreaConstraint, RandomExtent, RandomLighting, RandomRotation
from detectron2.data.transforms import Resize, ResizeScale, ResizeShortestEdge, TransformGen, apply_transform_gens
from detectron2.data.transforms import apply_augmentations
from detectron2.data.transforms.augmentation import Augmentation, AugInput
from detectron2.data.transforms.augmentation_impl import RandomBrightness, RandomContrast, RandomSaturation
from detectron2.engine import AMPTrainer, DefaultPredictor, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine import create_ddp_model, default_argument_parser, default_setup, default_writers, hooks, launch
from detectron2.engine import hooks
from detectron2.engine.defaults import DefaultPredictor, DefaultTrainer, create_ddp_model, default_setup
from detectron2.engine.hooks import BestCheckpointer, CallbackHook, EvalHook, IterationTimer, LRScheduler
from detectron2.engine.hooks import PeriodicCheckpointer, PeriodicWriter, PreciseBN
from detectron2.engine.launch import launch
from detectron2.engine.train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator, DatasetEvaluator, DatasetEvaluators
from detectron2.evaluation import SemSegEvaluator, inference_context, inference_on_dataset, print_csv_format, verify_results
from detectron2.evaluation.coco_evaluation import COCOEvaluator, instances_to_coco_json
from detectron2.evaluation.evaluator import DatasetEvaluator, inference_context, inference_on_dataset
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.layers import CNNBlockBase, Conv2d, ConvTranspose2d, DepthwiseSeparableConv2d, Linear, ShapeSpec
from detectron2.layers import DeformConv, ModulatedDeformConv, FrozenBatchNorm2d, NaiveSyncBatchNorm, get_norm
from detectron2.layers import BatchNorm2d, interpolate, cat, cross_entropy, nonzero_tuple, move_device_like
from detectron2.layers import ROIAlign, ROIAlignRotated, paste_masks_in_image, roi_align
from detectron2.layers import batched_nms, batched_nms_rotated, nms, nms_rotated, pairwise_iou_rotated
from detectron2.layers import ciou_loss, diou_loss, shapes_to_tensor, empty_input_loss_func_wrapper
from detectron2.layers.batch_norm import FrozenBatchNorm2d, LayerNorm, get_norm
from detectron2.layers.blocks import CNNBlockBase, DepthwiseSeparableConv2d
from detectron2.layers.deform_conv import DeformConv, ModulatedDeformConv
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.layers.nms import batched_nms, nms_rotated
from detectron2.layers.roi_align import ROIAlign
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d, cat, nonzero_tuple
from detectron2.model_zoo import get_checkpoint_url, get_config, get_config_file
from detectron2.model_zoo import get as get_model
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY, ROI_KEYPOINT_HEAD_REGISTRY
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, RPN_HEAD_REGISTRY
from detectron2.modeling import Backbone, FPN, ResNet, ResNetBlockBase, build_backbone, build_resnet_backbone, make_stage
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, ProposalNetwork, RetinaNet, SemanticSegmentor, FCOS
from detectron2.modeling import GeneralizedRCNNWithTTA, DatasetMapperTTA, build_model, detector_postprocess
from detectron2.modeling import build_anchor_generator, build_proposal_generator, build_roi_heads, build_sem_seg_head
from detectron2.modeling import StandardROIHeads, FastRCNNOutputLayers, ROIHeads, BaseMaskRCNNHead, BaseKeypointRCNNHead
from detectron2.modeling import ViT, SimpleFeaturePyramid, SwinTransformer, MViT, get_vit_lr_decay_rate
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, RotatedAnchorGenerator, build_anchor_generator
from detectron2.modeling.backbone import BACKBONE_REGISTRY, Backbone, ResNet, build_backbone
from detectron2.modeling.backbone.build import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7, build_resnet_fpn_backbone
from detectron2.modeling.backbone.fpn import _assert_strides_are_log2_contiguous
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock, ResNet
from detectron2.modeling.backbone.swin import SwinTransformer
from detectron2.modeling.backbone.utils import PatchEmbed, add_decomposed_rel_pos, get_abs_pos, window_partition
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated, _dense_box_regression_loss
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch.dense_detector import DenseDetector, permute_to_N_HWA_K
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY, SemSegFPNHead, build_sem_seg_head
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels, convert_boxes_to_pooler_format
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.modeling.proposal_generator import RPN, RPN_HEAD_REGISTRY, build_proposal_generator
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals, find_top_rpn_proposals
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead, build_rpn_head
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers, ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import KRCNNConvDeconvUpsampleHead, MaskRCNNConvUpsampleHead, StandardROIHeads
from detectron2.modeling.roi_heads import build_box_head, build_keypoint_head, build_mask_head, build_roi_heads
from detectron2.modeling.roi_heads import select_foreground_proposals
from detectron2.modeling.roi_heads.box_head import ROI_BOX_HEAD_REGISTRY, FastRCNNConvFCHead, build_box_head
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads, _ScaleGradient
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, _log_classification_stats, fast_rcnn_inference
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.modeling.roi_heads.keypoint_head import BaseKeypointRCNNHead, keypoint_rcnn_inference, keypoint_rcnn_loss
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead, mask_rcnn_inference, mask_rcnn_loss
from detectron2.modeling.roi_heads.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads, ROIHeads, StandardROIHeads
from detectron2.modeling.sampling import subsample_labels
from detectron2.modeling.test_time_augmentation import DatasetMapperTTA, GeneralizedRCNNWithTTA
from detectron2.solver import LRMultiplier, WarmupCosineLR, WarmupMultiStepLR, WarmupParamScheduler
from detectron2.solver import build_lr_scheduler, build_optimizer, get_default_optimizer_params
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping, reduce_param_groups
from detectron2.solver.lr_scheduler import LRMultiplier, WarmupMultiStepLR
from detectron2.structures import BitMasks, Boxes, BoxMode, ImageList, Instances, Keypoints, PolygonMasks, ROIMasks
from detectron2.structures import RotatedBoxes, heatmaps_to_keypoints, pairwise_ioa, pairwise_iou
from detectron2.structures import pairwise_point_box_distance, polygons_to_bitmask
from detectron2.structures.boxes import Boxes, BoxMode, matched_pairwise_iou, pairwise_intersection, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks, PolygonMasks, polygon_area, polygons_to_bitmask, rasterize_polygons_within_box
from detectron2.structures.rotated_boxes import RotatedBoxes, pairwise_iou
from detectron2.tracking import build_tracker_head
from detectron2.tracking.bbox_iou_tracker import BBoxIOUTracker
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.colormap import colormap, random_color
from detectron2.utils.comm import all_gather, gather, get_rank, get_world_size, is_main_process, reduce_dict, synchronize
from detectron2.utils.env import TORCH_VERSION, seed_all_rng, setup_environment
from detectron2.utils.events import CommonMetricPrinter, EventStorage, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.events import get_event_storage
from detectron2.utils.file_io import PathHandler, PathManager
from detectron2.utils.logger import create_small_table, log_every_n, log_every_n_seconds, log_first_n, setup_logger
from detectron2.utils.logger import _log_api_usage
from detectron2.utils.memory import _ignore_torch_cuda_oom, retry_if_cuda_oom
from detectron2.utils.registry import Registry, locate
from detectron2.utils.serialize import PicklableWrapper
from detectron2.utils.testing import assert_instances_allclose, get_model_no_weights, random_boxes
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import ColorMode, GenericMask, VisImage, Visualizer, _create_text_labels
""".strip().splitlines()  # noqa: E501


def test_private_names_that_projects_call_do_what_they_did() -> None:
    x = torch.ones(2, requires_grad=True)
    y = _ScaleGradient.apply(x, 0.25)
    y.sum().backward()
    assert torch.equal(y, x) and x.grad is not None and x.grad.tolist() == [0.25, 0.25]
    _assert_strides_are_log2_contiguous([4, 8, 16])
    with pytest.raises(ValueError, match=r"\[4, 16\]"):
        _assert_strides_are_log2_contiguous([4, 16])
    assert _create_text_labels([1, 0], [0.5, 1.0], ["cat", "dog"]) == ["dog 50%", "cat 100%"]
    with _ignore_torch_cuda_oom():
        raise torch.OutOfMemoryError


def test_statements_differ() -> None:
    assert len(set(STATEMENTS)) == len(STATEMENTS) >= 60


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statement_works_without_a_warning(statement: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(statement, {})
