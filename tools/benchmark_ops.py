#!/usr/bin/env python3
"""Time every operator as compiled, in plain PyTorch and, where it is installed, in torchvision.

Multi-scale deformable attention is also timed as projects without the operator compute it, by grid_sample.
Contenders take turns, so that a busy moment of the machine hits all of them. What is shown are medians, or
with --shortest the shortest times, which say more where other programs run.

    python tools/benchmark_ops.py                      # on the CPU, with all threads
    python tools/benchmark_ops.py --device cuda
    python tools/benchmark_ops.py --only nms roi_align --rounds 20
"""

from __future__ import annotations

import argparse
import functools
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F

from detectron2.layers import (
    batched_nms,
    extension,
    mask_ops,
    modulated_deform_conv,
    ms_deform_attn,
    nms,
    nms_rotated,
    pairwise_iou_rotated,
    roi_align,
    roi_align_rotated,
)
from detectron2.layers.deform_conv import deform_conv
from detectron2.utils.user_errors import exit_on_user_error

IMAGE_SIZE = (800, 1216)
Work = Callable[[], Any]


# What compiled operators are compared with: their plain form, and others where there are any.
OTHERS = ("plain PyTorch", "torchvision", "grid_sample")


class Task(NamedTuple):
    """What is timed: the package's function on some inputs, and torchvision's or another form of it."""

    name: str
    ours: Work
    other: Work | None
    other_name: str = "torchvision"


def make_boxes(count: int, device: torch.device) -> Tensor:
    """(count, 4) XYXY boxes of all sizes in an image."""
    generator = torch.Generator().manual_seed(count)
    size = torch.tensor([IMAGE_SIZE[1], IMAGE_SIZE[0]], dtype=torch.float32)
    center = torch.rand(count, 2, generator=generator) * size
    extent = 8 * 50 ** torch.rand(count, 2, generator=generator)  # 8 to 400 pixels
    return torch.cat([(center - extent / 2).clamp(min=0), (center + extent / 2).minimum(size)], dim=1).to(
        device
    )


def make_rotated_boxes(count: int, device: torch.device) -> Tensor:
    """(count, 5) boxes at all angles."""
    x1, y1, x2, y2 = make_boxes(count, device).unbind(dim=1)
    angle = torch.rand(count, generator=torch.Generator().manual_seed(1)).to(device) * 180 - 90
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 + 1, y2 - y1 + 1, angle], dim=1)


def suppression_tasks(device: torch.device, vision: Any) -> list[Task]:
    tasks = []
    for count in (2000, 8000):
        boxes, scores = make_boxes(count, device), torch.rand(count, device=device)
        other = vision and functools.partial(vision.nms, boxes, scores, 0.7)
        tasks.append(Task(f"nms, {count} boxes", functools.partial(nms, boxes, scores, 0.7), other))
    boxes, scores = make_boxes(4000, device), torch.rand(4000, device=device)
    classes = torch.randint(0, 80, (4000,), device=device)
    other = vision and functools.partial(vision.batched_nms, boxes, scores, classes, 0.5)
    ours = functools.partial(batched_nms, boxes, scores, classes, 0.5)
    tasks.append(Task("batched_nms, 4000 boxes, 80 classes", ours, other))
    turned = make_rotated_boxes(1000, device)
    ours = functools.partial(nms_rotated, turned, scores[:1000], 0.5)
    tasks.append(Task("nms_rotated, 1000 boxes", ours, None))
    ours = functools.partial(pairwise_iou_rotated, turned, turned)
    tasks.append(Task("box_iou_rotated, 1000 x 1000", ours, None))
    return tasks


def pooling_tasks(device: torch.device, vision: Any) -> list[Task]:
    features = torch.randn(1, 256, 200, 304, device=device)
    image = torch.zeros(512, 1, device=device)
    rois = torch.cat([image, make_boxes(512, device)], dim=1)
    turned_rois = torch.cat([image, make_rotated_boxes(512, device)], dim=1)
    tasks = []
    for ratio in (0, 2):
        settings = ((7, 7), 0.25, ratio)
        ours = functools.partial(roi_align, boxes=rois, output_size=(7, 7), spatial_scale=0.25)
        ours = functools.partial(ours, sampling_ratio=ratio, aligned=True)
        theirs = vision and (lambda x, s=settings: vision.roi_align(x, rois, *s, True))
        turned = lambda x, s=settings: roi_align_rotated(x, turned_rois, *s)  # noqa: E731
        for name, function, other in (("roi_align", ours, theirs), ("roi_align_rotated", turned, None)):
            label = f"{name}, 512 boxes, 256 channels, sampling_ratio {ratio}"
            tasks += both_passes(label, function, other, [features])
    return tasks


def convolution_tasks(device: torch.device, vision: Any) -> list[Task]:
    x, weight = torch.randn(1, 256, 64, 100, device=device), torch.randn(256, 256, 3, 3, device=device)
    offset, mask = torch.randn(1, 18, 64, 100, device=device), torch.rand(1, 9, 64, 100, device=device)
    plain = lambda x, o, w: deform_conv(x, o, w, padding=1)  # noqa: E731
    modulated = lambda x, o, m, w: modulated_deform_conv(x, o, m, w, padding=1)  # noqa: E731
    theirs = vision and (lambda x, o, w: vision.deform_conv2d(x, o, w, padding=1))
    theirs_modulated = vision and (lambda x, o, m, w: vision.deform_conv2d(x, o, w, padding=1, mask=m))
    return [
        *both_passes("deform_conv, 256 channels of 64 x 100", plain, theirs, [x, offset, weight]),
        *both_passes("deform_conv with mask", modulated, theirs_modulated, [x, offset, mask, weight]),
    ]


def attention_tasks(device: torch.device, vision: Any) -> list[Task]:
    """The encoders of Deformable DETR and Mask2Former, and a decoder of 300 queries: 8 heads, 4 points."""
    detr = ((100, 134), (50, 67), (25, 34), (13, 17))
    tasks = []
    for name, sizes, num_queries in (
        ("4 levels, 17821 queries", detr, None),
        ("3 levels, 12096 queries", ((96, 96), (48, 48), (24, 24)), None),
        ("4 levels, 300 queries", detr, 300),
    ):
        inputs, shapes, starts = make_attention_inputs(sizes, num_queries, device)
        ours = lambda v, s, w, h=shapes, b=starts: ms_deform_attn(v, h, b, s, w)  # noqa: E731
        other = lambda v, s, w, sizes=sizes: attend_by_grid_sample(v, sizes, s, w)  # noqa: E731
        passes = both_passes(f"ms_deform_attn, {name}", ours, other, inputs)
        tasks += [task._replace(other_name="grid_sample") for task in passes]
    return tasks


def make_attention_inputs(
    sizes: Sequence[tuple[int, int]], num_queries: int | None, device: torch.device
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Value, locations and weights, and the levels; queries are the cells unless their number is given."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor(sizes)
    starts = shapes.prod(dim=1).cumsum(0) - shapes.prod(dim=1)
    if num_queries is None:
        axes = [((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w) for h, w in sizes]
        places = torch.cat([torch.cartesian_prod(y, x).flip(1) for y, x in axes])  # (Q, 2)
    else:
        places = torch.rand(num_queries, 2, generator=generator)
    num_cells = int(shapes.prod(dim=1).sum())
    value = torch.randn(1, num_cells, 8, 32, generator=generator)
    # A few cells away, in a direction of each head's own, as the layers of such models begin.
    spread = torch.randn(1, len(places), 8, len(sizes), 4, 2, generator=generator) * 3
    where = places[:, None, None, None] + spread / shapes.flip(1)[:, None]
    weights = torch.rand(1, len(places), 8, len(sizes), 4, generator=generator)
    return [tensor.to(device) for tensor in (value, where, weights)], shapes.to(device), starts.to(device)


def attend_by_grid_sample(
    value: Tensor, sizes: Sequence[tuple[int, int]], where: Tensor, weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention as it is computed without an operator: level by level, then summed."""
    num_images, _, num_heads, channels = value.shape
    sampled = []
    for level, features in enumerate(value.split([h * w for h, w in sizes], dim=1)):
        image = features.permute(0, 2, 3, 1).reshape(num_images * num_heads, channels, *sizes[level])
        grid = 2 * where[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1  # (N*M, Q, P, 2)
        sampled.append(F.grid_sample(image, grid, align_corners=False))  # (N*M, D, Q, P)
    factors = weights.transpose(1, 2).flatten(3).flatten(0, 1)[:, None]  # (N*M, 1, Q, L*P)
    output = (torch.cat(sampled, dim=3) * factors).sum(dim=3)  # (N*M, D, Q)
    return output.view(num_images, num_heads * channels, -1).transpose(1, 2).contiguous()


def pasting_tasks(device: torch.device, vision: Any) -> list[Task]:
    arguments = (torch.rand(100, 28, 28, device=device), make_boxes(100, device), IMAGE_SIZE)
    bitmaps = functools.partial(mask_ops.paste_masks_in_image, *arguments)
    codes = functools.partial(mask_ops.paste_masks_to_rle, *arguments)
    return [
        Task("paste_masks, 100 masks in 800 x 1216", bitmaps, None),
        Task("paste_masks_rle, 100 masks in 800 x 1216", codes, None),
    ]


def both_passes(
    name: str, ours: Callable[..., Tensor], other: Callable[..., Tensor] | None, inputs: Sequence[Tensor]
) -> list[Task]:
    """A task for the forward and one for the backward pass of a function; the latter excludes the former."""

    def forward(function: Callable[..., Tensor]) -> Work:
        return torch.no_grad()(functools.partial(function, *inputs))

    def backward(function: Callable[..., Tensor]) -> Work:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        graphs: dict[bool, Tensor] = {}

        def run() -> Any:
            # The graph is made where it is first used: with or without compiled operators.
            key = bool(extension._KERNELS)
            if key not in graphs:
                graphs[key] = function(*leaves)
            output = graphs[key]
            return torch.autograd.grad(output, leaves, torch.ones_like(output), retain_graph=True)

        return run

    return [
        Task(f"{name}: {label}", make(ours), make(other) if other else None)
        for label, make in (("forward", forward), ("backward", backward))
    ]


def seconds(work: Work, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def time_task(
    task: Task, device: torch.device, rounds: int, choose: Callable[[list[float]], float]
) -> dict[str, float]:
    """Milliseconds of each contender: what `choose` makes of its measurements."""
    without_operators = mock.patch.dict(extension._KERNELS, clear=True)
    times: dict[str, list[float]] = {}
    for index in range(rounds + 1):  # the first one warms up
        contenders: dict[str, float] = {}
        if not extension.missing_reason():
            contenders["compiled"] = seconds(task.ours, device)
        with without_operators:
            contenders["plain PyTorch"] = seconds(task.ours, device)
        if task.other is not None:
            contenders[task.other_name] = seconds(task.other, device)
        for name, value in contenders.items() if index else ():
            times.setdefault(name, []).append(1000 * value)
    return {name: choose(values) for name, values in times.items()}


def find_torchvision() -> Any:
    try:
        return importlib.import_module("torchvision.ops")
    except (ImportError, RuntimeError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="where the tensors are (default: cpu)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contender (default: 7)")
    parser.add_argument("--shortest", action="store_true", help="show shortest times instead of medians")
    parser.add_argument("--threads", type=int, help="threads of the CPU (default: what torch chooses)")
    parser.add_argument("--only", nargs="*", default=[], help="tasks whose names begin with one of these")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device, vision = torch.device(args.device), find_torchvision()
    torch.manual_seed(0)
    makers = (suppression_tasks, pooling_tasks, convolution_tasks, attention_tasks, pasting_tasks)
    tasks = [task for make in makers for task in make(device, vision)]
    rows = []
    for task in tasks:
        if args.only and not task.name.startswith(tuple(args.only)):
            continue
        times = time_task(task, device, args.rounds, min if args.shortest else statistics.median)
        ours = times.get("compiled", times["plain PyTorch"])
        others = [times.get(name) for name in OTHERS]
        rows.append(
            [task.name, times.get("compiled"), *others, *(other and other / ours for other in others)]
        )
    headers = ["operator", "compiled, ms", *(f"{name}, ms" for name in OTHERS)]
    headers += [f"{name} / compiled" for name in OTHERS]
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    if extension.missing_reason():
        print(f"Compiled operators: {extension.missing_reason()}")
    formats = ("", *[".2f"] * (1 + len(OTHERS)), *[".1f"] * len(OTHERS))
    print(tabulate(rows, headers, tablefmt="github", floatfmt=formats, missingval="-"))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
