"""Names of `engine` for others' code do what they did, and steps that they override are steps."""

from __future__ import annotations

import importlib
import socket
import sys
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, EvalHook, TrainerBase

defaults = importlib.import_module("detectron2.engine.defaults")
launch = sys.modules["detectron2.engine.launch"]


def test_source_is_coloured_where_pygments_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    colored = defaults._highlight("a: 1\n", "config.yaml")
    assert "\033[" in colored
    assert "\033[" in defaults._highlight("x = 1\n", "config.py") != colored
    monkeypatch.setitem(sys.modules, "pygments", None)
    assert defaults._highlight("a: 1\n", "config.yaml") == "a: 1\n"


def test_the_first_key_that_is_there() -> None:
    cfg = get_cfg()
    assert defaults._try_get_key(cfg, "NOTHING", "MODEL.DEVICE") == cfg.MODEL.DEVICE
    assert defaults._try_get_key(cfg, "NOTHING.AT.ALL", default=3) == 3
    lazy = OmegaConf.create({"train": {"output_dir": "here"}})
    assert defaults._try_get_key(lazy, "OUTPUT_DIR", "train.output_dir") == "here"


def test_precision_of_products() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        defaults._set_float32_precision("medium")
        assert torch.get_float32_matmul_precision() == "medium"
        defaults._set_float32_precision("")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_free_port_can_be_listened_at() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", launch._find_free_port()))


def test_an_overridden_evaluation_is_run() -> None:
    class Counting(EvalHook):
        count = 0

        def _do_eval(self) -> None:
            self.count += 1

    hook = Counting(1, lambda: pytest.fail("the step was overridden"))

    class Trainer(TrainerBase):
        def run_step(self) -> None: ...

    trainer = Trainer()
    trainer.register_hooks([hook])
    trainer.train(0, 3)
    assert hook.count == 3


def test_an_overridden_loop_is_run() -> None:
    class Own(DefaultTrainer):
        def __init__(self) -> None:
            self.cfg, self.start_iter, self.max_iter = get_cfg(), 3, 7
            self._last_eval_results: dict[str, Any] = {}

        def train_loop(self, start_iter: int, max_iter: int) -> None:
            self.seen = (start_iter, max_iter)

    trainer = Own()
    trainer.train()
    assert trainer.seen == (3, 7)
