"""Python configs and what is built from them."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.config.instantiate import dump_dataclass


class Recorder:
    """Keeps what it was called with."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs


@dataclasses.dataclass
class Shape:
    height: int
    width: int = 2


@dataclasses.dataclass
class Pair:
    left: Shape
    right: Any = None


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_call_is_recorded_and_made_later() -> None:
    config = LazyCall(Recorder)(x=1, child=LazyCall(Recorder)(y=2))
    assert list(config) == ["_target_", "x", "child"]
    config.child.y = 3
    built = instantiate(config)
    assert built.kwargs["x"] == 1
    assert built.kwargs["child"].kwargs == {"y": 3}


def test_target_may_be_a_path() -> None:
    assert instantiate({"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}) == 0.5
    assert instantiate(LazyCall("fractions.Fraction")(numerator=3)) == 3


def test_wrong_target_says_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="LazyCall takes a callable"):
        LazyCall(3)
    with pytest.raises(ImportError, match="fractions.*Fractoin.*Did you mean Fraction"):
        instantiate({"_target_": "fractions.Fractoin"})
    with pytest.raises(TypeError, match="_target_ must be a callable"):
        instantiate({"_target_": "math.pi"})


def test_target_may_be_a_method_without_a_module() -> None:
    assert int.from_bytes.__module__ is None
    assert instantiate({"_target_": int.from_bytes, "bytes": b"\1\0", "byteorder": "big"}) == 256


def test_arguments_of_a_failing_call_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TypeError):
        instantiate(LazyCall(Shape)(heigth=1))
    assert "heigth" in caplog.text and "Shape" in caplog.text


def test_lists_and_dictionaries_are_searched() -> None:
    call = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}
    assert instantiate([call, 3]) == [0.5, 3]
    assert instantiate((call,)) == (0.5,)
    assert instantiate({"a": {"b": call}}) == {"a": {"b": 0.5}}
    assert list(instantiate(ListConfig([DictConfig(call), 1], flags={"allow_objects": True}))) == [0.5, 1]
    assert instantiate(3) == 3
    assert instantiate([]) == []


def test_recursion_can_be_switched_off() -> None:
    built = instantiate(LazyCall(Recorder)(child=LazyCall(Recorder)(), _recursive_=False))
    assert "_target_" in built.kwargs["child"]
    assert "_recursive_" not in built.kwargs


class Adder:
    """A class whose instances are called."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __call__(self, second: int) -> int:
        return self.first + second


def test_target_may_be_a_config(tmp_path: Path) -> None:
    config = LazyCall(LazyCall(Adder)(first=3))(second=4)
    assert instantiate(config) == 7
    config._target_.first = 5
    assert instantiate(config) == 9
    assert LazyConfig.to_py(config, "cfg.x").endswith("Adder(first=5)(second=4)\n")
    LazyConfig.save(config, str(tmp_path / "c.yaml"))
    assert LazyConfig.load(str(tmp_path / "c.yaml"))._target_.first == 5


def test_what_holds_nothing_to_call_is_returned_itself() -> None:
    for value in ({"a": {"b": 1}}, Recorder(), {}):
        assert instantiate(value) is value


def test_interpolations_are_resolved() -> None:
    config = OmegaConf.create(
        {"size": 5, "call": LazyCall(Recorder)(x="${..size}")}, flags={"allow_objects": True}
    )
    config.size = 6
    assert instantiate(config.call).kwargs == {"x": 6}


def test_dataclass_goes_to_a_config_and_back() -> None:
    pair = Pair(Shape(1), [Shape(3, 4), "text"])
    config = dump_dataclass(pair)
    assert config["left"]["_target_"].endswith("Shape")
    assert instantiate(config) == pair
    assert instantiate(LazyCall(Shape)(height=7)) == Shape(7, 2)
    for wrong in (Shape, 3):
        with pytest.raises(TypeError, match="instance of a dataclass"):
            dump_dataclass(wrong)


def test_load_python_file_with_relative_imports(tmp_path: Path) -> None:
    write(tmp_path, "common/model.py", "model = dict(depth=50, inner=dict(width=1))\nsizes = [1, 2]\n")
    path = write(
        tmp_path,
        "tasks/run.py",
        "from ..common.model import model, sizes\n"
        "from ..common import model as module\n"
        "import math\n"
        "from detectron2.config import LazyCall as L\n"
        "model.depth = 101\n"
        "untouched = module.model\n"
        "train = dict(lr=math.sqrt(4))\n"
        "_private = dict()\n"
        "number = 3\n"
        "def helper(): pass\n",
    )
    cfg = LazyConfig.load(path)
    assert set(cfg) == {"model", "untouched", "train"}
    assert cfg.model.depth == 101
    assert cfg.untouched.depth == 50
    assert cfg.train.lr == 2.0
    assert LazyConfig.load(path, "number") == 3
    train, sizes = LazyConfig.load(path, ("train", "sizes"))
    assert (train.lr, sizes) == (2.0, [1, 2])
    with pytest.raises(KeyError, match=r"run\.py defines no trian"):
        LazyConfig.load(path, "trian")


def test_relative_imports_start_at_the_file_wherever_that_is_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "base.py", "base = dict(x=1)\n")
    lines = "from .. import base as module\nfrom ..base import base\nfrom . import beside\n"
    lines += "found = dict(x=module.base.x + beside.y.z)\n"
    write(tmp_path / "sub", "run.py", lines)
    write(tmp_path / "sub", "beside.py", "y = dict(z=2)\n")
    write(tmp_path, "sub.py", "raise AssertionError('called like the folder, which is what is meant')\n")
    for folder, path in (
        (tmp_path, "sub/run.py"),
        (tmp_path / "sub", "run.py"),
        (tmp_path / "sub", "./run.py"),
    ):
        monkeypatch.chdir(folder)
        assert LazyConfig.load(path) == {"base": {"x": 1}, "found": {"x": 3}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from . import gone", r"imports gone from \., which has no such variable, .*gone\.py"),
        ("from . import sub", r"imports sub from \..*folders are not imported"),
        ("from .base import gone", r"imports gone from \.base, which has no such variable"),
    ],
)
def test_imports_of_what_is_no_config_are_explained(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "base.py", "base = dict(x=1)\n")
    path = write(tmp_path, "run.py", line + "\n")
    with pytest.raises(ImportError, match=message):
        LazyConfig.load(path)


def test_module_of_a_config_has_a_name_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "base.py", "base = dict(name=__name__)\n")
    path = write(tmp_path, "run.py", "from .base import base\nrun = dict(name=__name__)\nclass C: pass\n")
    cfg = LazyConfig.load(path)
    names = {cfg.base.name, cfg.run.name, LazyConfig.load(path).run.name}
    assert len(names) == 3
    assert cfg.run.name.endswith(".run") and cfg.base.name.endswith(".base")
    assert LazyConfig.load(path, "C").__module__.endswith(".run")


def test_load_rel_is_relative_to_the_caller() -> None:
    with pytest.raises(FileNotFoundError, match="tests.*no_such_file.py"):
        LazyConfig.load_rel("no_such_file.py")


def test_load_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.py or \.yaml"):
        LazyConfig.load("config.json")
    with pytest.raises(FileNotFoundError, match=r"gone\.py"):
        LazyConfig.load(str(tmp_path / "gone.py"))
    with pytest.raises(SyntaxError, match=r"broken\.py has a syntax error in line 2"):
        LazyConfig.load(write(tmp_path, "broken.py", "a = 1\nb = (\n"))
    with pytest.raises(ImportError, match=r"run\.py imports \.gone"):
        LazyConfig.load(write(tmp_path, "run.py", "from .gone import x\n"))


def test_saved_config_loads_and_builds_the_same(tmp_path: Path) -> None:
    config = DictConfig(
        {
            "call": LazyCall(Recorder)(x=1, path="${..name}", items=(1, 2.5, None, True, "1e-3")),
            "name": "n",
            "shape": Shape(1, 2),
        },
        flags={"allow_objects": True},
    )
    path = str(tmp_path / "out" / "config.yaml")
    LazyConfig.save(config, path)
    loaded = LazyConfig.load(path)
    built, again = instantiate(config.call), instantiate(loaded.call)
    assert type(again).__qualname__ == "Recorder"
    assert dict(again.kwargs) == dict(built.kwargs) and again.kwargs["path"] == "n"
    assert instantiate(loaded.shape) == Shape(1, 2)


def test_what_cannot_be_saved_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = DictConfig({"a": {"f": lambda: 1}, "b": 2}, flags={"allow_objects": True})
    with caplog.at_level(logging.WARNING):
        LazyConfig.save(config, str(tmp_path / "c.yaml"))
    assert "a.f" in caplog.text
    assert LazyConfig.load(str(tmp_path / "c.yaml")).b == 2


def test_saved_yaml_cannot_run_code(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refused"):
        LazyConfig.load(write(tmp_path, "bad.yaml", "a: !!python/object/apply:os.getcwd []"))


def test_overrides() -> None:
    cfg = OmegaConf.create({"a": {"b": 1, "l": [1, 2]}, "c": "x"})
    returned = LazyConfig.apply_overrides(
        cfg,
        ["a.b=1e-3", "c=name=with=equals", "a.l=[3, 4]", "+a.new=null", "a.d={x: 1}", "a.t=true", "a.e="],
    )
    assert returned is cfg
    assert cfg.a.b == 0.001
    assert cfg.c == "name=with=equals"
    assert cfg.a.l == [3, 4]
    assert cfg.a.new is None
    assert cfg.a.d == {"x": 1}
    assert cfg.a.t is True
    assert cfg.a.e == ""
    LazyConfig.apply_overrides(cfg, ["~a.d", "~a.l[0]"])
    assert "d" not in cfg.a
    assert cfg.a.l == [4]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[a,b]", ["a", "b"]),
        ("[]", []),
        ("{}", {}),
        ("{x:1,y:{z: [2, null]}}", {"x": 1, "y": {"z": [2, None]}}),
        ("{path: 'a,b', mode: on}", {"path": "a,b", "mode": "on"}),
        ("[(1, 2), TRUE]", [(1, 2), True]),
        ("-inf", -float("inf")),
        ("1:30", "1:30"),
        ("[1, (2]", "[1, (2]"),
        ("http://host/a_b.pkl", "http://host/a_b.pkl"),
        ("'3'", "3"),
    ],
)
def test_values_of_overrides(text: str, value: Any) -> None:
    cfg = LazyConfig.apply_overrides(OmegaConf.create({"a": 0}), [f"a={text}"])
    assert (cfg.a == value and type(cfg.a) is not bool) or cfg.a is value


def test_list_entries_and_interpolations_can_be_overridden() -> None:
    cfg = OmegaConf.create({"a": {"l": [{"x": 1}, 2]}, "lr": 1.0, "twin": 0})
    LazyConfig.apply_overrides(cfg, ["a.l[0].x=5", "a.l.1=6", "twin=${lr}", "lr=3", "+new.section.x=1"])
    assert cfg.a.l == [{"x": 5}, 6]
    assert cfg.twin == 3
    assert cfg.new.section.x == 1


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("a.b", ValueError, "path.to.key=value"),
        ("=1", ValueError, "path.to.key=value"),
        ("a.b.c=1", KeyError, "a.b is the value 1"),
        ("x.y=1", KeyError, "x does not exist"),
        ("~a.x", KeyError, "cannot delete a.x"),
        ("a.b={x}", ValueError, "a dict is written as"),
    ],
)
def test_wrong_overrides_are_errors(override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LazyConfig.apply_overrides(OmegaConf.create({"a": {"b": 1}}), [override])


def test_classes_are_saved_under_public_paths(tmp_path: Path) -> None:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import backbone
    from detectron2.modeling.backbone.regnet import SimpleStem
    from detectron2.modeling.backbone.resnet import BasicBlock

    calls = {
        "sgd": (torch.optim.SGD, "torch.optim.SGD"),
        "conv": (torch.nn.Conv2d, "torch.nn.Conv2d"),
        "block": (BasicBlock, "detectron2.modeling.backbone.resnet.BasicBlock"),
        "stem": (SimpleStem, "detectron2.modeling.backbone.regnet.SimpleStem"),
        "net": (backbone.ResNet, "detectron2.modeling.ResNet"),
        "stages": (backbone.ResNet.make_stage, "detectron2.modeling.ResNet.make_stage"),
        "shape": (ShapeSpec, "detectron2.layers.ShapeSpec"),
        "plain": (Recorder, f"{__name__}.Recorder"),
    }
    cfg = DictConfig({name: LazyCall(f)() for name, (f, _) in calls.items()}, flags={"allow_objects": True})
    cfg.given = ShapeSpec(channels=3)
    LazyConfig.save(cfg, str(tmp_path / "c.yaml"))
    loaded = LazyConfig.load(str(tmp_path / "c.yaml"))
    assert {name: loaded[name]._target_ for name in calls} == {
        name: path for name, (_, path) in calls.items()
    }
    assert instantiate(loaded.given) == ShapeSpec(channels=3)
    optimizer = instantiate({**loaded.sgd, "params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5})
    assert type(optimizer) is torch.optim.SGD


def test_what_yaml_cannot_hold_is_pickled_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = type(sys)("cloudpickle")
    stand_in.dumps = lambda cfg: f"pickled {list(cfg)}".encode()
    monkeypatch.setitem(sys.modules, "cloudpickle", stand_in)
    path = tmp_path / "c.yaml"
    LazyConfig.save(DictConfig({"f": 3}), str(path))
    assert not Path(f"{path}.pkl").exists()
    LazyConfig.save(DictConfig({"f": lambda: 3}, flags={"allow_objects": True}), str(path))
    assert Path(f"{path}.pkl").read_bytes() == b"pickled ['f']"
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    LazyConfig.save(DictConfig({"f": lambda: 3}, flags={"allow_objects": True}), str(path))
