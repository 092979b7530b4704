"""Finding shipped configs, their published weights and their models."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.model_zoo import model_zoo as module
from detectron2.modeling import SemanticSegmentor

NAME = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
PUBLIC = "https://dl.fbaipublicfiles.com/detectron2/"

TINY_YAML = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: SemanticSegmentor
  DEVICE: cpu
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, OUT_FEATURES: [res5], NORM: ""}
  FPN: {IN_FEATURES: [res5], OUT_CHANNELS: 8}
  SEM_SEG_HEAD: {IN_FEATURES: [p5], CONVS_DIM: 8, NUM_CLASSES: 3, NORM: ""}
"""
TINY_PYTHON = """
from torch import nn
from detectron2.config import LazyCall as L
model = L(nn.Linear)(in_features=2, out_features=3)
train = dict(init_checkpoint="", device="cpu")
"""


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A zoo of two tiny configs, and the folder that published files are looked for in."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "tiny.yaml").write_text(TINY_YAML)
    (configs / "linear.py").write_text(TINY_PYTHON)
    (configs / "bare.py").write_text("model = None\n")
    published: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(module, "_CONFIG_ROOTS", (configs,))
    monkeypatch.setattr(module, "published", lambda: published)
    monkeypatch.setenv("DETECTRON2_MODELS", str(tmp_path / "files"))
    return SimpleNamespace(published=published, files=tmp_path / "files")


def publish(zoo: SimpleNamespace, name: str, weights: dict[str, torch.Tensor]) -> None:
    zoo.files.mkdir(exist_ok=True)
    path = zoo.files / "model.pth"
    torch.save({"model": weights}, path)
    file_name = f"model_final_{hashlib.md5(path.read_bytes()).hexdigest()[:6]}.pth"
    path.rename(zoo.files / file_name)
    zoo.published[name] = {"checkpoint": f"1/{file_name}"}


def test_config_file_is_found_by_name(repo_root: Path) -> None:
    path = model_zoo.get_config_file(NAME)
    assert Path(path).read_text() == (repo_root / "configs" / NAME).read_text()


def test_unknown_config_lists_near_ones() -> None:
    near = "COCO-PanopticSegmentation/panoptic_fpn_R50_1x.yaml"
    for function in (model_zoo.get_config_file, model_zoo.get_checkpoint_url, model_zoo.get_config):
        with pytest.raises(FileNotFoundError, match="Did you mean .*panoptic_fpn_R_50_1x.yaml"):
            function(near)


def test_config_has_its_base_merged() -> None:
    cfg = model_zoo.get_config(NAME)
    assert cfg.MODEL.META_ARCHITECTURE == "PanopticFPN"
    assert cfg.SOLVER.BASE_LR == 0.02


def test_address_of_published_weights() -> None:
    name = "COCO-Detection/faster_rcnn_R_50_FPN_3x"
    url = f"{PUBLIC}{name}/137849458/model_final_280758.pkl"
    assert model_zoo.get_checkpoint_url(f"{name}.yaml") == url
    assert model_zoo.get_checkpoint_url(f"{name}.py") == url
    assert model_zoo.get_config(f"{name}.yaml", trained=True).MODEL.WEIGHTS == url


def test_addresses_are_the_published_ones(shared_dir: Path) -> None:
    zoo = json.loads((shared_dir / "spec" / "zoo.json").read_text())
    for name, record in zoo.items():
        if record["checkpoint"]:
            expected = f"{PUBLIC}{name.removesuffix('.yaml')}/{record['checkpoint']}"
            assert model_zoo.get_checkpoint_url(name) == expected
        else:
            with pytest.raises(FileNotFoundError, match="No published weights"):
                model_zoo.get_checkpoint_url(name)


def test_python_configs_of_the_zoo_have_the_published_runs(shared_dir: Path) -> None:
    for result in json.loads((shared_dir / "spec" / "published_results.json").read_text()):
        if result["config"].endswith(".py"):
            url = model_zoo.get_checkpoint_url(result["config"].removeprefix("configs/"))
            assert url.split("/")[-2] == result["model id"]


def test_weights_that_nobody_published_are_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="MODEL.WEIGHTS"):
        model_zoo.get_config("Misc/semantic_R_50_FPN_1x.yaml", trained=True)


def test_trained_yaml_model_comes_from_a_folder_of_files(zoo: SimpleNamespace) -> None:
    weights = model_zoo.get("tiny.yaml").state_dict()
    torch.manual_seed(1)
    publish(zoo, "tiny", {name: torch.randn_like(value) for name, value in weights.items()})
    model = model_zoo.get("tiny.yaml", trained=True, device="cpu")
    assert isinstance(model, SemanticSegmentor) and model.training
    torch.manual_seed(1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, torch.randn_like(value)), name


def test_trained_python_model_comes_from_a_folder_of_files(zoo: SimpleNamespace) -> None:
    publish(zoo, "linear", {"weight": torch.ones(3, 2), "bias": torch.zeros(3)})
    cfg = model_zoo.get_config("linear.py", trained=True)
    assert cfg.train.init_checkpoint == PUBLIC + "linear/" + zoo.published["linear"]["checkpoint"]
    assert not isinstance(cfg, CfgNode)
    model = model_zoo.get("linear.py", trained=True)
    assert torch.equal(model.weight, torch.ones(3, 2))
    assert model_zoo.get("linear.py").weight.shape == (3, 2)


def test_python_config_without_a_place_for_weights_is_an_error(zoo: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="train.init_checkpoint"):
        model_zoo.get_config("bare.py", trained=True)


def test_other_files_are_no_configs(zoo: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "configs" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=".yaml or a .py"):
        model_zoo.get_config("notes.txt")
