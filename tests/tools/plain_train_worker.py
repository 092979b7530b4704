"""Started by torchrun in test_plain_train_net.py: steps of the tool's loop, one process meeting a NaN."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from detectron2.engine import create_ddp_model, launch
from detectron2.utils import comm
from tests.engine.tiny import TinyModel, make_optimizer, make_samples


def train_and_report(script: str, folder: str) -> None:
    train_step = runpy.run_path(script)["train_step"]
    model = create_ddp_model(TinyModel())
    optimizer = make_optimizer(model)
    samples = make_samples(8)
    samples[7]["y"] = samples[7]["y"] * float("nan")
    losses, error = [], ""
    for step in range(2):
        first = 4 * step + 2 * comm.get_rank()
        try:
            losses.append(train_step(model, optimizer, samples[first : first + 2]))
        except FloatingPointError as raised:
            error = str(raised)
    Path(folder, f"rank{comm.get_rank()}.json").write_text(json.dumps({"losses": losses, "error": error}))


if __name__ == "__main__":
    launch(train_and_report, num_gpus_per_machine=0, args=(sys.argv[1], sys.argv[2]))
