"""What is said of operators that are not compiled."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch

from detectron2.layers import extension, nms


@pytest.fixture
def warnings_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    """Begin as a new process does, and catch what the module logs."""
    monkeypatch.setattr(extension, "_WARNED", set())
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="detectron2.layers.extension")
    return caplog


def suppress() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5]])
    assert nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]


def test_missing_operators_are_told_once_at_their_first_use(
    monkeypatch: pytest.MonkeyPatch, warnings_of: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(extension, "_KERNELS", {})
    monkeypatch.setattr(extension, "_MISSING_REASON", "detectron2._C is not built; run the installer")
    assert not warnings_of.records
    suppress()
    suppress()
    (record,) = warnings_of.records
    assert record.levelname == "WARNING"
    assert "plain PyTorch on the device 'cpu'" in record.getMessage()
    assert "detectron2._C is not built; run the installer" in record.getMessage()


def test_who_turned_operators_off_needs_no_warning(
    monkeypatch: pytest.MonkeyPatch, warnings_of: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(extension, "_KERNELS", {})
    monkeypatch.setattr(extension, "_MISSING_REASON", "turned off by D2_DISABLE_OPS")
    suppress()
    assert not warnings_of.records


def test_a_build_without_cuda_is_told_on_a_gpu_only(
    monkeypatch: pytest.MonkeyPatch, warnings_of: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(extension, "_KERNELS", {("nms", "cpu"): torch.ops.aten.add.default})
    monkeypatch.setattr(extension, "_MISSING_REASON", "")
    assert extension.find_operator("nms_rotated", torch.device("cpu")) is None
    assert extension.find_operator("nms", torch.device("mps")) is None
    assert not warnings_of.records
    assert extension.find_operator("nms", torch.device("cuda")) is None
    (record,) = warnings_of.records
    assert "on the device 'cuda'" in record.getMessage() and "built without kernels" in record.getMessage()


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:DeprecationWarning")
def test_a_trace_of_plain_python_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "_KERNELS", {})
    monkeypatch.setattr(extension, "_WARNED", {"cpu"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.jit.trace(lambda boxes: nms(boxes, boxes[:, 0], 0.5), (torch.rand(3, 4),), check_trace=False)
    assert any("nms runs in plain Python here" in str(warning.message) for warning in caught)
