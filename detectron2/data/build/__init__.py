"""Data set dicts and data loaders, under the path that users import."""

from .dataset_dicts import filter_images_with_few_keypoints as filter_images_with_few_keypoints
from .dataset_dicts import (
    filter_images_with_only_crowd_annotations as filter_images_with_only_crowd_annotations,
)
from .dataset_dicts import get_detection_dataset_dicts as get_detection_dataset_dicts
from .dataset_dicts import load_proposals_into_dataset as load_proposals_into_dataset
from .dataset_dicts import print_instances_class_histogram as print_instances_class_histogram
from .loaders import build_batch_data_loader as build_batch_data_loader
from .loaders import build_detection_test_loader as build_detection_test_loader
from .loaders import build_detection_train_loader as build_detection_train_loader
from .loaders import test_loader_from_config as _test_loader_from_config
from .loaders import train_loader_from_config as _train_loader_from_config
from .loaders import trivial_batch_collator as trivial_batch_collator
from .loaders import worker_init_reset_seed as worker_init_reset_seed

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
]
