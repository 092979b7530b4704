"""Image and annotation helpers for data set mappers, under the path that users import."""

from ..transforms.build import build_augmentation as build_augmentation
from ..transforms.build import gen_crop_transform_with_instance as gen_crop_transform_with_instance
from .annotations import get_bbox as get_bbox
from .annotations import transform_instance_annotations as transform_instance_annotations
from .annotations import transform_keypoint_annotations as transform_keypoint_annotations
from .annotations import transform_proposals as transform_proposals
from .image_io import EXIF_ORIENT as _EXIF_ORIENT
from .image_io import RGB_TO_YUV as _M_RGB2YUV
from .image_io import YUV_TO_RGB as _M_YUV2RGB
from .image_io import SizeMismatchError as SizeMismatchError
from .image_io import check_image_size as check_image_size
from .image_io import convert_image_to_rgb as convert_image_to_rgb
from .image_io import convert_PIL_to_numpy as convert_PIL_to_numpy
from .image_io import read_image as read_image
from .metadata_queries import check_metadata_consistency as check_metadata_consistency
from .metadata_queries import create_keypoint_hflip_indices as create_keypoint_hflip_indices
from .metadata_queries import get_fed_loss_cls_weights as get_fed_loss_cls_weights
from .sem_seg import read_sem_seg as read_sem_seg
from .targets import annotations_to_instances as annotations_to_instances
from .targets import annotations_to_instances_rotated as annotations_to_instances_rotated
from .targets import filter_empty_instances as filter_empty_instances

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "annotations_to_instances_rotated",
    "build_augmentation",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "create_keypoint_hflip_indices",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "get_bbox",
    "get_fed_loss_cls_weights",
    "read_image",
    "read_sem_seg",
    "transform_instance_annotations",
    "transform_keypoint_annotations",
    "transform_proposals",
]
