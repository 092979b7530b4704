"""Finding shipped configs and building their models."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectron2 import model_zoo

NAME = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"


def test_config_file_is_found_by_name(repo_root: Path) -> None:
    path = model_zoo.get_config_file(NAME)
    assert Path(path).read_text() == (repo_root / "configs" / NAME).read_text()


def test_unknown_config_lists_near_ones() -> None:
    with pytest.raises(FileNotFoundError, match="Did you mean .*panoptic_fpn_R_50_1x.yaml"):
        model_zoo.get_config_file("COCO-PanopticSegmentation/panoptic_fpn_R50_1x.yaml")


def test_config_has_its_base_merged() -> None:
    cfg = model_zoo.get_config(NAME)
    assert cfg.MODEL.META_ARCHITECTURE == "PanopticFPN"
    assert cfg.SOLVER.BASE_LR == 0.02


def test_weights_that_nobody_published_are_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="MODEL.WEIGHTS"):
        model_zoo.get_config("Misc/semantic_R_50_FPN_1x.yaml", trained=True)


def test_python_configs_are_read_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectron2.model_zoo.model_zoo.get_config_file", lambda name: name)
    with pytest.raises(ValueError, match="LazyConfig"):
        model_zoo.get_config("common/optim.py")
