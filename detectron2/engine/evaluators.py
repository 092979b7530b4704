"""Which evaluators score a data set, by what its metadata says about it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from detectron2.config.config.node import CfgNode
from detectron2.data.catalog import MetadataCatalog
from detectron2.data.detection_utils.box_kind import has_rotated_boxes
from detectron2.evaluation.cityscapes_evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from detectron2.evaluation.coco_evaluation.evaluator import COCOEvaluator
from detectron2.evaluation.evaluator import DatasetEvaluator, DatasetEvaluators
from detectron2.evaluation.lvis_evaluation import LVISEvaluator
from detectron2.evaluation.panoptic_evaluation.evaluator import COCOPanopticEvaluator
from detectron2.evaluation.pascal_voc_evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.rotated_coco_evaluation import RotatedCOCOEvaluator
from detectron2.evaluation.sem_seg_evaluation import SemSegEvaluator
from detectron2.utils.user_errors import UserNotImplementedError

__all__ = ["build_evaluator", "find_evaluator_type"]

logger = logging.getLogger(__name__)


def _make_sem_seg(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return SemSegEvaluator(name, distributed=True, output_dir=folder)


def _make_instances(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    evaluator = RotatedCOCOEvaluator if has_rotated_boxes(cfg) else COCOEvaluator
    return evaluator(
        name,
        output_dir=folder,
        max_dets_per_image=_max_dets(cfg),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )


def _max_dets(cfg: CfgNode) -> list[int] | None:
    """COCO counts 100 detections per image at most; a model that is asked for more is scored with more."""
    return [1, 10, cfg.TEST.DETECTIONS_PER_IMAGE] if cfg.TEST.DETECTIONS_PER_IMAGE > 100 else None


def _make_panoptic(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return COCOPanopticEvaluator(name, folder)


def _make_pascal_voc(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return PascalVOCDetectionEvaluator(name)


def _make_lvis(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return LVISEvaluator(name, output_dir=folder)


def _make_cityscapes_instance(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return CityscapesInstanceEvaluator(name)


def _make_cityscapes_sem_seg(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return CityscapesSemSegEvaluator(name)


_MAKERS: dict[str, tuple[Callable[[CfgNode, str, str], DatasetEvaluator], ...]] = {
    "coco": (_make_instances,),
    "sem_seg": (_make_sem_seg,),
    "cityscapes_instance": (_make_cityscapes_instance,),
    "cityscapes_sem_seg": (_make_cityscapes_sem_seg,),
    "lvis": (_make_lvis,),
    "pascal_voc": (_make_pascal_voc,),
    # Semantic and instance scores show which half of a panoptic model is the weak one.
    "coco_panoptic_seg": (_make_sem_seg, _make_instances, _make_panoptic),
}


# What the metadata of a data set without evaluator_type has -> the type; the first that is there decides.
_TYPE_BY_METADATA = {
    "panoptic_json": "coco_panoptic_seg",
    "thing_classes": "coco",
    "stuff_classes": "sem_seg",
}


# Models that predict one part of what panoptic data has, and what scores it.
_PARTIAL_MODELS = {
    "GeneralizedRCNN": _make_instances,
    "RetinaNet": _make_instances,
    "SemanticSegmentor": _make_sem_seg,
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """Make the evaluator of a data set from the `evaluator_type` in its metadata.

    Without one, what else is in the metadata decides: panoptic files, thing classes or stuff classes.

    Args:
        cfg: the config of the run.
        dataset_name: a registered data set.
        output_folder: where predictions and results are kept; None is "inference" in `OUTPUT_DIR`.

    Raises:
        NotImplementedError: the metadata names no evaluator that there is.
    """
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    evaluator_type = find_evaluator_type(dataset_name)
    makers = _MAKERS[evaluator_type]
    if evaluator_type == "coco_panoptic_seg" and cfg.MODEL.META_ARCHITECTURE in _PARTIAL_MODELS:
        makers = (_PARTIAL_MODELS[cfg.MODEL.META_ARCHITECTURE],)
        logger.info("%s predicts no panoptic maps: they are not scored", cfg.MODEL.META_ARCHITECTURE)
    evaluators = [make(cfg, dataset_name, folder) for make in makers]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def find_evaluator_type(dataset_name: str) -> str:
    """Return what kind of evaluator a data set needs; log it where its metadata does not say so itself.

    Raises:
        NotImplementedError: the metadata names no evaluator that there is.
    """
    metadata = MetadataCatalog.get(dataset_name)
    named = metadata.get("evaluator_type")
    if named in _MAKERS:
        return str(named)
    remedy = (
        f"Set MetadataCatalog.get({dataset_name!r}).evaluator_type to one of {', '.join(sorted(_MAKERS))}"
    )
    if named is None:
        for key, guess in _TYPE_BY_METADATA.items():
            if metadata.get(key):
                logger.warning(
                    "Data set %r has no evaluator_type in its metadata. Since that has %s, it is evaluated "
                    "as %r. %s.",
                    dataset_name, key, guess, remedy,
                )  # fmt: skip
                return guess
    raise UserNotImplementedError(
        f"No evaluator for the data set {dataset_name!r}: its metadata has evaluator_type={named!r}. "
        f"{remedy}, or override build_evaluator of the trainer."
    )
