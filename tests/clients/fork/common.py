"""What the four programs share: how they start, evaluators by the kind of a data set, what a step changes."""

import logging
import os
from collections import OrderedDict
from functools import partial

import torch
from torch.nn.parallel import DistributedDataParallel

import detectron2.utils.comm as comm
from detectron2 import evaluation
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset, print_csv_format
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.solver import build_lr_scheduler, build_optimizer

logger = logging.getLogger("detectron2")


def start(main):
    args = default_argument_parser().parse_args()
    print("Started with", args)
    machines = {key: getattr(args, key) for key in ("num_machines", "machine_rank", "dist_url")}
    launch(main, args.num_gpus, **machines, args=(args,))


def read_config(args):
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def load_weights(cfg, model, args):
    checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)


def makers_2020(cfg, name, folder):
    """Evaluators as they were called in early 2020: the config and whether to gather by position."""
    head = cfg.MODEL.SEM_SEG_HEAD
    labels = {"num_classes": head.NUM_CLASSES, "ignore_label": head.IGNORE_VALUE}
    return {
        "cityscapes": partial(evaluation.CityscapesEvaluator, name),
        "pascal_voc": partial(evaluation.PascalVOCDetectionEvaluator, name),
        "lvis": partial(evaluation.LVISEvaluator, name, cfg, True, folder),
        "sem_seg": partial(evaluation.SemSegEvaluator, name, distributed=True, **labels, output_dir=folder),
        "coco": partial(evaluation.COCOEvaluator, name, cfg, True, folder),
        "coco_panoptic_seg": partial(evaluation.COCOPanopticEvaluator, name, folder),
    }


def makers_06(name, folder):
    """Evaluators as they are called since 0.6: by keyword, without the config."""
    return {
        "cityscapes_instance": partial(evaluation.CityscapesInstanceEvaluator, name),
        "cityscapes_sem_seg": partial(evaluation.CityscapesSemSegEvaluator, name),
        "pascal_voc": partial(evaluation.PascalVOCDetectionEvaluator, name),
        "lvis": partial(evaluation.LVISEvaluator, name, output_dir=folder),
        "sem_seg": partial(evaluation.SemSegEvaluator, name, distributed=True, output_dir=folder),
        "coco": partial(evaluation.COCOEvaluator, name, output_dir=folder),
        "coco_panoptic_seg": partial(evaluation.COCOPanopticEvaluator, name, folder),
    }


def make_evaluator(makers, name):
    """The evaluator of a data set; a panoptic one is scored as stuff and as things, too."""
    kind = MetadataCatalog.get(name).evaluator_type
    kinds = ["sem_seg", "coco", kind] if kind == "coco_panoptic_seg" else [kind]
    made = [makers[kind]() for kind in kinds]
    return made[0] if len(made) == 1 else DatasetEvaluators(made)


class AugmentedTester(DefaultTrainer):
    @classmethod
    def test_with_TTA(cls, cfg, model):
        logger.info("Augmented inference follows")
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [
            cls.build_evaluator(cfg, name, output_folder=folder)  # type: ignore[call-arg]  # subclasses take it
            for name in cfg.DATASETS.TEST
        ]
        scores = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
        return OrderedDict((f"{task}_TTA", found) for task, found in scores.items())


def score_all(cfg, model, get_evaluator):
    """Scores of the test sets by name, or those of the only one."""
    found = OrderedDict()
    for name in cfg.DATASETS.TEST:
        evaluator = get_evaluator(cfg, name, os.path.join(cfg.OUTPUT_DIR, "inference", name))
        found[name] = inference_on_dataset(model, build_detection_test_loader(cfg, name), evaluator)
        if comm.is_main_process():
            logger.info("Scores of %s, to be copied:", name)
            print_csv_format(found[name])
    return found if len(found) > 1 else next(iter(found.values()))


class Stepper:
    """A model in training with its optimizer and schedule, and the checkpoints of both."""

    def __init__(self, cfg, model, resume):
        self.model = model.train()
        self.optimizer = build_optimizer(cfg, model)
        self.scheduler = build_lr_scheduler(cfg, self.optimizer)
        states = {"optimizer": self.optimizer, "scheduler": self.scheduler}
        checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, **states)
        self.first = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume).get("iteration", -1) + 1
        period, last = cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_ITER
        self.saver = PeriodicCheckpointer(checkpointer, period, max_iter=last)
        logger.info("Loop from iteration %d", self.first)

    def step(self, batch, storage):
        losses = self.model(batch)
        total = sum(losses.values())
        assert torch.isfinite(total).all(), losses
        means = {name: loss.item() for name, loss in comm.reduce_dict(losses).items()}
        if comm.is_main_process():
            storage.put_scalars(total_loss=sum(means.values()), **means)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        rate = self.optimizer.param_groups[0]["lr"]
        storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()


def is_time_to_test(cfg, num_done):
    period = cfg.TEST.EVAL_PERIOD
    return period > 0 and num_done % period == 0 and num_done != cfg.SOLVER.MAX_ITER


def run_loop(args, train, test):
    cfg = read_config(args)
    model = build_model(cfg)
    logger.info("Model:\n%s", model)
    if args.eval_only:
        load_weights(cfg, model, args)
        return test(cfg, model)
    if comm.get_world_size() > 1:
        # torch wants no device ids where the weights are on the CPU.
        devices = [comm.get_local_rank()] if cfg.MODEL.DEVICE == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
    train(cfg, model, args.resume)
    return test(cfg, model)
