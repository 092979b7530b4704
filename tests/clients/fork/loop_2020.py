"""A loop as projects of early 2020 write it: the storage steps, from one on; writers made by hand."""

import os

from common import Stepper, is_time_to_test, make_evaluator, makers_2020, run_loop, score_all, start

import detectron2.utils.comm as comm
from detectron2.data import build_detection_train_loader
from detectron2.utils.events import CommonMetricPrinter, EventStorage, JSONWriter, TensorboardXWriter


def get_evaluator(cfg, dataset_name, output_folder=None):
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    return make_evaluator(makers_2020(cfg, dataset_name, folder), dataset_name)


def make_writers(cfg):
    if not comm.is_main_process():
        return []
    metrics = os.path.join(cfg.OUTPUT_DIR, "metrics.json")
    return [CommonMetricPrinter(cfg.SOLVER.MAX_ITER), JSONWriter(metrics), TensorboardXWriter(cfg.OUTPUT_DIR)]


def do_test(cfg, model):
    return score_all(cfg, model, get_evaluator)


def do_train(cfg, model, resume=False):
    stepper, last = Stepper(cfg, model, resume), cfg.SOLVER.MAX_ITER
    writers = make_writers(cfg)
    loader = build_detection_train_loader(cfg)
    with EventStorage(stepper.first) as storage:
        for batch, number in zip(loader, range(stepper.first + 1, last + 1)):
            storage.step()
            stepper.step(batch, storage)
            if is_time_to_test(cfg, number):
                do_test(cfg, model)
                comm.synchronize()
            if number - stepper.first > 5 and (number == last or number % 20 == 0):
                for writer in writers:
                    writer.write()
            stepper.saver.step(number)


def main(args):
    return run_loop(args, do_train, do_test)


if __name__ == "__main__":
    start(main)
