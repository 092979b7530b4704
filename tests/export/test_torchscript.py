"""Traced programs as text, and the help and the names of what went with TorchScript."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from detectron2.export import dump_torchscript_IR
from detectron2.export.torchscript_patch import patch_builtin_len

torchscript = importlib.import_module("detectron2.export.torchscript")
torchscript_patch = importlib.import_module("detectron2.export.torchscript_patch")


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_a_traced_program_as_text(tmp_path: Path) -> None:
    program = torch.jit.trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.rand(1, 2))
    dump_torchscript_IR(program, str(tmp_path / "out"))
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert texts.keys() == {
        "model.txt",
        "model_ts_code.txt",
        "model_ts_IR.txt",
        "model_ts_IR_inlined.txt",
    }
    assert "Linear" in texts["model.txt"]
    assert "torch.linear" in texts["model_ts_code.txt"] and "torch.relu" in texts["model_ts_code.txt"]
    assert "prim::CallMethod" in texts["model_ts_IR.txt"]
    assert "aten::linear" in texts["model_ts_IR_inlined.txt"]
    assert "prim::CallMethod" not in texts["model_ts_IR_inlined.txt"]
    with pytest.raises(TypeError, match="expected a TorchScript module, got Linear"):
        dump_torchscript_IR(nn.Linear(2, 3), str(tmp_path))


class CountsRows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(()) + len(x)


@pytest.mark.filterwarnings("ignore")  # the tracer warns of the builtin `len`
def test_len_can_be_followed_by_a_tracer() -> None:
    fixed = torch.jit.trace(CountsRows(), torch.zeros(3, 1))
    with patch_builtin_len([__name__]):
        followed = torch.jit.trace(CountsRows(), torch.zeros(3, 1))
    assert fixed(torch.zeros(5, 1)) == 3
    assert followed(torch.zeros(5, 1)) == 5
    assert "len" not in globals()


@pytest.mark.parametrize(
    "name",
    [
        "_add_instances_conversion_methods",
        "_clear_jit_cache",
        "_gen_instance_class",
        "_gen_instance_module",
        "_import",
        "freeze_training_mode",
        "patch_instances",
        "patch_nonscriptable_classes",
    ],
)
def test_what_scripting_needed_is_left_out(name: str) -> None:
    with pytest.raises(NotImplementedError, match=r"is left out: torch has deprecated torch.jit.script"):
        getattr(torchscript_patch, name)()
    with pytest.raises(NotImplementedError, match="export_torchscript_with_instances is left out"):
        torchscript.export_torchscript_with_instances(None, {})
