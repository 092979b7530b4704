"""Names that other people's code takes from modules of this package, and that nothing of ours uses."""

from __future__ import annotations

from detectron2.layers.roi_align import ROIAlign
from detectron2.layers.wrappers import move_device_like, shapes_to_tensor
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.offer import offer
from detectron2.utils.torch_version_utils import min_torch_version

offer("detectron2.structures.image_list", min_torch_version, move_device_like, shapes_to_tensor)
offer("detectron2.structures.masks", ROIAlign, retry_if_cuda_oom)
