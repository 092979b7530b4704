"""What `from detectron2 import _C` gives: facts of the build, and old names of deformable convolution.

The compiled operators themselves lie beside this folder, in a file of the same name; they are registered with
torch, as `torch.ops.detectron2`, and `detectron2.layers` calls them. Nothing of ours uses this module.
"""

from .build_facts import get_compiler_version as get_compiler_version
from .build_facts import get_cuda_version as get_cuda_version
from .build_facts import has_cuda as has_cuda
from .coco_eval import COCOevalAccumulate as COCOevalAccumulate
from .coco_eval import COCOevalEvaluateImages as COCOevalEvaluateImages
from .coco_eval import ImageEvaluation as ImageEvaluation
from .coco_eval import InstanceAnnotation as InstanceAnnotation
from .deform_conv import deform_conv_backward_filter as deform_conv_backward_filter
from .deform_conv import deform_conv_backward_input as deform_conv_backward_input
from .deform_conv import deform_conv_forward as deform_conv_forward
from .deform_conv import modulated_deform_conv_backward as modulated_deform_conv_backward
from .deform_conv import modulated_deform_conv_forward as modulated_deform_conv_forward
