#!/usr/bin/env python
"""Show that a restructuring moved no number by one bit: train and run small models, and keep fingerprints.

    python tools/fingerprint.py record before.json              # of the package that is imported
    python tools/fingerprint.py compare before.json             # with the package that is imported now
    python tools/fingerprint.py compare before.json after.json

An entry is a model of the zoo, seeded and mostly narrowed. It takes five steps of SGD on drawn images, and
then runs on images of other sizes. Kept are losses and metrics, and a SHA-256 over type, shape and bytes of
the seeded initialisation, the last gradients, parameters, buffers and every output; lone numbers are
hexadecimal floats. `compare` exits with 1 on any difference, and with 2 if the machines differ. PYTHONPATH
decides which package is imported.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import platform
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fingerprint_entries import ENTRIES, SMALL, Entry
from tabulate import tabulate
from torch import Tensor, nn

import detectron2
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.export import export_program
from detectron2.modeling import GeneralizedRCNN, PanopticFPN, build_model, find_tta_class
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes
from detectron2.utils.events import EventStorage

NUM_THREADS = 1
NUM_STEPS = 5
TRAIN_SIZES = ((128, 160), (150, 117))
TEST_SIZES = ((133, 170), (192, 144))
RESULT_SIZES = ((200, 255), (192, 144))

# Layers whose fresh weights are all but zero, so that every place looks the same to them.
WEAK_PARTS = ("rpn_head.conv", "subnet", "objectness_logits", "cls_score", "predictor", "offset")
GAIN = 1.5
NORM_RANGES = {
    "weight": (0.5, 0.9),
    "bias": (-0.1, 0.1),
    "running_mean": (-0.1, 0.1),
    "running_var": (0.8, 1.2),
}
BLOCK = 8  # pixels of one colour

Prints = dict[str, str]


def make_cfg(entry: Entry) -> CfgNode:
    is_yaml = entry.config.endswith(".yaml")
    cfg = model_zoo.get_config(entry.config) if is_yaml else get_cfg()
    for key, value in {**SMALL, **entry.overrides}.items():
        *sections, name = key.split(".")
        node = functools.reduce(getattr, sections, cfg)
        if name not in node:
            raise KeyError(f"the package has no config key {key}")
        # Not through `merge_from_list`, which makes other types of strings.
        node[name] = value
    return cfg


def make_model(entry: Entry, cfg: CfgNode) -> nn.Module:
    if entry.config.endswith(".yaml"):
        return build_model(cfg)
    lazy = model_zoo.get_config(entry.config).model
    lazy.num_classes, lazy.pixel_std = cfg.MODEL.RETINANET.NUM_CLASSES, list(cfg.MODEL.PIXEL_STD)
    lazy.test_score_thresh = cfg.MODEL.RETINANET.SCORE_THRESH_TEST
    return instantiate(lazy)


@torch.no_grad()
def perturb(model: nn.Module) -> None:
    """Leave the special case of fresh weights: norms that do nothing, scores that are all alike."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        for name, (low, high) in NORM_RANGES.items() if hasattr(module, "running_mean") else ():
            tensor = getattr(module, name)
            tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and any(part in name for part in WEAK_PARTS):
            alpha = GAIN / math.sqrt(parameter[0].numel())
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=alpha)


def draw_boxes(generator: torch.Generator, size: tuple[int, int], num_boxes: int = 5) -> Tensor:
    """(num_boxes, 4) XYXY in an image of that size."""
    corners, sides = torch.rand(2, num_boxes, 2, generator=generator)
    corners, sides = 0.55 * corners, 0.15 + 0.29 * sides
    return torch.cat([corners, corners + sides], dim=1) * torch.tensor([*size[::-1]] * 2)


def draw_instances(generator: torch.Generator, size: tuple[int, int], cfg: CfgNode) -> Instances:
    """Draw objects with everything that any of the models learns from; masks are triangles."""
    boxes = draw_boxes(generator, size)
    upper_left, lower_right = boxes.split(2, dim=1)
    sides = lower_right - upper_left
    angles = 180 * torch.rand(len(boxes), 1, generator=generator) - 90
    rotated = torch.cat([(upper_left + lower_right) / 2, sides, angles], dim=1)
    triangles = torch.cat([boxes, boxes[:, [0, 3]]], dim=1).double().numpy()
    polygons = PolygonMasks([[triangle] for triangle in triangles])
    num_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    keypoints = torch.rand(len(boxes), num_keypoints, 3, generator=generator)
    keypoints[..., :2] = upper_left[:, None] + sides[:, None] * keypoints[..., :2]
    keypoints[..., 2] = (3 * keypoints[..., 2]).floor()  # visibility
    is_rotated = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN"
    is_bitmask = cfg.INPUT.MASK_FORMAT == "bitmask"
    return Instances(
        size,
        gt_boxes=RotatedBoxes(rotated) if is_rotated else Boxes(boxes),
        gt_classes=torch.randint(cfg.MODEL.ROI_HEADS.NUM_CLASSES, (len(boxes),), generator=generator),
        gt_masks=BitMasks.from_polygon_masks(polygons, *size) if is_bitmask else polygons,
        gt_keypoints=Keypoints(keypoints),
    )


def draw_inputs(cfg: CfgNode, sizes: tuple[tuple[int, int], ...], seed: int) -> list[dict[str, Any]]:
    """Draw the inputs of a batch: coarse noise, so that neighbouring pixels have something in common."""
    generator = torch.Generator().manual_seed(seed)
    inputs = []
    for size, (height, width) in zip(sizes, RESULT_SIZES):
        pixels = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
        pixels = pixels[:, ::BLOCK, ::BLOCK].repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
        labels = torch.randint(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, size, generator=generator)
        labels[:BLOCK] = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        proposals = Instances(size, proposal_boxes=Boxes(draw_boxes(generator, size, 60)))
        proposals.objectness_logits = torch.linspace(2, -2, 60)
        drawn = {
            "image": pixels[:, : size[0], : size[1]].contiguous(),
            "instances": draw_instances(generator, size, cfg),
            "sem_seg": labels,
            "height": height,
            "width": width,
        }
        inputs.append({**drawn, "proposals": proposals} if cfg.MODEL.LOAD_PROPOSALS else drawn)
    return inputs


def digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + data.tobytes()).hexdigest()


def fingerprints(value: Any, path: str) -> Prints:
    """Map the name of everything inside a value to its digest, or to the number or text that it is."""
    if isinstance(value, Tensor):
        return {path: digest(value)}
    if isinstance(value, Instances):
        size = tuple(map(int, value.image_size))
        return {f"{path}.image_size": str(size), **fingerprints(value.get_fields(), path)}
    if hasattr(value, "tensor"):
        return fingerprints(value.tensor, path)
    if isinstance(value, (list, tuple)):
        value = {f"{index}": part for index, part in enumerate(value)}
    if isinstance(value, Mapping):
        parts = (fingerprints(value[key], f"{path}.{key}") for key in sorted(value))
        return {name: text for part in parts for name, text in part.items()}
    return {path: value.hex() if isinstance(value, float) else str(value)}


def named_fingerprints(tensors: Iterable[tuple[str, Tensor | None]], prefix: str) -> Prints:
    return {f"{prefix}.{name}": "none" if x is None else digest(x) for name, x in tensors}


def train(model: nn.Module, cfg: CfgNode) -> tuple[Prints, list[float]]:
    """Take the steps; returns the fingerprints of all that happens, and the sum of losses of every step."""
    prints: Prints = {}
    totals: list[float] = []
    optimizer = build_optimizer(cfg, model)
    model.train()
    with EventStorage() as storage:
        for step in range(NUM_STEPS):
            losses = model(draw_inputs(cfg, TRAIN_SIZES, seed=10 + step))
            total = sum(losses.values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            storage.step()
            totals.append(total.item())
            prints |= fingerprints({name: loss.item() for name, loss in losses.items()}, f"step {step}")
        metrics = {name: float(value) for name, (value, _) in storage.latest().items()}
    assert all(map(math.isfinite, totals)), f"losses are not finite: {totals}"
    gradients = ((name, parameter.grad) for name, parameter in model.named_parameters())
    prints |= fingerprints(metrics, "metrics") | named_fingerprints(gradients, "gradient")
    return prints | named_fingerprints(model.state_dict().items(), "state"), totals


@torch.no_grad()
def predict(model: nn.Module, cfg: CfgNode, action: str) -> list[dict[str, Any]]:
    """Run the model, its augmented self or the program exported from it on images of other sizes."""
    inputs = draw_inputs(cfg, TEST_SIZES, seed=20)
    if action == "export":
        program = export_program(model).module()
        return [program(x["image"].float()) for x in inputs]
    return (find_tta_class(cfg)(cfg, model) if action == "augment" else model)(inputs)


@torch.no_grad()
def predict_raw(model: nn.Module, cfg: CfgNode) -> list[Any]:
    """Results before postprocessing, where masks are still probabilities; from given boxes too."""
    inputs = draw_inputs(cfg, TEST_SIZES, seed=20)
    if isinstance(model, PanopticFPN):
        return [model.inference(inputs, do_postprocess=False)]
    if not isinstance(model, GeneralizedRCNN):
        return []
    found = model.inference(inputs, do_postprocess=False)
    names = ("pred_boxes", "pred_classes", "scores")
    given = [Instances(x.image_size, **{name: x.get(name) for name in names}) for x in found]
    return [found, model.inference(inputs, given, do_postprocess=False)]


def describe_output(output: dict[str, Any]) -> str:
    """Say how much was found in an image, and refuse an output that holds nothing."""
    counts: dict[str, int] = {
        name: len(output[name]) for name in ("instances", "proposals", "scores") if name in output
    }
    if "panoptic_seg" in output:
        segments = output["panoptic_seg"][1]
        counts["things"] = sum(segment["isthing"] for segment in segments)
        counts["stuff"] = len(segments) - counts["things"]
    if "sem_seg" in output:
        counts["classes of pixels"] = len(output["sem_seg"].argmax(dim=0).unique())
    assert counts and all(counts.values()), f"an output without content is no fingerprint: {counts}"
    return ", ".join(f"{count} {name}" for name, count in counts.items())


@contextmanager
def reproducible() -> Iterator[None]:
    """Seed every generator and let torch choose deterministic algorithms; settings are restored."""
    threads = torch.get_num_threads()
    mode = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(NUM_THREADS)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])


def record_entry(name: str) -> dict[str, Any]:
    """Run an entry; returns its summary and fingerprints in the order in which they came about."""
    entry = ENTRIES[name]
    with reproducible():
        cfg = make_cfg(entry)
        model = make_model(entry, cfg)
        prints = named_fingerprints(model.state_dict().items(), "initial")
        perturb(model)
        totals: list[float] = []
        if entry.action == "train":
            trained, totals = train(model, cfg)
            prints |= trained
        outputs = predict(model.eval(), cfg, entry.action)
        prints |= fingerprints(outputs, "output") | fingerprints(predict_raw(model, cfg), "raw")
    found = "; ".join(map(describe_output, outputs))
    return {"losses": [total.hex() for total in totals], "found": found, "fingerprints": prints}


def environment() -> dict[str, str]:
    """What numbers depend on besides the package."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "CPU": models[0] if models else platform.processor() or platform.machine(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(NUM_THREADS),
        "compiled operators": str(hasattr(torch.ops.detectron2, "nms")),
    }


def record(names: list[str]) -> dict[str, Any]:
    print(f"package: {detectron2.__file__}", file=sys.stderr)
    entries = {}
    for name in names:
        start = time.perf_counter()
        entries[name] = record_entry(name)
        print(f"{name}: {time.perf_counter() - start:.1f} s, {entries[name]['found']}", file=sys.stderr)
    return {"package": detectron2.__file__, "environment": environment(), "entries": entries}


def differences(before: Prints, after: Prints) -> list[str]:
    """Names of what differs, in the order of `before`; a changed order counts."""
    if not before or not after:
        return [f"not recorded {'after' if before else 'before'}"]
    names = [
        f"{name} {'is missing' if name not in after else 'is new' if name not in before else 'differs'}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]
    if before.keys() == after.keys() and list(before) != list(after):
        was, now = next(pair for pair in zip(before, after) if pair[0] != pair[1])
        names.append(f"{now} stands where {was} stood")
    return names


def compare(before: dict[str, Any], after: dict[str, Any], names: list[str]) -> bool:
    """Print a row per entry and the name of everything that differs; returns whether all is equal."""
    print(f"before: {before['package']}\nafter:  {after['package']}\n")
    rows, details = [], []
    for name in names:
        pair = [recorded["entries"].get(name, {}).get("fingerprints", {}) for recorded in (before, after)]
        differing = differences(*pair)
        rows.append([name, *map(len, pair), f"{len(differing)} differ" if differing else "equal"])
        details += [f"{name}: {line}" for line in differing]
    print(tabulate(rows, ["entry", "before", "after", "result"], tablefmt="github"))
    if details:
        print("", *details, sep="\n")
    return not details


def describe_mismatch(before: dict[str, str], after: dict[str, str]) -> str:
    """Say what differs between two environments; empty if nothing does."""
    return "; ".join(
        f"{key} was {before.get(key)} and is {after.get(key)}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=("record", "compare"))
    parser.add_argument("files", nargs="*", type=Path, help="one to record; one or two to compare")
    parser.add_argument("--only", nargs="+", choices=ENTRIES, metavar="NAME", help="entries, by default all")
    parser.add_argument("--list", action="store_true", help="print the names of all entries")
    parser.add_argument("--force", action="store_true", help="compare what other machines recorded")
    args = parser.parse_args(arguments)
    if args.list:
        print(*ENTRIES, sep="\n")
        return 0
    if args.action is None or not 1 <= len(args.files) <= (2 if args.action == "compare" else 1):
        parser.error("say `record FILE`, `compare FILE` or `compare FILE FILE`")
    if args.action == "record":
        recorded = json.dumps(record(args.only or list(ENTRIES)), indent=1)
        args.files[0].write_text(recorded + "\n", encoding="utf-8")
        return 0
    before, *rest = (json.loads(file.read_text(encoding="utf-8")) for file in args.files)
    mismatch = describe_mismatch(before["environment"], rest[0]["environment"] if rest else environment())
    if mismatch and not args.force:
        print(f"Not compared: {mismatch}. Record both on one machine, or pass --force.", file=sys.stderr)
        return 2
    names = args.only or list({**before["entries"], **(rest[0]["entries"] if rest else {})})
    return 0 if compare(before, rest[0] if rest else record(names), names) else 1


if __name__ == "__main__":
    sys.exit(main())
