"""Projects register what only we have under the same names, and keep theirs; other names are given once."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.build import build_region_stage
from detectron2.utils.registry import Registry

PACKAGE = Path(__file__).parents[2] / "detectron2"

# What CenterNet2, Detic and others bring along.
ONLY_OURS = (
    "build_res2net_backbone",
    "build_res2net_fpn_backbone",
    "build_retinanet_res2net_fpn_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
    "build_retinanet_timm_fpn_backbone",
)


def test_names_that_give_way() -> None:
    giving_way = {name for name, _ in BACKBONE_REGISTRY if BACKBONE_REGISTRY.gives_way(name)}
    assert giving_way == set(ONLY_OURS)


def registrations() -> dict[str, bool]:
    """Name of each class or function that the package registers by a decorator: whether it gives way."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in getattr(node, "decorator_list", ()):
                text = ast.unparse(decorator)
                if re.match(r"[A-Z_]+_REGISTRY\.register\(", text) and "WEIGHT_TRANSLATOR" not in text:
                    found[node.name] = "overridable=True" in text  # type: ignore[attr-defined]  # it has decorators
    return found


def test_names_of_the_interface_do_not_give_way() -> None:
    found = registrations()
    assert len(found) > 25
    assert {name for name, gives_way in found.items() if gives_way} == set(ONLY_OURS)


PROJECT = """
import logging, sys
logging.basicConfig(format="%(message)s")
from detectron2.modeling.backbone import Backbone
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from detectron2.config import get_cfg

class Own(Backbone):
    def forward(self, image):
        return {}

for name in sys.argv[1:]:
    def build(cfg, input_shape):
        return Own()

    build.__name__ = name
    BACKBONE_REGISTRY.register(build)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    assert type(build_backbone(cfg)) is Own
"""


def test_a_project_keeps_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROJECT, *ONLY_OURS], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for name in ONLY_OURS:
        assert done.stderr.count(f"BACKBONE registry: '{name}' is") == 1
    assert done.stderr.count("takes the place of") == len(ONLY_OURS)


def test_who_replaces_a_backbone_gets_no_last_stage_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_res2net_backbone"
    kinds = {type(block).__name__ for block in build_region_stage(cfg)}
    assert kinds == {"Res2NetBottleneckBlock"}
    monkeypatch.setattr(BACKBONE_REGISTRY, "_obj_map", dict(BACKBONE_REGISTRY))
    monkeypatch.setattr(BACKBONE_REGISTRY, "_giving_way", set(ONLY_OURS))
    BACKBONE_REGISTRY._do_register("build_res2net_backbone", object())
    assert {type(block).__name__ for block in build_region_stage(cfg)} == {"BottleneckBlock"}


def test_who_comes_first_does_not_matter(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry("THING")

    def theirs() -> None: ...

    def ours() -> None: ...

    ours.__name__ = "theirs"
    registry.register(theirs)
    with caplog.at_level(logging.WARNING):
        assert registry.register(overridable=True)(ours) is ours
    assert registry.get("theirs") is theirs and not registry.gives_way("theirs")
    assert caplog.text.count("takes the place of") == 1


def test_a_name_is_replaced_once() -> None:
    registry = Registry("THING")

    def thing() -> None: ...

    registry.register(thing, overridable=True)
    registry._do_register("thing", 1)
    assert registry.get("thing") == 1
    with pytest.raises(ValueError, match="'thing' already belongs to 1"):
        registry._do_register("thing", 2)
    assert registry.get("thing") == 1


def test_of_two_that_give_way_the_second_is_an_error_of_ours() -> None:
    registry = Registry("THING")

    def thing() -> None: ...

    registry.register(thing, overridable=True)
    with pytest.raises(ValueError, match="already belongs"):
        registry.register(thing, overridable=True)


def test_a_name_that_detectron2_has_too_is_given_once() -> None:
    with pytest.raises(ValueError, match="'build_resnet_backbone' already belongs to"):
        BACKBONE_REGISTRY._do_register("build_resnet_backbone", object())
