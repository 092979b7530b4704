"""neptune-detectron2's hook follows a training of ours."""

from __future__ import annotations

from pathlib import Path

import neptune
import pytest
from neptune_detectron2 import NeptuneHook

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer


def test_the_hook_logs_a_run(
    small_cfg: CfgNode, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(scenes))
    monkeypatch.chdir(tmp_path)
    cfg = small_cfg.clone()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("shapes_panoptic_train",), ()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 8
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR = 2, 3, 1e-3
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    Path(cfg.OUTPUT_DIR).mkdir()
    run = neptune.init_run(mode="debug")
    logged: dict[str, list[float]] = {}
    handler_type = type(run["training"])
    append = handler_type.append

    def remember(self: object, value: float, *args: object, **kwargs: object) -> None:
        logged.setdefault(self._path, []).append(value)
        append(self, value, *args, **kwargs)

    monkeypatch.setattr(handler_type, "append", remember)
    trainer = DefaultTrainer(cfg)
    hook = NeptuneHook(run=run, metrics_update_freq=1, log_model=True, log_checkpoints=True)
    trainer.register_hooks([hook])
    trainer.train()
    run.stop()
    assert len(logged["training/metrics/total_loss"]) == 3
    # The hook saves with our checkpointer, uploads the file and removes it again.
    assert not list(Path(cfg.OUTPUT_DIR).glob("neptune_iter_*"))
