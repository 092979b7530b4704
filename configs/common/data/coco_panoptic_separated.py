"""COCO 2017 with things as instances and stuff as a semantic map."""

from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator, SemSegEvaluator

from .coco import dataloader

# Images without things still have stuff.
dataloader.train.dataset.update(names="coco_2017_train_panoptic_separated", filter_empty=False)
dataloader.test.dataset.names = "coco_2017_val_panoptic_separated"
dataloader.evaluator = [
    L(evaluator)(dataset_name="${...test.dataset.names}")
    for evaluator in (COCOEvaluator, SemSegEvaluator, COCOPanopticEvaluator)
]
