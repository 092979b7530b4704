"""Started by torchrun in test_launch.py: trains the tiny model and writes down what each process saw."""

from __future__ import annotations

import json
import sys

from detectron2.engine import SimpleTrainer, create_ddp_model, launch
from detectron2.utils import comm
from tests.engine.tiny import EndlessBatches, TinyModel, make_optimizer, make_samples


def train_and_report(folder: str, poison: str) -> None:
    rank, world_size = comm.get_rank(), comm.get_world_size()
    samples = make_samples(12)
    if poison == "poisoned":
        samples[5]["y"] = samples[5]["y"] * float("nan")  # the second process meets it in iteration 1
    batch_size = 4 // world_size
    own = [s for i, s in enumerate(samples) if i % 4 // batch_size == rank]
    model = create_ddp_model(TinyModel(seed=rank))  # which hands out the weights of rank 0
    trainer = SimpleTrainer(model, EndlessBatches(own, batch_size), make_optimizer(model))
    error = ""
    try:
        trainer.train(0, 6)
    except FloatingPointError as raised:
        error = str(raised)
    history = trainer.storage.histories()
    result = {
        "rank": rank,
        "world_size": world_size,
        "local": [comm.get_local_rank(), comm.get_local_size()],
        "losses": [value for value, _ in history["total_loss"].values()] if "total_loss" in history else [],
        "weights": [p.flatten().tolist() for p in model.parameters()],
        "iter": trainer.iter,
        "error": error,
    }
    with open(f"{folder}/rank{rank}.json", "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    launch(train_and_report, num_gpus_per_machine=0, args=(sys.argv[1], sys.argv[2]))
