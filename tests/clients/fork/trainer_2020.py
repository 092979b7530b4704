"""A trainer as projects of early 2020 write it: evaluators by hand, by position, hooks added later."""

import os

import torch
from common import AugmentedTester, load_weights, make_evaluator, makers_2020, read_config, start

import detectron2.utils.comm as comm
from detectron2.data import MetadataCatalog
from detectron2.engine import hooks
from detectron2.evaluation import verify_results


class Trainer(AugmentedTester):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
        if MetadataCatalog.get(dataset_name).evaluator_type == "cityscapes":
            assert torch.cuda.device_count() >= comm.get_rank()
        return make_evaluator(makers_2020(cfg, dataset_name, folder), dataset_name)


def evaluate(cfg, args):
    model = Trainer.build_model(cfg)
    load_weights(cfg, model, args)
    scores = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, scores)
    if cfg.TEST.AUG.ENABLED:
        scores.update(Trainer.test_with_TTA(cfg, model))
    return scores


def main(args):
    cfg = read_config(args)
    if args.eval_only:
        return evaluate(cfg, args)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    if cfg.TEST.AUG.ENABLED:
        at_the_end = hooks.EvalHook(0, lambda: trainer.test_with_TTA(cfg, trainer.model))
        trainer.register_hooks([at_the_end])
    return trainer.train()


if __name__ == "__main__":
    start(main)
