"""Data sets in COCO's instance format: reading, registering and writing them."""

from .export import convert_to_coco_dict as convert_to_coco_dict
from .export import convert_to_coco_json as convert_to_coco_json
from .label_maps import load_sem_seg as load_sem_seg
from .reader import load_coco_json as load_coco_json
from .reader import main as main
from .reader import register_coco_instances as register_coco_instances

__all__ = [
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "main",
    "register_coco_instances",
]
