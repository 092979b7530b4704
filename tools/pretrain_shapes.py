#!/usr/bin/env python
"""Pre-train the backbone of the quickstart on single rendered shapes: the ImageNet recipe in small.

Labels are those of a whole image: the class of its one shape, and the share of each ground. Examples come
from a random stream of their own, so that neither training nor validation scenes are seen. The result is the
backbone alone, in half precision, under the names that `DetectionCheckpointer` knows.

    python tools/pretrain_shapes.py --minutes 60 --output configs/Quickstart/res2net_shapes.safetensors

Stop it at any time; the same command continues from its last state, which is written every minute.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from detectron2.config import CfgNode, get_cfg
from detectron2.data.datasets.shapes import SPLIT_SEEDS, STUFF_NAMES, THING_NAMES, render_single
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone, build_res2net_backbone
from detectron2.utils.file_io import atomic_write
from detectron2.utils.logger import setup_logger
from detectron2.utils.precision import prefers_bfloat16
from detectron2.utils.user_errors import exit_on_user_error

logger = logging.getLogger("detectron2.pretrain_shapes")

_CONFIG = Path(__file__).parents[1] / "configs/Quickstart/panoptic_fpn_R2_shapes.yaml"
_HELD_OUT_START = 10**9  # examples from here on are never trained on
_LEVELS = ("res3", "res4", "res5")  # each of them learns to classify


class SingleShapes(Dataset):
    """The examples number `start` to `stop` of the pre-training stream."""

    def __init__(self, start: int, stop: int, side: int) -> None:
        self.start, self.stop, self.side = start, stop, side

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        """Return a (3, side, side) uint8 image, the class of its shape, and the share of each ground."""
        example = render_single(SPLIT_SEEDS["pretrain"], self.start + index, self.side)
        image = torch.from_numpy(np.ascontiguousarray(example.image.transpose(2, 0, 1)))
        return image, example.thing, torch.from_numpy(example.ground_shares)


def _known(channels: int | None) -> int:
    assert channels is not None, "backbones state their channels"
    return channels


class ShapeClassifier(nn.Module):
    """A backbone whose every deeper level votes on the shape and on the ground.

    Shape votes are pooled over positions by log-sum-exp, so that the place where the shape lies decides;
    ground votes are averaged.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, pixel_mean: list[float], pixel_std: list[float]) -> None:
        super().__init__()
        self.backbone = backbone
        shapes = backbone.output_shape()
        channels = {level: _known(shapes[level].channels) for level in _LEVELS}
        self.shape_heads = nn.ModuleDict({k: nn.Conv2d(channels[k], len(THING_NAMES), 1) for k in _LEVELS})
        self.ground_heads = nn.ModuleDict({k: nn.Conv2d(channels[k], len(STUFF_NAMES), 1) for k in _LEVELS})
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """(N, 3, S, S) uint8 -> per level, (N, things) and (N, grounds) logits in float32."""
        features = self.backbone((images.float() - self.pixel_mean) / self.pixel_std)
        logits = {}
        for level in _LEVELS:
            shape_votes = self.shape_heads[level](features[level]).float()
            ground_votes = self.ground_heads[level](features[level]).float()
            logits[level] = shape_votes.flatten(2).logsumexp(2), ground_votes.mean(dim=(2, 3))
        return logits


@dataclass
class Progress:
    """What a run has behind it."""

    iteration: int = 0
    seconds: float = 0.0


class Pretraining:
    """The run: model, optimizer, a schedule over minutes, and a state on disk."""

    def __init__(self, cfg: CfgNode, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.args = args
        self.budget = 60.0 * args.minutes
        backbone = build_res2net_backbone(cfg, ShapeSpec(channels=3))
        self.model = ShapeClassifier(backbone, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        others = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": args.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr)
        self.progress = Progress()
        self.state_path = args.state or f"{args.output}.state"
        self.bfloat16 = prefers_bfloat16() if args.precision == "auto" else args.precision == "bfloat16"
        if os.path.exists(self.state_path):
            self._load_state()

    def _load_state(self) -> None:
        state = torch.load(self.state_path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        logger.info("Continuing at iteration %d from %s", self.progress.iteration, self.state_path)

    def save_state(self) -> None:
        """Write all that a later call needs to continue."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        with atomic_write(self.state_path) as file:
            torch.save(state, file)

    def _learning_rate(self) -> float:
        done = min(self.progress.seconds / self.budget, 1.0)
        warm_up = min((self.progress.iteration + 1) / self.args.warmup_iterations, 1.0)
        return self.args.lr * warm_up * 0.5 * (1.0 + math.cos(math.pi * done))

    def _loader(self, start: int, stop: int) -> DataLoader:
        dataset = SingleShapes(start, stop, self.args.image_size)
        return DataLoader(
            dataset, self.args.batch_size, num_workers=self.args.workers, worker_init_fn=_one_thread
        )

    def _logits(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            return self.model(images.contiguous(memory_format=torch.channels_last))

    def _step(self, images: Tensor, shapes: Tensor, grounds: Tensor) -> float:
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        loss = torch.zeros(())
        for shape_logits, ground_logits in self._logits(images).values():
            loss = (
                loss + F.cross_entropy(shape_logits, shapes) + 0.5 * F.cross_entropy(ground_logits, grounds)
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        return float(loss.detach()) / len(_LEVELS)

    def run(self) -> None:
        """Train until the minutes are used up."""
        batch_size = self.args.batch_size
        loader = self._loader(self.progress.iteration * batch_size, _HELD_OUT_START // 2)
        last = last_save = last_log = time.perf_counter()
        losses: list[float] = []
        for images, shapes, grounds in loader:
            losses.append(self._step(images, shapes, grounds))
            now = time.perf_counter()
            self.progress.iteration += 1
            self.progress.seconds += now - last
            last = now
            finished = self.progress.seconds >= self.budget
            if finished or now - last_log > 20:
                self._log(losses)
                losses, last_log = [], now
            if finished or now - last_save > 60:
                self.save_state()
                last_save = now
            if finished:
                return

    def _log(self, losses: list[float]) -> None:
        left = max(self.budget - self.progress.seconds, 0.0)
        logger.info(
            "iteration %d  examples %d  loss %.3f  lr %.2e  left %d:%02d",
            self.progress.iteration,
            self.progress.iteration * self.args.batch_size,
            sum(losses) / max(len(losses), 1),
            self.optimizer.param_groups[0]["lr"],
            *divmod(round(left), 60),
        )

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Measure, per level, the share of held-out examples with the right shape and main ground."""
        self.model.eval()
        num_examples = self.args.held_out
        hits: dict[str, float] = {f"{what}_{level}": 0.0 for level in _LEVELS for what in ("shape", "ground")}
        for images, shapes, grounds in self._loader(_HELD_OUT_START, _HELD_OUT_START + num_examples):
            for level, (shape_logits, ground_logits) in self._logits(images).items():
                hits[f"shape_{level}"] += float((shape_logits.argmax(1) == shapes).sum())
                hits[f"ground_{level}"] += float((ground_logits.argmax(1) == grounds.argmax(1)).sum())
        return {name: round(count / num_examples, 4) for name, count in hits.items()}

    def export(self) -> None:
        """Write the backbone in half precision, with a description beside it and inside it."""
        weights = {
            name: tensor.half().contiguous()
            for name, tensor in self.model.backbone.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        description = {
            "made_by": "tools/pretrain_shapes.py",
            "iterations": self.progress.iteration,
            "examples": self.progress.iteration * self.args.batch_size,
            "minutes": round(self.progress.seconds / 60, 1),
            "image_size": self.args.image_size,
            "stream_seed": SPLIT_SEEDS["pretrain"],
            "parameters": sum(p.numel() for p in self.model.backbone.parameters()),
            "accuracy": self.evaluate(),
        }
        with atomic_write(self.args.output) as file:
            file.write(safetensors_bytes(weights, {"format": "pt", "description": json.dumps(description)}))
        with atomic_write(str(Path(self.args.output).with_suffix(".json")), "w") as file:
            file.write(json.dumps(description, indent=2) + "\n")
        logger.info("Wrote %s: %s", self.args.output, description)


def _one_thread(worker: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=str(_CONFIG), help="where the backbone is described")
    parser.add_argument("--output", required=True, help="the .safetensors file to write")
    parser.add_argument("--state", help="file that a later call continues from; default: OUTPUT.state")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time in all, over every call")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=96, help="height and width of the examples")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup-iterations", type=int, default=100)
    parser.add_argument("--workers", type=int, default=0, help="processes that render")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its default")
    parser.add_argument("--precision", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--held-out", type=int, default=1024, help="examples that measure the accuracy")
    parser.add_argument("--export-only", action="store_true", help="write the backbone of the last state")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train or continue, then write the backbone."""
    args = parse_args(argv)
    setup_logger(name="detectron2")
    if args.threads:
        torch.set_num_threads(args.threads)
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.MODEL.RESNETS.NORM = "BN"
    pretraining = Pretraining(cfg, args)
    logger.info("Training in %s", "bfloat16" if pretraining.bfloat16 else "float32")
    if not args.export_only:
        try:
            pretraining.run()
        except KeyboardInterrupt:
            pretraining.save_state()
            logger.info("Stopped; the same command continues")
            return
    pretraining.export()


if __name__ == "__main__":
    with exit_on_user_error():
        main()
