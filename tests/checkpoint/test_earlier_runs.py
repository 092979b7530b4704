"""A training that starts anew in a folder that is in use keeps the files that it would write over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from detectron2.checkpoint import DetectionCheckpointer, detection_checkpoint


def make_run(folder: Path, value: float, *, trains: bool = True) -> DetectionCheckpointer:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, value)
    parts = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1)} if trains else {}
    return DetectionCheckpointer(model, str(folder), **parts)


def weights_in(folder: Path) -> dict[str, float]:
    return {
        name: torch.load(folder / name, weights_only=True)["model"]["weight"].item()
        for name in sorted(os.listdir(folder))
        if name.endswith(".pth")
    }


def test_a_new_training_keeps_the_files_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for value in (1.0, 2.0, 3.0):
        monkeypatch.setattr(detection_checkpoint, "_written_here", set())  # as in a new process
        run = make_run(tmp_path, value)
        run.resume_or_load(str(tmp_path / "model_final.pth") if value > 1 else "", resume=False)
        nn.init.constant_(run.model.weight, value)
        for _ in range(2):
            run.save("model_final")
    assert weights_in(tmp_path) == {"model_final.pth": 3, "model_final_1.pth": 1, "model_final_2.pth": 2}
    assert sum("is of an earlier run" in message for message in caplog.messages) == 2
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_training_that_continues_writes_over_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, 1.0).save("model_final")
    monkeypatch.setattr(detection_checkpoint, "_written_here", set())
    run = make_run(tmp_path, 2.0)
    run.resume_or_load("", resume=True)
    nn.init.constant_(run.model.weight, 5.0)
    run.save("model_final")
    assert weights_in(tmp_path) == {"model_final.pth": 5}


def test_a_model_alone_is_written_where_one_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (1.0, 2.0):
        monkeypatch.setattr(detection_checkpoint, "_written_here", set())
        make_run(tmp_path, value, trains=False).save("model")
    assert weights_in(tmp_path) == {"model.pth": 2}
