"""Preparing a run: arguments, logs, the output folder, seeds, writers."""

from __future__ import annotations

import argparse
import os
import random
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.engine import create_ddp_model, default_argument_parser, default_setup, default_writers
from detectron2.utils import env
from detectron2.utils.events import CommonMetricPrinter, JSONWriter, TensorboardXWriter


@pytest.fixture(autouse=True)
def _keep_global_state() -> Iterator[None]:
    """Undo what default_setup sets for the whole process."""
    numpy_state, python_state, torch_state = np.random.get_state(), random.getstate(), torch.get_rng_state()
    benchmark, precision = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    yield
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    torch.set_rng_state(torch_state)
    torch.backends.cudnn.benchmark = benchmark
    torch.set_float32_matmul_precision(precision)


def make_cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder)
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.parametrize("as_module", [True, False])
def test_the_user_s_own_set_up_runs_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_module: bool
) -> None:
    (tmp_path / "own_set_up.py").write_text(
        "import os\ndef setup_environment():\n    os.environ['OWN_SET_UP'] = 'done'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_set_up" if as_module else str(tmp_path / "own_set_up.py")
    monkeypatch.setenv("DETECTRON2_ENV_MODULE", name)
    monkeypatch.setenv("OWN_SET_UP", "not yet")
    monkeypatch.setattr(env, "_ENV_SETUP_DONE", False)
    default_setup(make_cfg(tmp_path / "out"), argparse.Namespace())
    assert os.environ["OWN_SET_UP"] == "done"


def test_parser_reads_the_documented_command_line() -> None:
    args = default_argument_parser().parse_args(
        "--config-file a.yaml --num-gpus 0 --resume MODEL.DEVICE cpu SOLVER.BASE_LR -1".split()
    )
    assert (args.config_file, args.num_gpus, args.resume, args.eval_only) == ("a.yaml", 0, True, False)
    assert (args.num_machines, args.machine_rank, args.dist_url) == (1, 0, "auto")
    assert args.opts == ["MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "-1"]


def test_parser_has_defaults_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    args = default_argument_parser().parse_args([])
    assert (args.config_file, args.num_gpus, args.opts) == ("", 1, [])
    with pytest.raises(SystemExit):
        default_argument_parser(epilog="see the manual").parse_args(["--help"])
    assert "see the manual" in capsys.readouterr().out


def test_setup_saves_a_config_that_reloads_equal(tmp_path: Path) -> None:
    cfg = make_cfg(tmp_path / "new" / "folder")
    default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
    saved = get_cfg()
    saved.merge_from_file(os.path.join(cfg.OUTPUT_DIR, "config.yaml"))
    assert saved == cfg
    assert [path.name for path in Path(cfg.OUTPUT_DIR).iterdir() if path.suffix == ".tmp"] == []


def test_setup_takes_lazy_configs(tmp_path: Path) -> None:
    cfg = OmegaConf.create({"train": {"output_dir": str(tmp_path), "seed": 5}, "model": {"depth": 50}})
    draws = []
    for _ in range(2):
        default_setup(cfg, argparse.Namespace())
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[1]
    assert LazyConfig.load(str(tmp_path / "config.yaml")) == cfg


def test_setup_writes_a_log_with_the_environment(tmp_path: Path) -> None:
    default_setup(make_cfg(tmp_path), argparse.Namespace())
    log = (tmp_path / "log.txt").read_text()
    assert torch.__version__ in log
    assert "Process 0 of 1" in log


def test_setup_seeds_every_generator(tmp_path: Path) -> None:
    cfg = make_cfg(tmp_path)
    cfg.SEED = 11
    draws = []
    for _ in range(2):
        default_setup(cfg, argparse.Namespace())
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_setup_sets_backends_and_leaves_benchmarking_out_of_evaluation(tmp_path: Path) -> None:
    cfg = make_cfg(tmp_path)
    cfg.CUDNN_BENCHMARK = True
    cfg.FLOAT32_PRECISION = "high"
    torch.backends.cudnn.benchmark = False
    default_setup(cfg, argparse.Namespace(eval_only=True))
    assert not torch.backends.cudnn.benchmark
    default_setup(cfg, argparse.Namespace(eval_only=False))
    assert torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "high"


def test_output_folder_that_is_a_file_is_an_error_before_work_starts(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="cannot be written to.*OUTPUT_DIR") as info:
        default_setup(make_cfg(tmp_path / "taken" / "out"), argparse.Namespace())
    assert "taken" in str(info.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_read_only_output_folder_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OSError, match="cannot be written to"):
            default_setup(make_cfg(tmp_path), argparse.Namespace())
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_full_disk_is_found_when_the_folder_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detectron2.engine.defaults.output_folder.tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError, match="No space left"):
        default_setup(make_cfg(tmp_path), argparse.Namespace())


def test_writers_of_a_run_that_never_starts_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writers = default_writers(str(tmp_path / "out"), max_iter=5)
    assert [type(writer) for writer in writers] == [CommonMetricPrinter, JSONWriter, TensorboardXWriter]
    assert sum("TensorBoard" in message for message in caplog.messages) == 1
    for writer in writers:
        writer.close()
    assert list((tmp_path / "out").iterdir()) == []


def test_one_process_needs_no_wrapper() -> None:
    model = nn.Linear(1, 1)
    assert create_ddp_model(model, broadcast_buffers=False) is model
