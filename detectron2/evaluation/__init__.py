"""Scoring predictions. Knows outputs, never models."""

from . import compat_names as compat_names
from .cityscapes_evaluation import CityscapesEvaluator as CityscapesEvaluator
from .cityscapes_evaluation import CityscapesInstanceEvaluator as CityscapesInstanceEvaluator
from .cityscapes_evaluation import CityscapesSemSegEvaluator as CityscapesSemSegEvaluator
from .coco_evaluation.evaluator import COCOEvaluator as COCOEvaluator
from .evaluator import DatasetEvaluator as DatasetEvaluator
from .evaluator import DatasetEvaluators as DatasetEvaluators
from .evaluator import inference_context as inference_context
from .evaluator import inference_on_dataset as inference_on_dataset
from .lvis_evaluation import LVISEvaluator as LVISEvaluator
from .panoptic_evaluation.evaluator import COCOPanopticEvaluator as COCOPanopticEvaluator
from .pascal_voc_evaluation import PascalVOCDetectionEvaluator as PascalVOCDetectionEvaluator
from .rotated_coco_evaluation import RotatedCOCOEvaluator as RotatedCOCOEvaluator
from .sem_seg_evaluation import SemSegEvaluator as SemSegEvaluator
from .testing import print_csv_format as print_csv_format
from .testing import verify_results as verify_results
