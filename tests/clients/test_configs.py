"""Configs of the zoo and of the research projects, written out as published and read.

`zoo.json` and `projects_zoo.json` hold, by the path of a YAML file, its base and the keys that it sets;
`projects_defaults.json` the keys that each project adds to the config, with their defaults.
"""

from __future__ import annotations

import json
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest
import yaml

from detectron2.config import CfgNode, get_cfg

HERE = Path(__file__).parent
ZOO: dict[str, dict[str, Any]] = json.loads((HERE / "zoo.json").read_text(encoding="utf-8"))
PROJECTS: dict[str, dict[str, Any]] = json.loads((HERE / "projects_zoo.json").read_text(encoding="utf-8"))
DEFAULTS: dict[str, dict[str, Any]] = json.loads(
    (HERE / "projects_defaults.json").read_text(encoding="utf-8")
)

# Folder of a project -> whose keys its program adds.
ADDS_KEYS = {
    "DeepLab": ("deeplab",),
    "DensePose": ("densepose",),
    "Mask2Former": ("deeplab", "mask2former"),
    "Panoptic-DeepLab": ("panoptic_deeplab",),
    "PointRend": ("point_rend",),
    "PointSup": ("point_rend", "point_sup"),
    "TensorMask": ("tensormask",),
    "TridentNet": ("tridentnet",),
}


def nested(keys: dict[str, Any]) -> dict[str, Any]:
    """{"A.B": 1} -> {"A": {"B": 1}}."""
    tree: dict[str, Any] = {}
    for path, value in keys.items():
        *sections, name = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def write(path: Path, base: str | None, keys: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"_BASE_": base} if base else {}
    path.write_text(yaml.safe_dump({**head, **nested(keys)}), encoding="utf-8")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout's `configs` and `projects`, with all files of both lists."""
    root = tmp_path_factory.mktemp("checkout")
    for name, entry in ZOO.items():
        write(root / "configs" / name, entry["base"], entry["non_default"])
    for name, entry in PROJECTS.items():
        write(root / "projects" / name, entry["base"], entry["keys"])
    return root


def value_of(cfg: CfgNode, path: str) -> Any:
    for name in path.split("."):
        cfg = cfg[name]
    return cfg


def plain(value: Any) -> Any:
    """Tuples and lists are the same, and text may stand for a value, as configs have it."""
    if isinstance(value, CfgNode):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, str):
        try:
            return plain(literal_eval(value))
        except (ValueError, SyntaxError):
            return value
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def with_keys_of(projects: tuple[str, ...]) -> CfgNode:
    """The config as a project's program has it before it reads a file."""
    cfg = get_cfg()
    for project in projects:
        for path, value in DEFAULTS[project].items():
            *sections, name = path.split(".")
            node = cfg
            for section in sections:
                if section not in node:
                    node[section] = CfgNode()
                node = node[section]
            node[name] = CfgNode(new_allowed=True) if value == {} else value
    return cfg


# What Mask2Former's program for videos adds to INPUT, besides the keys of the one for images.
VIDEO_KEYS = {
    "AUGMENTATIONS": [],
    "SAMPLING_FRAME_NUM": 2,
    "SAMPLING_FRAME_RANGE": 20,
    "SAMPLING_FRAME_SHUFFLE": False,
}

# The file of the Res2Net fork asks for its backbone by the key RESNETS.SCALE; reading it gives our keys.
OF_THE_FORK = "COCO-PanopticSegmentation/panoptic_fpn_R2_101_3x.yaml"
READ_AS = {"MODEL.BACKBONE.NAME": "build_res2net_fpn_backbone", "MODEL.RES2NET.SCALE": 4}


def test_the_lists_are_whole() -> None:
    assert len(ZOO) == 93 and len(PROJECTS) == 144
    assert {name.split("/")[0] for name in PROJECTS} == ADDS_KEYS.keys()
    assert {key for keys in ADDS_KEYS.values() for key in keys} == DEFAULTS.keys()


@pytest.mark.parametrize("name", ZOO)
def test_config_of_the_zoo(name: str, folder: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(folder / "configs" / name))
    expected = ZOO[name]["non_default"]
    if name == OF_THE_FORK:
        expected = {**expected, **READ_AS}
        assert expected.pop("MODEL.RESNETS.SCALE") == 4
    for path, value in expected.items():
        assert plain(value_of(cfg, path)) == plain(value), path


@pytest.mark.parametrize("name", PROJECTS)
def test_config_of_a_project(name: str, folder: Path) -> None:
    cfg = with_keys_of(ADDS_KEYS[name.split("/", maxsplit=1)[0]])
    if "/youtubevis_" in name:
        cfg.INPUT.update(VIDEO_KEYS)
    cfg.merge_from_file(str(folder / "projects" / name))
    for path, value in PROJECTS[name]["keys"].items():
        assert plain(value_of(cfg, path)) == plain(value), path
