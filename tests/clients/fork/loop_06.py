"""A loop as projects of 2021 to 2023 write it: the storage's counter is set, writers are the default ones."""

import logging
import os
from collections import OrderedDict

import torch
from torch.nn.parallel import DistributedDataParallel

import detectron2.utils.comm as comm
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from detectron2.engine import default_argument_parser, default_setup, default_writers, launch
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
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
from detectron2.utils.events import EventStorage

logger = logging.getLogger("detectron2")


def get_evaluator(cfg, dataset_name, output_folder=None):
    output_folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    if kind == "cityscapes_instance":
        return CityscapesInstanceEvaluator(dataset_name)
    if kind == "cityscapes_sem_seg":
        return CityscapesSemSegEvaluator(dataset_name)
    if kind == "pascal_voc":
        return PascalVOCDetectionEvaluator(dataset_name)
    if kind == "lvis":
        return LVISEvaluator(dataset_name, cfg, True, output_folder)
    makers = {
        "sem_seg": [lambda: SemSegEvaluator(dataset_name, distributed=True, output_dir=output_folder)],
        "coco": [lambda: COCOEvaluator(dataset_name, output_dir=output_folder)],
        "coco_panoptic_seg": [lambda: COCOPanopticEvaluator(dataset_name, output_folder)],
    }
    wanted = makers[kind]
    if kind == "coco_panoptic_seg":
        wanted = makers["sem_seg"] + makers["coco"] + wanted
    evaluators = [make() for make in wanted]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def do_test(cfg, model):
    scores = OrderedDict()
    for name in cfg.DATASETS.TEST:
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", name)
        scores[name] = inference_on_dataset(
            model, build_detection_test_loader(cfg, name), get_evaluator(cfg, name, folder)
        )
        if comm.is_main_process():
            logger.info("Scores of %s, to be copied:", name)
            print_csv_format(scores[name])
    return scores if len(scores) > 1 else list(scores.values())[0]  # noqa: RUF015  # as such programs say it


def do_train(cfg, model, resume=False):
    model.train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, optimizer=optimizer, scheduler=scheduler)
    first = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume).get("iteration", -1) + 1
    last = cfg.SOLVER.MAX_ITER
    saver = PeriodicCheckpointer(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_iter=last)
    writers = default_writers(cfg.OUTPUT_DIR, last) if comm.is_main_process() else []
    loader = build_detection_train_loader(cfg)
    logger.info("Loop from iteration %d", first)
    with EventStorage(first) as storage:
        for batch, iteration in zip(loader, range(first, last)):
            storage.iter = iteration
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
            done = iteration + 1
            if cfg.TEST.EVAL_PERIOD > 0 and done % cfg.TEST.EVAL_PERIOD == 0 and iteration != last - 1:
                do_test(cfg, model)
                comm.synchronize()
            if iteration - first > 5 and (done % 20 == 0 or iteration == last - 1):
                for writer in writers:
                    writer.write()
            saver.step(iteration)


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
    print("Command Line Args:", args)
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
