"""Names of `config` for others' code do what they did."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from detectron2.config import CfgNode, get_cfg

config = importlib.import_module("detectron2.config.config")
compat = importlib.import_module("detectron2.config.compat")
lazy = importlib.import_module("detectron2.config.lazy")
registry = importlib.import_module("detectron2.utils.registry")


def from_config(cfg: CfgNode, size: int) -> dict[str, Any]:
    return {"version": cfg.VERSION, "size": size}


def test_calls_with_a_config() -> None:
    cfg = get_cfg()
    assert config._called_with_cfg(cfg, 3) and config._called_with_cfg(cfg=cfg)
    assert not config._called_with_cfg(3, size=3) and not config._called_with_cfg()
    assert config._get_args_from_config(from_config, cfg, size=3, other=1) == {
        "version": 2,
        "size": 3,
        "other": 1,
    }


def test_a_key_is_renamed() -> None:
    cfg = CfgNode({"A": {"B": 1}})
    compat._rename(cfg, "A.B", "C.D")
    assert cfg.C.D == 1 and "B" not in cfg.get("A", {})
    compat._rename(cfg, "X", "Y")
    assert "Y" not in cfg
    assert compat._C.VERSION == 2 and compat.CN is CfgNode


def test_helpers_of_python_configs(tmp_path: Path) -> None:
    name, other = lazy._random_package_name("some/file.py"), lazy._random_package_name("some/file.py")
    assert name.startswith("detectron2._cfg_loader.") and name.endswith(".file.py") and name != other
    broken = tmp_path / "broken.py"
    broken.write_text("a = (\n")
    with pytest.raises(SyntaxError) as error:
        lazy._validate_py_syntax(str(broken))
    assert error.value.filename == str(broken)
    broken.write_text("a = 1\n")
    lazy._validate_py_syntax(str(broken))
    seen: list[list[str]] = []
    tree = OmegaConf.create({"a": 1, "b": {"c": [{"d": 2}, 3]}})
    lazy._visit_dict_config(tree, lambda node: seen.append([*node]))
    assert seen == [["a", "b"], ["c"], ["d"]]
    assert OmegaConf.is_dict(lazy._cast_to_config({"a": 1})) and lazy._cast_to_config(3) == 3


def test_paths_of_targets_are_as_short_as_they_can_be() -> None:
    torch = importlib.import_module("torch")
    assert registry._convert_target_to_string(torch.nn.Conv2d) == "torch.nn.Conv2d"
    assert registry._convert_target_to_string(torch.optim.SGD) == "torch.optim.SGD"
    assert registry._convert_target_to_string(CfgNode.merge_from_file).endswith("CfgNode.merge_from_file")
    for module in (lazy, importlib.import_module("detectron2.config.instantiate")):
        assert module._convert_target_to_string(torch.optim.SGD) == "torch.optim.SGD"
