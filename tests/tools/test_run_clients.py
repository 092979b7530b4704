"""tools/run_clients.py on checkouts of made-up projects: one that works, and some that do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TRAIN_NET = '''
"""A project with a backbone and a config key of its own."""
import torch
from toy_backbone import add_toy_config
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import COCOEvaluator


class Trainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR)


def main(args):
    cfg = get_cfg()
    add_toy_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    default_setup(cfg, args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(main, args.num_gpus, args=(args,))
'''
BACKBONE = """
from torch import nn
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone


def add_toy_config(cfg):
    cfg.MODEL.TOY_WIDTH = 8


@BACKBONE_REGISTRY.register()
class ToyBackbone(Backbone):
    def __init__(self, cfg, input_shape):
        super().__init__()
        self.width = cfg.MODEL.TOY_WIDTH
        self.conv = nn.Conv2d(input_shape.channels, self.width, 16, stride=16)

    def forward(self, image):
        return {"toy": self.conv(image)}

    def output_shape(self):
        return {"toy": ShapeSpec(channels=self.width, stride=16)}
"""
CONFIG = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {NAME: ToyBackbone}
  TOY_WIDTH: 12
  MASK_ON: True
  RPN: {IN_FEATURES: [toy], POST_NMS_TOPK_TRAIN: 20, POST_NMS_TOPK_TEST: 20}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [toy], BATCH_SIZE_PER_IMAGE: 16, SCORE_THRESH_TEST: 0.0}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 16, POOLER_RESOLUTION: 3}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 8, POOLER_RESOLUTION: 4}
DATASETS:
  TRAIN: ('coco_2017_train',)
  TEST: ('coco_2017_val',)
"""


def write_toy(folder: Path, train_net: str = TRAIN_NET) -> None:
    (folder / "configs").mkdir(parents=True)
    (folder / "train_net.py").write_text(train_net)
    (folder / "toy_backbone.py").write_text(BACKBONE)
    (folder / "configs" / "Base-toy.yaml").write_text(CONFIG)
    (folder / "configs" / "toy.yaml").write_text("_BASE_: Base-toy.yaml\n")


@pytest.fixture
def tool(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("tools/run_clients.py")


def rows(path: Path) -> dict[str, list[str]]:
    """Cells of the table of projects, by the project."""
    lines = path.read_text().partition("## Projects")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.slow
def test_projects_that_work_and_that_do_not(tool: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "clients"
    write_toy(root / "works")
    write_toy(root / "late", TRAIN_NET.replace("DetectionCheckpointer(model).load", "no_such_name"))
    write_toy(root / "imports", "from detectron2.modeling import NoSuchName\n" + TRAIN_NET)
    write_toy(root / "told", TRAIN_NET)
    (root / "told" / "train_net.py").rename(root / "told" / "go.py")
    told = {"script": "go.py", "config": "configs/toy.yaml", "overrides": ["MODEL.MASK_ON", "False"]}
    (root / "told.client.json").write_text(json.dumps(told))
    (root / "empty").mkdir()
    before = sorted(path.name for path in root.rglob("*"))
    page = tmp_path / "clients.md"
    assert tool.main([str(root), "--output", str(page)]) == 0

    found = rows(page)
    yes, no = "yes", "no"
    assert found["works"][1:] == ["train_net.py configs/toy.yaml", yes, yes, yes, yes, ""]
    assert found["told"][1:] == ["go.py configs/toy.yaml MODEL.MASK_ON False", yes, yes, yes, yes, ""]
    assert found["late"][2:6] == [yes, yes, no, no] and "no_such_name" in found["late"][6]
    assert found["imports"][2:6] == [no] * 4 and "NoSuchName" in found["imports"][6]
    assert found["empty"][2:6] == [no] * 4 and "empty.client.json" in found["empty"][6]
    assert "2 of 5 train a step, infer and evaluate" in page.read_text()
    after = sorted(path.name for path in root.rglob("*") if "__pycache__" not in path.parts)
    assert [name for name in after if not name.endswith(".pyc") and name != "__pycache__"] == before


def test_a_folder_that_is_not_there(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main(["no/such/folder"])
    assert "'no/such/folder' is no folder" in capsys.readouterr().err


def test_without_checkouts_the_page_has_the_packages(
    tool: ModuleType, tmp_path: Path, repo_root: Path
) -> None:
    page = tmp_path / "clients.md"
    assert tool.main(["--output", str(page)]) == 0
    text = page.read_text()
    assert "nothing is known of projects" in text
    pins = (repo_root / "constraints-clients.txt").read_text().splitlines()
    tested = {
        path.stem.removeprefix("test_") for path in (repo_root / "tests/clients/packages").glob("test_*.py")
    }
    assert len(tool.PACKAGES) == len(tested)
    for name, _ in tool.PACKAGES:
        version = next(pin for pin in pins if pin.startswith(f"{name}=="))
        assert f"| {name} | {version.partition('==')[2]} |" in text
