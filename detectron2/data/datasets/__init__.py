"""Readers of data set formats, and the built-in data sets."""

from . import builtin as builtin
from . import compat_names as compat_names
from . import lvis_v0_5_categories as lvis_v0_5_categories
from . import lvis_v1_categories as lvis_v1_categories
from . import lvis_v1_category_image_count as lvis_v1_category_image_count
from . import register_coco as register_coco
from .coco.export import convert_to_coco_json as convert_to_coco_json
from .coco.label_maps import load_sem_seg as load_sem_seg
from .coco.reader import load_coco_json as load_coco_json
from .coco.reader import register_coco_instances as register_coco_instances
from .coco_panoptic import load_coco_panoptic_json as load_coco_panoptic_json
from .coco_panoptic import register_coco_panoptic as register_coco_panoptic
from .coco_panoptic import register_coco_panoptic_separated as register_coco_panoptic_separated
from .lvis import get_lvis_instances_meta as get_lvis_instances_meta
from .lvis import load_lvis_json as load_lvis_json
from .lvis import register_lvis_instances as register_lvis_instances
from .panoptic import register_panoptic as register_panoptic
from .pascal_voc import load_voc_instances as load_voc_instances
from .pascal_voc import register_pascal_voc as register_pascal_voc
