"""Configs of older versions."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.config.compat import ConverterV1, ConverterV2, guess_version


@pytest.mark.parametrize("version", [0, 1, 2])
def test_down_and_up_again_is_the_same(version: int) -> None:
    cfg = get_cfg()
    old = downgrade_config(cfg, version)
    assert old.VERSION == version
    assert cfg == get_cfg()
    assert upgrade_config(old) == cfg


def test_old_names_are_there_after_a_downgrade() -> None:
    old = downgrade_config(get_cfg(), 0)
    assert old.MODEL.RPN_HEAD.NAME == "StandardRPNHead"
    assert old.MODEL.WEIGHT == ""
    assert old.TEST.DETECTIONS_PER_IMG == 100
    assert old.MODEL.RPN.ANCHOR_SIZES == old.MODEL.RETINANET.ANCHOR_SIZES == [[32, 64, 128, 256, 512]]
    for converter in (ConverterV1, ConverterV2):
        for before, after in converter.RENAME:
            for name, present in ((before, True), (after, False)):
                section, _, key = name.rpartition(".")
                node = old
                for part in section.split("."):
                    node = node.get(part, {})
                assert (key in node) is present, name


@pytest.mark.parametrize("to_version", [-1, 3, 1])
def test_impossible_upgrades_are_errors(to_version: int) -> None:
    with pytest.raises(ValueError, match="cannot upgrade a config of version 2"):
        upgrade_config(get_cfg(), to_version)


@pytest.mark.parametrize("to_version", [-1, 3])
def test_impossible_downgrades_are_errors(to_version: int) -> None:
    with pytest.raises(ValueError, match="cannot downgrade a config of version 2"):
        downgrade_config(get_cfg(), to_version)


def merge(tmp_path: Path, text: str) -> CfgNode:
    path = tmp_path / "old.yaml"
    path.write_text(text)
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return cfg


def test_file_of_version_0(tmp_path: Path) -> None:
    cfg = merge(tmp_path, "VERSION: 0\nMODEL:\n  RPN_HEAD: {NAME: Own}\n  WEIGHT: w.pkl\n")
    assert cfg.MODEL.RPN.HEAD_NAME == "Own"
    assert cfg.MODEL.WEIGHTS == "w.pkl"
    assert cfg.VERSION == 2
    assert cfg.keys() == get_cfg().keys()
    assert cfg.MODEL.keys() == get_cfg().MODEL.keys()


def test_file_without_version_is_recognised_by_its_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        cfg = merge(tmp_path, "MODEL: {WEIGHT: w.pkl, ROI_HEADS: {NMS: 0.25}}\nTEST: {AUG_ON: true}")
    assert "read as such" in caplog.text
    assert cfg.MODEL.WEIGHTS == "w.pkl"
    assert cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST == 0.25
    assert cfg.TEST.AUG.ENABLED is True


def test_guess_version() -> None:
    assert guess_version({"MODEL": {"WEIGHTS": ""}}, "f") == 2
    assert guess_version({}, "f") == 2
    assert guess_version({"TEST": {"AUG_ON": True}}, "f") == 1


@pytest.mark.parametrize(
    ("architecture", "section"), [("RetinaNet", "RETINANET"), ("GeneralizedRCNN", "RPN")]
)
def test_anchors_of_version_1_are_those_that_the_model_used(
    tmp_path: Path, architecture: str, section: str
) -> None:
    text = f"VERSION: 1\nMODEL:\n  META_ARCHITECTURE: {architecture}\n"
    for name, size in (("RETINANET", 8), ("RPN", 16)):
        size += 1 if name == section else 0
        text += f"  {name}: {{ANCHOR_SIZES: [[{size}]], ANCHOR_ASPECT_RATIOS: [[{size}.0]]}}\n"
    cfg = merge(tmp_path, text)
    expected = 9 if section == "RETINANET" else 17
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[expected]]
    assert cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS == [[float(expected)]]


@pytest.mark.parametrize("version", ["3", "-1", "abc"])
def test_version_that_is_not_known_is_an_error(tmp_path: Path, version: str) -> None:
    with pytest.raises(ValueError, match="VERSION must be a number from 0 to 2"):
        merge(tmp_path, f"VERSION: {version}")


def test_wrong_key_of_an_old_file_is_still_named(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"old\.yaml: unknown .* MODEL.WEIGTH. Did you mean MODEL.WEIGHT"):
        merge(tmp_path, "VERSION: 1\nMODEL: {WEIGTH: x}")


def test_flags_of_nodes_survive_an_upgrade(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.register_deprecated_key("MODEL.GONE")
    cfg.register_renamed_key("MODEL.BEFORE", "MODEL.AFTER")
    cfg.MODEL.ANCHOR_GENERATOR.set_new_allowed(True)
    cfg.TEST.AUG.set_new_allowed(True)  # version 1 has no such section
    old = tmp_path / "old.yaml"
    old.write_text("VERSION: 1\nMODEL: {WEIGHT: w.pkl, GONE: 1}")
    cfg.merge_from_file(str(old))
    assert cfg.MODEL.WEIGHTS == "w.pkl"
    cfg.merge_from_list(["MODEL.GONE", 1])
    with pytest.raises(KeyError, match="MODEL.AFTER"):
        cfg.merge_from_list(["MODEL.BEFORE", 1])
    assert cfg.MODEL.ANCHOR_GENERATOR.is_new_allowed()
    assert cfg.TEST.AUG.is_new_allowed()
    assert not cfg.MODEL.is_new_allowed()


@pytest.mark.parametrize("is_frozen", [True, False])
def test_what_is_converted_is_frozen_if_it_was(is_frozen: bool) -> None:
    cfg = get_cfg()
    if is_frozen:
        cfg.freeze()
    old = downgrade_config(cfg, 0)
    new = upgrade_config(old)
    for node in (old, old.MODEL, old.MODEL.RPN_HEAD, new, new.TEST.AUG, new.MODEL.ANCHOR_GENERATOR):
        assert node.is_frozen() is is_frozen
    assert upgrade_config({"VERSION": 1, "MODEL": {"WEIGHT": "w"}})["MODEL"] == {"WEIGHTS": "w"}
