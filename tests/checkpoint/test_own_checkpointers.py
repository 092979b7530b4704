"""Checkpointers as projects write them: one step of loading is theirs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts


def make_model() -> nn.Module:
    model = nn.Module()
    model.left_part = nn.Linear(2, 2)
    model.right_part = nn.Linear(2, 2)
    return model


def numbers(model: nn.Module, prefix: str = "") -> dict[str, np.ndarray]:
    return {
        prefix + name: np.full(value.shape, 7.0, np.float32) for name, value in model.state_dict().items()
    }


def is_seven(model: nn.Module) -> bool:
    return all(bool((value == 7).all()) for value in model.state_dict().values())


class LoadsByFvcore(DetectionCheckpointer):
    def _load_model(self, checkpoint: Any) -> Any:
        self._convert_ndarray_to_tensor(checkpoint["model"])
        return Checkpointer._load_model(self, checkpoint)


class LoadsIntoAPart(DetectionCheckpointer):
    def _load_model(self, checkpoint: Any) -> Any:
        state = {name: torch.as_tensor(value) for name, value in checkpoint.pop("model").items()}
        aligned = align_and_update_state_dicts(self.model.left_part.state_dict(), state, c2_conversion=False)
        self.model.left_part.load_state_dict(aligned, strict=False)


class TakesOffAPrefix(DetectionCheckpointer):
    def _load_model(self, checkpoint: Any) -> Any:
        state = checkpoint["model"]
        checkpoint["model"] = {name.removeprefix("student."): value for name, value in state.items()}
        incompatible = super()._load_model(checkpoint)
        assert incompatible.missing_keys == incompatible.unexpected_keys == []
        return incompatible


class ReadsItsOwnFiles(DetectionCheckpointer):
    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".txt"):
            return {"model": numbers(self.model), "matching_heuristics": True}
        return super()._load_file(filename)


class CountsTorchFiles(DetectionCheckpointer):
    count = 0

    def _torch_load(self, f: str) -> dict[str, Any]:
        self.count += 1
        return super()._torch_load(f)


def test_files_of_torch_are_read_by_a_step_of_their_own(tmp_path: Path) -> None:
    model = make_model()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(numbers(model)))
    checkpointer = CountsTorchFiles(model)
    for name in ("a.pth", "a.pkl"):
        checkpointer.load(str(tmp_path / name))
    assert checkpointer.count == 1
    assert is_seven(model)


@pytest.mark.parametrize("cls", [LoadsByFvcore, TakesOffAPrefix, ReadsItsOwnFiles, DetectionCheckpointer])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_a_step_of_loading_may_be_another(
    tmp_path: Path, cls: type[DetectionCheckpointer], suffix: str
) -> None:
    model = make_model()
    weights = numbers(model, "student." if cls is TakesOffAPrefix else "")
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save({"model": {k: torch.from_numpy(v) for k, v in weights.items()}, "iteration": 3}, path)
    else:
        path.write_bytes(pickle.dumps({"model": weights, "__author__": "somebody", "iteration": 3}))
    rest = cls(model).load(str(path))
    assert is_seven(model)
    assert rest["iteration"] == 3


def test_a_file_may_go_into_a_part_of_the_model(tmp_path: Path) -> None:
    model = make_model()
    torch.save({"model": {"weight": torch.full((2, 2), 7.0)}}, tmp_path / "a.pth")
    LoadsIntoAPart(model).load(str(tmp_path / "a.pth"))
    assert bool((model.left_part.weight == 7).all()) and not bool((model.right_part.weight == 7).any())


def test_files_of_other_kinds_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("seven")
    model = make_model()
    ReadsItsOwnFiles(model).load(str(tmp_path / "a.txt"))
    assert is_seven(model)


@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"blobs": weights}])
def test_a_pickle_of_names_that_all_match_is_left_alone(tmp_path: Path, wrap: Any) -> None:
    # As names of Caffe2, where "_" stands for a dot, these would be others.
    model = make_model()
    weights: Mapping[str, np.ndarray] = numbers(model)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(wrap(weights)))
    DetectionCheckpointer(model).load(str(tmp_path / "a.pkl"))
    assert is_seven(model)
