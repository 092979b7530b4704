"""A loop as projects of 2021 to 2023 write it: the storage's counter is set, writers are the default ones."""

import os
from functools import partial

from common import Stepper, is_time_to_test, make_evaluator, makers_06, run_loop, score_all, start

import detectron2.utils.comm as comm
from detectron2.data import build_detection_train_loader
from detectron2.engine import default_writers
from detectron2.evaluation import LVISEvaluator
from detectron2.utils.events import EventStorage


def get_evaluator(cfg, dataset_name, output_folder=None):
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    makers = makers_06(dataset_name, folder)
    makers["lvis"] = partial(LVISEvaluator, dataset_name, cfg, True, folder)  # these kept the older form
    return make_evaluator(makers, dataset_name)


def do_test(cfg, model):
    return score_all(cfg, model, get_evaluator)


def do_train(cfg, model, resume=False):
    stepper = Stepper(cfg, model, resume)
    first, last = stepper.first, cfg.SOLVER.MAX_ITER
    writers = default_writers(cfg.OUTPUT_DIR, last) if comm.is_main_process() else []
    with EventStorage(first) as storage:
        for iteration, batch in zip(range(first, last), build_detection_train_loader(cfg)):
            storage.iter = iteration
            stepper.step(batch, storage)
            if is_time_to_test(cfg, iteration + 1):
                do_test(cfg, model)
                comm.synchronize()
            is_last = iteration == last - 1
            if iteration > first + 5 and (is_last or (iteration + 1) % 20 == 0):
                for writer in writers:
                    writer.write()
            stepper.saver.step(iteration)


def main(args):
    return run_loop(args, do_train, do_test)


if __name__ == "__main__":
    start(main)
