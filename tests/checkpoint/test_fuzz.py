"""Hundreds of broken and hostile files: none runs code, none touches the model, each is told apart.

See `hostile_files.py` for the files.
"""

from __future__ import annotations

import copyreg
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer

from .hostile_files import CANARY_VARIABLE, Case, all_cases, equal, good_files, good_state, make_model

CASES = all_cases()


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that the hostile ones would make; it must not be there after the test."""
    path = tmp_path / "canary"
    monkeypatch.setenv(CANARY_VARIABLE, str(path))
    monkeypatch.chdir(tmp_path)
    yield path
    assert not path.exists(), "code of the file was run"


@pytest.fixture(scope="module", autouse=True)
def extension() -> Iterator[None]:
    """Extension code 240 stands for `os.system`, for files that call by number."""
    copyreg.add_extension("os", "system", 240)
    yield
    copyreg.remove_extension("os", "system", 240)


def test_there_are_many_and_they_have_names_of_their_own() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_canary_works(canary: Path) -> None:
    hostile = next(case for case in CASES if case.name == "pkl-reduce-os.system")
    pickle.loads(hostile.content)
    assert canary.exists()
    canary.unlink()


@pytest.mark.parametrize("kind", good_files())
def test_undamaged_files_load(tmp_path: Path, kind: str) -> None:
    suffix, content = good_files()[kind]
    (tmp_path / f"a{suffix}").write_bytes(content)
    model = make_model()
    DetectionCheckpointer(model).load(str(tmp_path / f"a{suffix}"))
    assert equal(model.state_dict(), good_state())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_file_is_refused_and_the_model_stays_as_it_was(tmp_path: Path, case: Case) -> None:
    path = tmp_path / f"file{case.suffix}"
    path.write_bytes(case.content)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        DetectionCheckpointer(model, optimizer=optimizer).load(str(path))
    except ValueError as error:
        message = str(error)
        assert str(path) in message
        assert len(message) < 1000
        assert equal(model.state_dict(), before)
    else:
        assert not case.is_refused, "it was loaded"
    assert os.listdir(tmp_path) == [path.name]


def test_archives_without_checksums_load(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": good_state()}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    model = make_model()
    DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert equal(model.state_dict(), good_state())


class _Picky:
    """Takes a part of a state, then finds something wrong with it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise KeyError("momentum")


def test_a_state_that_does_not_fit_leaves_the_weights_too(tmp_path: Path) -> None:
    torch.save({"model": good_state(), "picky": {}}, tmp_path / "a.pth")
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"a\.pth: the state of picky does not fit \(KeyError: 'momentum'\)"):
        DetectionCheckpointer(model, picky=_Picky(model)).load(str(tmp_path / "a.pth"))
    assert equal(model.state_dict(), before)
    DetectionCheckpointer(model, picky=_Picky(model)).load(str(tmp_path / "a.pth"), checkpointables=[])
    assert equal(model.state_dict(), good_state())


def test_a_diverged_last_checkpoint_names_the_one_before(tmp_path: Path) -> None:
    model = make_model()
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model_1")
    nn.init.constant_(model.last.bias, float("nan"))
    checkpointer.save("model_2")
    message = r"model_2\.pth: last\.bias is NaN in 3 of 3 values: .*previous checkpoint is .*model_1\.pth"
    with pytest.raises(ValueError, match=message):
        DetectionCheckpointer(make_model(), str(tmp_path)).resume_or_load("", resume=True)


def test_infinities_are_weights(tmp_path: Path) -> None:
    state = good_state() | {"first.bias": torch.full((4,), float("-inf"))}
    torch.save({"model": state}, tmp_path / "a.pth")
    model = make_model()
    DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
    assert equal(model.state_dict(), state)


def test_damaged_archives_never_load_other_weights(tmp_path: Path) -> None:
    """Torch's archives have checksums: a flipped bit is noticed, or was in a byte without meaning."""
    allowed = good_state()
    for case in CASES:
        if not case.name.startswith("zip-flip"):
            continue
        (tmp_path / "a.pth").write_bytes(case.content)
        model = make_model()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            DetectionCheckpointer(model).load(str(tmp_path / "a.pth"))
        except ValueError:
            assert equal(model.state_dict(), before)
        else:
            assert equal(model.state_dict(), allowed), case.name
