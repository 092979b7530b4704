"""A trainer as projects of 2021 to 2023 write it: evaluators by keyword, their builder a function."""

import os

from common import AugmentedTester, load_weights, make_evaluator, makers_06, read_config, start

import detectron2.utils.comm as comm
from detectron2.engine import hooks
from detectron2.evaluation import verify_results


def build_evaluator(cfg, dataset_name, output_folder=None):
    if output_folder is None:
        output_folder = os.path.join(cfg.OUTPUT_DIR, "inference")
    return make_evaluator(makers_06(dataset_name, output_folder), dataset_name)


class Trainer(AugmentedTester):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return build_evaluator(cfg, dataset_name, output_folder)


def train(cfg, resume):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if cfg.TEST.AUG.ENABLED:
        trainer.register_hooks([hooks.EvalHook(0, lambda: trainer.test_with_TTA(cfg, trainer.model))])
    return trainer.train()


def main(args):
    cfg = read_config(args)
    if not args.eval_only:
        return train(cfg, args.resume)
    model = Trainer.build_model(cfg)
    load_weights(cfg, model, args)
    scores = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        scores.update(Trainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, scores)
    return scores


def invoke_main():
    start(main)


if __name__ == "__main__":
    invoke_main()
