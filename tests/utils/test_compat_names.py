"""Names of `utils` for others' code do what they did."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from detectron2.utils.offer import OFFERED, offer
from detectron2.utils.user_errors import UserNotImplementedError

env = importlib.import_module("detectron2.utils.env")
logger = importlib.import_module("detectron2.utils.logger")
tracing = importlib.import_module("detectron2.utils.tracing")
comm = importlib.import_module("detectron2.utils.comm")
analysis = importlib.import_module("detectron2.utils.analysis")
testing = importlib.import_module("detectron2.utils.testing")


def record(level: int) -> logging.LogRecord:
    return logging.LogRecord("detectron2.data", level, "file.py", 1, "message", (), None)


def test_formatter_abbreviates_and_colours() -> None:
    form = logger._ColorfulFormatter("%(name)s: %(message)s", root_name="detectron2", abbrev_name="d2")
    said = record(logging.INFO)
    assert form.format(said) == "d2.data: message" and said.name == "detectron2.data"
    assert form.format(record(logging.WARNING)) == "\033[31mWARNING\033[0m d2.data: message"
    assert form.format(record(logging.ERROR)).startswith("\033[4;31mERROR\033[0m ")
    other = logger._ColorfulFormatter("%(name)s", root_name="detectron", abbrev_name="d")
    assert other.format(said) == "detectron2.data"


def test_log_streams_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = logger._cached_log_stream(str(tmp_path / "log.txt"))
    stream.write("a line\n")
    assert (tmp_path / "log.txt").read_text() == "a line\n"
    assert logger._cached_log_stream(str(tmp_path / "log.txt")) is stream
    stream.close()
    assert logger._get_log_stream_buffer_size("log.txt") == 1
    assert logger._get_log_stream_buffer_size("s3://log.txt") == logger.DEFAULT_LOG_BUFFER_SIZE == 2**20
    monkeypatch.setenv(logger.D2_LOG_BUFFER_SIZE_KEY, "100")
    assert logger._get_log_stream_buffer_size("s3://log.txt") == 100


def test_opencv_keeps_off_opencl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_OPENCL_RUNTIME", "")
    cv2: Any = importlib.import_module("cv2")
    monkeypatch.setattr(
        cv2.ocl, "setUseOpenCL", lambda on: monkeypatch.setattr(cv2, "asked", on, raising=False)
    )
    env._configure_libraries()
    assert cv2.asked is False


def test_assertions_that_torch_fx_may_record() -> None:
    assert tracing._do_assert_fx_safe(True, "no") == 1
    with pytest.raises(AssertionError, match="no"):
        tracing._do_assert_fx_safe(False, "no")


def test_operators_are_counted_by_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("detectron2.analysis")
    monkeypatch.setattr(module, "flop_count_operators", lambda model, inputs: (model, inputs, "flops"))
    monkeypatch.setattr(module, "activation_count_operators", lambda model, inputs, **kw: (model, kw))
    assert analysis._wrapper_count_operators("m", [1], analysis.FLOPS_MODE) == ("m", [1], "flops")
    count = analysis._wrapper_count_operators("m", [1], analysis.ACTIVATIONS_MODE, handle=3)
    assert count == ("m", {"handle": 3})


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without")
def test_the_group_of_all_processes_moves_cpu_data(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert torch.distributed.get_backend(comm._get_global_gloo_group()) == "gloo"
    finally:
        comm.leave_groups()


def test_helpers_of_tests_are_left_out_or_skip() -> None:
    with pytest.raises(UserNotImplementedError, match="torch.jit.script"):
        testing.convert_scripted_instances(None)
    for name in ("_pytorch1111_symbolic_opset9_to", "_pytorch1111_symbolic_opset9_repeat_interleave"):
        with pytest.raises(UserNotImplementedError, match=f"{name} is left out: it wrote an operator"):
            getattr(testing, name)()
    assert callable(testing.skipIfOnCPUCI)


def test_an_offer_never_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OFFERED, __name__, {})
    marker = object()
    monkeypatch.setitem(globals(), "offered", marker)
    offer(__name__, offered=3, brought=4, lazily={"late": "pathlib:Path", "whole": "pathlib"})
    module: Any = importlib.import_module(__name__)
    assert module.offered is marker and module.brought == 4
    assert module.late is Path and module.whole.Path is Path
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing
    assert set(OFFERED[__name__]) == {"offered", "brought", "late", "whole"}
    for name in ("brought", "late", "whole", "__getattr__"):
        del vars(module)[name]
