"""Loading by exchange: little memory, and the way back; and subclasses that load in their own way."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.detection_checkpoint import IncompatibleKeys


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(first=nn.Linear(2, 4)))


class OwnLoader(DetectionCheckpointer):
    """Loads as projects do that know only the base class of fvcore."""

    def _load_model(self, checkpoint):
        result = self.model.load_state_dict(checkpoint.pop("model"), strict=False)
        return IncompatibleKeys(result.missing_keys, result.unexpected_keys, [])


def test_a_subclass_may_load_the_model_in_its_own_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = small_model(1).state_dict()
    torch.save({"model": state | {"extra.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    model = small_model()
    with caplog.at_level(logging.INFO):
        OwnLoader(model).load(str(tmp_path / "a.pth"))
    assert torch.equal(model.first.weight, state["first.weight"])
    assert caplog.records[-1].levelno == logging.WARNING
    assert "extra.weight" in caplog.records[-1].getMessage()
    torch.save({"model": state}, tmp_path / "b.pth")
    with caplog.at_level(logging.INFO):
        OwnLoader(model).load(str(tmp_path / "b.pth"))
    assert caplog.records[-1].getMessage() == "all tensors found their place"


class CountsBytes(TorchDispatchMode):
    """Follows how many bytes of copies, and of tensors that it is shown, are alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.clone.default:
            self.watch(result)
        return result

    def watch(self, tensor: Tensor) -> None:
        self.alive.add(tensor)
        self.most = max(self.most, sum(value.nbytes for value in self.alive))


def test_loading_holds_one_tensor_more_than_the_file(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(50, 50, bias=False) for _ in range(20)))
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    counter = CountsBytes()

    class Watched(DetectionCheckpointer):
        def _load_file(self, f):
            checkpoint = super()._load_file(f)
            for tensor in checkpoint["model"].values():
                counter.watch(tensor)
            return checkpoint

    size = sum(value.nbytes for value in model.state_dict().values())
    with counter:
        Watched(model).load(str(tmp_path / "a.pth"))
    assert size < counter.most <= size + size // 20


def test_weights_that_two_modules_share_come_back_when_a_load_fails(tmp_path: Path) -> None:
    class Fails:
        def load_state_dict(self, state):
            raise KeyError("momentum")

        def state_dict(self):
            return {}

    model = nn.Module()
    model.a = nn.Linear(2, 2)
    model.b = model.a
    model.c = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = ["a.weight", "b.weight", "c.bias"]
    state = {name: torch.full_like(before[name], number) for number, name in enumerate(names)}
    torch.save({"model": state, "picky": {}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="the state of picky does not fit"):
        DetectionCheckpointer(model, picky=Fails()).load(str(tmp_path / "a.pth"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert model.a.weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert model.c.bias.tolist() == [2.0, 2.0]
