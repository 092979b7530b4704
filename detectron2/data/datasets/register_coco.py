"""Facade: the path under which the registration of COCO's formats was first published."""

from .coco.reader import register_coco_instances as register_coco_instances
from .coco_panoptic import register_coco_panoptic_separated as register_coco_panoptic_separated

__all__ = ["register_coco_instances", "register_coco_panoptic_separated"]
