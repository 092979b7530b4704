"""Image and annotation helpers for data set mappers, under the path that users import."""

from ._annotations import annotations_to_instances as annotations_to_instances
from ._annotations import annotations_to_instances_rotated as annotations_to_instances_rotated
from ._annotations import filter_empty_instances as filter_empty_instances
from ._annotations import get_bbox as get_bbox
from ._annotations import transform_instance_annotations as transform_instance_annotations
from ._annotations import transform_keypoint_annotations as transform_keypoint_annotations
from ._annotations import transform_proposals as transform_proposals
from ._image_io import _EXIF_ORIENT as _EXIF_ORIENT
from ._image_io import _M_RGB2YUV as _M_RGB2YUV
from ._image_io import _M_YUV2RGB as _M_YUV2RGB
from ._image_io import SizeMismatchError as SizeMismatchError
from ._image_io import check_image_size as check_image_size
from ._image_io import convert_image_to_rgb as convert_image_to_rgb
from ._image_io import convert_PIL_to_numpy as convert_PIL_to_numpy
from ._image_io import read_image as read_image
from ._metadata_queries import check_metadata_consistency as check_metadata_consistency
from ._metadata_queries import create_keypoint_hflip_indices as create_keypoint_hflip_indices
from ._metadata_queries import get_fed_loss_cls_weights as get_fed_loss_cls_weights
from ._sem_seg import read_sem_seg as read_sem_seg
from .transforms.build import build_augmentation as build_augmentation
from .transforms.build import gen_crop_transform_with_instance as gen_crop_transform_with_instance

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
