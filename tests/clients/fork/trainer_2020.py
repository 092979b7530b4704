"""A trainer as projects of early 2020 write it: evaluators by hand, by position, hooks added later."""

import logging
import os
from collections import OrderedDict

import torch

import detectron2.utils.comm as comm
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, hooks, launch
from detectron2.evaluation import (
    CityscapesEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
    verify_results,
)
from detectron2.modeling import GeneralizedRCNNWithTTA


class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
        kind = MetadataCatalog.get(dataset_name).evaluator_type
        head = cfg.MODEL.SEM_SEG_HEAD
        if kind == "cityscapes":
            assert torch.cuda.device_count() >= comm.get_rank()
            return CityscapesEvaluator(dataset_name)
        if kind == "pascal_voc":
            return PascalVOCDetectionEvaluator(dataset_name)
        if kind == "lvis":
            return LVISEvaluator(dataset_name, cfg, True, folder)
        chosen = []
        if kind in ("sem_seg", "coco_panoptic_seg"):
            by_pixel = SemSegEvaluator(
                dataset_name,
                distributed=True,
                num_classes=head.NUM_CLASSES,
                ignore_label=head.IGNORE_VALUE,
                output_dir=folder,
            )
            chosen.append(by_pixel)
        if kind in ("coco", "coco_panoptic_seg"):
            chosen.append(COCOEvaluator(dataset_name, cfg, True, folder))
        if kind == "coco_panoptic_seg":
            chosen.append(COCOPanopticEvaluator(dataset_name, folder))
        if not chosen:
            raise NotImplementedError(f"{dataset_name} is of type {kind}")
        return chosen[0] if len(chosen) == 1 else DatasetEvaluators(chosen)

    @classmethod
    def test_with_TTA(cls, cfg, model):
        logging.getLogger("detectron2.trainer").info("Augmented inference follows")
        augmented = GeneralizedRCNNWithTTA(cfg, model)
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, output_folder=folder) for name in cfg.DATASETS.TEST]
        scores = cls.test(cfg, augmented, evaluators)
        return OrderedDict({f"{task}_TTA": values for task, values in scores.items()})


def prepare(args):
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args):
    cfg = prepare(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        scores = Trainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, scores)
        if cfg.TEST.AUG.ENABLED:
            scores.update(Trainer.test_with_TTA(cfg, model))
        return scores
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    if cfg.TEST.AUG.ENABLED:
        trainer.register_hooks([hooks.EvalHook(0, lambda: trainer.test_with_TTA(cfg, trainer.model))])
    return trainer.train()


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    print("Arguments:", args)
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
