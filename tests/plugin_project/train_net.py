"""Train the model of this project and predict with it, or evaluate it."""

import os
import sys

import numpy as np
from PIL import Image
from plugin import BrightnessMapper, CountEvaluator, add_plugin_config

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import (
    DefaultPredictor,
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    hooks,
    launch,
)
from detectron2.evaluation import verify_results
from detectron2.structures import BoxMode
from detectron2.utils import comm


def draw_images(folder, num_images=4):
    """Write pictures of one bright box each, and return their dataset dicts."""
    records = []
    rng = np.random.default_rng(0)
    for index in range(num_images):
        image = np.zeros((48, 64, 3), dtype=np.uint8)
        x, y = (int(v) for v in rng.integers(0, 24, size=2))
        image[y : y + 20, x : x + 16] = 200
        file_name = os.path.join(folder, f"{index}.png")
        Image.fromarray(image).save(file_name)
        box = {"bbox": [x, y, 16, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": index % 2}
        records.append(
            {"file_name": file_name, "image_id": index, "height": 48, "width": 64, "annotations": [box]}
        )
    return records


def register_data(folder):
    for name in ("plugin_train", "plugin_val"):
        DatasetCatalog.register(name, lambda: draw_images(folder))
        MetadataCatalog.get(name).set(thing_classes=["light", "lamp"])


class Trainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg, mapper=BrightnessMapper(cfg, True))

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_detection_test_loader(cfg, dataset_name, mapper=BrightnessMapper(cfg, False))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return CountEvaluator(dataset_name)

    def build_hooks(self):
        ret = super().build_hooks()
        ret.insert(-1, hooks.CallbackHook(after_step=lambda trainer: None))
        return ret


def read_config(args):
    cfg = get_cfg()
    add_plugin_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    default_setup(cfg, args)
    cfg.freeze()
    return cfg


def evaluate(cfg):
    model = Trainer.build_model(cfg)
    DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).load(cfg.MODEL.WEIGHTS)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)


def predict(cfg):
    predictor = DefaultPredictor.from_checkpoint(os.path.join(cfg.OUTPUT_DIR, "model_final.pth"))
    instances = predictor(np.zeros((48, 64, 3), np.uint8))["instances"]
    sys.stdout.write(f"{len(instances.tag) == len(instances)} {predictor.metadata.thing_classes}\n")


def run(args):
    cfg = read_config(args)
    register_data(cfg.OUTPUT_DIR)
    if args.eval_only:
        return evaluate(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return predict(cfg)


if __name__ == "__main__":
    command_line = default_argument_parser().parse_args()
    launch(run, command_line.num_gpus, dist_url="auto", args=(command_line,))
