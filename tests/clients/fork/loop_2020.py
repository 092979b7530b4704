"""A loop as projects of early 2020 write it: steps from one, writers made by hand, DDP called by name."""

import logging
import os
from collections import OrderedDict

import torch
from torch.nn.parallel import DistributedDataParallel

import detectron2.utils.comm as comm
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.evaluation import (
    CityscapesEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import CommonMetricPrinter, EventStorage, JSONWriter, TensorboardXWriter

logger = logging.getLogger("detectron2")

LONE = {"cityscapes": CityscapesEvaluator, "pascal_voc": PascalVOCDetectionEvaluator}


def get_evaluator(cfg, dataset_name, output_folder=None):
    folder = output_folder if output_folder is not None else os.path.join(cfg.OUTPUT_DIR, "inference")
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    if kind in LONE:
        return LONE[kind](dataset_name)
    if kind == "lvis":
        return LVISEvaluator(dataset_name, cfg, True, folder)
    is_panoptic = kind == "coco_panoptic_seg"
    evaluators = []
    if is_panoptic or kind == "sem_seg":
        num_classes, ignored = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        evaluators += [
            SemSegEvaluator(
                dataset_name,
                distributed=True,
                num_classes=num_classes,
                ignore_label=ignored,
                output_dir=folder,
            )
        ]
    if is_panoptic or kind == "coco":
        evaluators += [COCOEvaluator(dataset_name, cfg, True, folder)]
    if is_panoptic:
        evaluators += [COCOPanopticEvaluator(dataset_name, folder)]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def do_test(cfg, model):
    by_name = OrderedDict()
    for name in cfg.DATASETS.TEST:
        loader = build_detection_test_loader(cfg, name)
        evaluator = get_evaluator(cfg, name, os.path.join(cfg.OUTPUT_DIR, "inference", name))
        by_name[name] = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process():
            logger.info("Scores of %s, to be copied:", name)
            print_csv_format(by_name[name])
    return by_name if len(by_name) > 1 else next(iter(by_name.values()))


def do_train(cfg, model, resume=False):
    model.train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, optimizer=optimizer, scheduler=scheduler)
    loaded = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    first, last = loaded.get("iteration", -1) + 1, cfg.SOLVER.MAX_ITER
    saver = PeriodicCheckpointer(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_iter=last)
    writers = []
    if comm.is_main_process():
        path = os.path.join(cfg.OUTPUT_DIR, "metrics.json")
        writers = [CommonMetricPrinter(last), JSONWriter(path), TensorboardXWriter(cfg.OUTPUT_DIR)]
    loader = build_detection_train_loader(cfg)
    logger.info("Loop from iteration %d", first)
    with EventStorage(first) as storage:
        for batch, iteration in zip(loader, range(first, last)):
            step = iteration + 1
            storage.step()
            losses = model(batch)
            total = sum(losses.values())
            assert torch.isfinite(total).all(), losses
            reduced = {name: value.item() for name, value in comm.reduce_dict(losses).items()}
            if comm.is_main_process():
                storage.put_scalars(total_loss=sum(reduced.values()), **reduced)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            storage.put_scalar("lr", optimizer.param_groups[0]["lr"], smoothing_hint=False)
            scheduler.step()
            if cfg.TEST.EVAL_PERIOD > 0 and step % cfg.TEST.EVAL_PERIOD == 0 and step != last:
                do_test(cfg, model)
                comm.synchronize()
            if step - first > 5 and (step % 20 == 0 or step == last):
                for writer in writers:
                    writer.write()
            saver.step(step)


def main(args):
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    model = build_model(cfg)
    logger.info("Model:\n%s", model)
    if args.eval_only:
        DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        return do_test(cfg, model)
    if comm.get_world_size() > 1:
        # torch wants no device ids where the weights are on the CPU.
        device_ids = [comm.get_local_rank()] if cfg.MODEL.DEVICE == "cuda" else None
        model = DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)
    do_train(cfg, model, resume=args.resume)
    return do_test(cfg, model)


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
