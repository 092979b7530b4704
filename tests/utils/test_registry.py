"""Names to objects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fvcore.common.registry import Registry as FvcoreRegistry

from detectron2.utils.registry import Registry, locate


def test_register_as_decorator_or_call() -> None:
    registry = Registry("THING")

    @registry.register()
    def first() -> None: ...

    def second() -> None: ...

    registry.register(second)
    assert registry.get("first") is first
    assert registry.get("second") is second
    assert "first" in registry and "third" not in registry
    assert dict(registry) == {"first": first, "second": second}
    assert isinstance(registry, FvcoreRegistry)
    assert "first" in repr(registry)


def test_unknown_name_lists_near_matches_or_all_names() -> None:
    registry = Registry("BACKBONE")
    with pytest.raises(KeyError, match="BACKBONE registry, which is empty"):
        registry.get("x")
    for name in ("build_resnet_backbone", "build_fpn_backbone"):
        registry._do_register(name, object())
    with pytest.raises(KeyError, match="'build_resnet_bakbone' .* Did you mean build_resnet_backbone"):
        registry.get("build_resnet_bakbone")
    with pytest.raises(KeyError, match="It has: build_fpn_backbone, build_resnet_backbone"):
        registry.get("zzz")


def test_a_name_is_given_once() -> None:
    registry = Registry("THING")
    registry._do_register("a", 1)
    with pytest.raises(ValueError, match="THING registry: the name 'a' already belongs to 1"):
        registry._do_register("a", 2)
    assert registry.get("a") == 1


def test_locate_finds_modules_classes_and_methods() -> None:
    assert locate("pathlib") is sys.modules["pathlib"]
    assert locate("pathlib.Path") is Path
    assert locate("pathlib.Path.exists") is Path.exists
    assert locate("os.path.join") is sys.modules["os"].path.join


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module.X", "no module named 'no_such_module'"),
        ("pathlib.Pth", "has no 'Pth'. Did you mean .*Path"),
        ("pathlib.Path.nothing", "has no 'nothing'"),
        ("", "expected a dotted path"),
        ("a b", "expected a dotted path"),
        ("pathlib.", "expected a dotted path"),
    ],
)
def test_locate_says_what_is_missing(name: str, message: str) -> None:
    with pytest.raises(ImportError, match=message):
        locate(name)


def test_locate_does_not_hide_a_broken_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_for_locate.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        locate("broken_for_locate.Thing")
