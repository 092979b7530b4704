"""Classes and functions that take a config or plain arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from detectron2.config import CfgNode, configurable


@pytest.fixture
def cfg() -> CfgNode:
    return CfgNode({"A": 1, "B": 2})


class Simple:
    """Takes two numbers."""

    @configurable
    def __init__(self, a: int, *, b: int = 20, c: int = 30) -> None:
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg: CfgNode, extra: int = 0) -> dict[str, Any]:
        return {"a": cfg.A + extra, "b": cfg.B}


def test_explicit_arguments_go_straight_through(cfg: CfgNode) -> None:
    assert Simple(5).values == (5, 20, 30)
    assert Simple(a=5, b=6).values == (5, 6, 30)


def test_config_comes_first_or_by_name(cfg: CfgNode) -> None:
    assert Simple(cfg).values == (1, 2, 30)
    assert Simple(cfg=cfg).values == (1, 2, 30)
    assert Simple(cfg, 100).values == (101, 2, 30)
    assert Simple(cfg, extra=100).values == (101, 2, 30)


def test_other_keywords_replace_what_from_config_gave(cfg: CfgNode) -> None:
    assert Simple(cfg, b=7, c=8, extra=100).values == (101, 7, 8)


def test_from_config_with_free_keywords_gets_them_all(cfg: CfgNode) -> None:
    class Free:
        @configurable
        def __init__(self, **kwargs: int) -> None:
            self.kwargs = kwargs

        @classmethod
        def from_config(cls, cfg: CfgNode, *args: int, **kwargs: int) -> dict[str, Any]:
            return {"a": cfg.A, "args": sum(args), **{key: value * 10 for key, value in kwargs.items()}}

    assert Free(cfg, 3, 4, b=5).kwargs == {"a": 1, "args": 7, "b": 50}


def test_subclass_inherits_or_extends(cfg: CfgNode) -> None:
    class Child(Simple):
        pass

    class Extended(Simple):
        @configurable
        def __init__(self, *, d: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.d = d

        @classmethod
        def from_config(cls, cfg: CfgNode, extra: int = 0) -> dict[str, Any]:
            return {**super().from_config(cfg, extra), "d": 4}

    class WithoutDecorator(Simple):
        def __init__(self, cfg: CfgNode) -> None:
            super().__init__(cfg)
            self.e = 5

    assert Child(cfg, b=9).values == (1, 9, 30)
    extended = Extended(cfg, 1, c=3)
    assert (*extended.values, extended.d) == (2, 2, 3, 4)
    assert WithoutDecorator(cfg).values == (1, 2, 30)


def test_omegaconf_configs_count_too() -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create({"A": 1, "B": 2})
    assert Simple(config).values == (1, 2, 30)
    assert Simple(cfg=config).values == (1, 2, 30)


def test_function_form(cfg: CfgNode) -> None:
    def arguments(cfg: CfgNode) -> dict[str, Any]:
        return {"a": cfg.A}

    @configurable(from_config=arguments)
    def build(a: int, b: int = 2) -> tuple[int, int]:
        return a, b

    assert build(cfg) == (1, 2)
    assert build(cfg, b=5) == (1, 5)
    assert build(7) == (7, 2)
    assert build.from_config(cfg) == {"a": 1}


def test_signature_and_docs_are_those_of_the_decorated(cfg: CfgNode) -> None:
    assert list(inspect.signature(Simple.__init__).parameters) == ["self", "a", "b", "c"]
    assert Simple.__init__.__name__ == "__init__"


def test_class_without_from_config_says_so(cfg: CfgNode) -> None:
    class Bare:
        @configurable
        def __init__(self, a: int) -> None: ...

    with pytest.raises(AttributeError, match="Bare decorates __init__ .* classmethod from_config"):
        Bare(cfg)


def test_from_config_must_be_a_classmethod(cfg: CfgNode) -> None:
    class Instance:
        @configurable
        def __init__(self, a: int) -> None: ...

        def from_config(self, cfg: CfgNode) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="must be a classmethod"):
        Instance(cfg)


def test_from_config_must_take_cfg_first(cfg: CfgNode) -> None:
    class Misnamed:
        @configurable
        def __init__(self, a: int) -> None: ...

        @classmethod
        def from_config(cls, config: CfgNode) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="must take cfg as its first argument"):
        Misnamed(cfg)


def test_wrong_uses_of_the_decorator_are_errors() -> None:
    def function(a: int) -> None: ...

    with pytest.raises(TypeError, match="decorates __init__"):
        configurable(function)
    with pytest.raises(TypeError, match="from_config must be a function"):
        configurable(from_config=3)
    with pytest.raises(TypeError, match="for a class"):
        configurable(from_config=function)(Simple)
