"""Memory, pickling, tracing, versions, stand-ins, and the report on the machine."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detectron2 import collect_env
from detectron2.layers import extension
from detectron2.utils import serialize
from detectron2.utils.develop import create_dummy_class, create_dummy_func
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.serialize import PicklableWrapper
from detectron2.utils.torch_version_utils import min_torch_version
from detectron2.utils.tracing import assert_fx_safe, is_fx_tracing, is_fx_tracing_legacy

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_full_gpu_is_retried_and_then_left(
    failures: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    calls: list[object] = []

    @retry_if_cuda_oom
    def double(x: torch.Tensor, *, flag: str) -> torch.Tensor:
        """Doubles."""
        calls.append(flag)
        if len(calls) <= failures:
            raise torch.OutOfMemoryError("full")
        return 2 * x

    assert double.__doc__ == "Doubles."
    if failures == 3:
        with pytest.raises(torch.OutOfMemoryError):
            double(torch.ones(1), flag="f")
        return
    assert double(torch.ones(1), flag="f").tolist() == [2.0]
    assert len(calls) == failures + 1
    assert len(emptied) == (failures > 0)


def test_other_errors_are_not_retried() -> None:
    calls: list[int] = []

    @retry_if_cuda_oom
    def fail() -> None:
        calls.append(1)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        fail()
    assert len(calls) == 1


def test_wrapper_calls_and_survives_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = PicklableWrapper(PicklableWrapper(len))
    assert wrapped([1, 2]) == 2
    assert wrapped.__name__ == "len"
    assert pickle.loads(pickle.dumps(wrapped))([1, 2, 3]) == 3
    monkeypatch.setattr(serialize.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pickle.PicklingError, match="install cloudpickle"):
        pickle.dumps(PicklableWrapper(lambda: 1))


def test_fx_tracing_is_noticed() -> None:
    seen: list[tuple[bool, bool]] = []

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((is_fx_tracing(), is_fx_tracing_legacy()))
            assert_fx_safe(x.sum() > 0, "must be positive")
            return x + 1

    module = Module()
    module(torch.ones(1))
    graph = torch.fx.symbolic_trace(module)
    assert seen == [(False, False), (True, True)]
    assert graph(torch.ones(1)).tolist() == [2.0]
    with pytest.raises(AssertionError, match="must be positive"):
        graph(-torch.ones(1))
    with pytest.raises(AssertionError, match="must be positive"):
        module(-torch.ones(1))


def test_torch_version() -> None:
    assert min_torch_version("2.4")
    assert min_torch_version(torch.__version__)
    assert min_torch_version("1.13.1")
    assert not min_torch_version("99.0")
    with pytest.raises(ValueError, match="expected a version"):
        min_torch_version("new")


def test_stand_ins_fail_with_what_to_install_when_used() -> None:
    kind = create_dummy_class("Fancy", "fancylib", "See its page.")
    assert kind.__name__ == "Fancy"
    for use in (kind, lambda: kind.method, create_dummy_func("fancy", ["a", "b"])):
        with pytest.raises(ImportError, match="needs (fancylib|a and b), which cannot be imported"):
            use()
    with pytest.raises(ImportError, match="See its page"):
        kind()


def test_report_names_versions_and_operators() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "detectron2.utils.collect_env"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    for part in ("detectron2", "torch", torch.__version__, "compiled operators", "GPU", "PyTorch built with"):
        assert part in result.stdout
    assert ("pip install" if extension.missing_reason() else "roi_align") in result.stdout


def test_architectures_of_a_library_need_the_toolkit(tmp_path: Path) -> None:
    assert "is not there" in collect_env.detect_compute_compatibility(str(tmp_path), "x.so")
    tool = tmp_path / "bin" / "cuobjdump"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho ELF file 1: x.1.sm_80.cubin\necho ELF file 2: x.2.sm_90.cubin\n")
    tool.chmod(0o755)
    assert collect_env.detect_compute_compatibility(str(tmp_path), "x.so") == "8.0, 9.0"
