"""The random draws of detectors in the order in which their parts are made, as flat lists of calls.

Equal weights from equal seeds are a contract: a layer draws its weight and its bias when it is made, and an
initialisation later draws them again. Nothing of the package is used here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Draws:
    """Weights by their names in a checkpoint, drawn by the calls of its methods, one after the other."""

    def __init__(self, seed: int) -> None:
        self.weights: dict[str, Tensor] = {}
        torch.manual_seed(seed)

    def _default(self, name: str, shape: Sequence[int], bias: int | None) -> None:
        """What `nn.Conv2d` and `nn.Linear` draw when they are made; `bias` is its length."""
        weight = self.weights[f"{name}.weight"] = torch.empty(*shape)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        if bias is not None:
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            self.weights[f"{name}.bias"] = torch.empty(bias).uniform_(-bound, bound)

    def conv(
        self, name: str, c_in: int, c_out: int, kernel: int, *, bias: bool = True, groups: int = 1
    ) -> str:
        self._default(name, (c_out, c_in // groups, kernel, kernel), c_out if bias else None)
        return name

    def deconv(self, name: str, c_in: int, c_out: int, kernel: int) -> str:
        self._default(name, (c_in, c_out, kernel, kernel), c_out)
        return name

    def linear(self, name: str, c_in: int, c_out: int, *, bias: bool = True) -> str:
        self._default(name, (c_out, c_in), c_out if bias else None)
        return name

    def msra(self, *names: str) -> None:
        for name in names:
            nn.init.kaiming_normal_(self.weights[f"{name}.weight"], mode="fan_out", nonlinearity="relu")
            self.zero(f"{name}.bias")

    def xavier(self, *names: str) -> None:
        for name in names:
            nn.init.kaiming_uniform_(self.weights[f"{name}.weight"], a=1)
            self.zero(f"{name}.bias")

    def normal(self, std: float, *names: str) -> None:
        for name in names:
            self.weights[f"{name}.weight"].normal_(std=std)
            self.zero(f"{name}.bias")

    def truncated(self, *names: str) -> None:
        for name in names:
            nn.init.trunc_normal_(self.weights[f"{name}.weight"], std=0.02)
            self.zero(f"{name}.bias")

    def table(self, name: str, *shape: int) -> None:
        """A parameter that is not a layer's, drawn when the call comes."""
        self.weights[name] = nn.init.trunc_normal_(torch.zeros(*shape), std=0.02)

    def zero(self, name: str) -> None:
        if name in self.weights:
            self.weights[name].zero_()

    def forget(self, prefix: str) -> None:
        """Drop what is drawn and not kept."""
        self.weights = {name: w for name, w in self.weights.items() if not name.startswith(prefix)}


def check(model: nn.Module, draws: Draws) -> None:
    """Every layer of the model has the weights that were drawn for it, and there are no others."""
    state = model.state_dict()
    is_norm = {
        name for name, module in model.named_modules() if "Norm" in type(module).__name__
    }  # norms draw nothing
    drawn_here = {name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in is_norm}
    assert drawn_here == set(draws.weights)
    different = [name for name, weight in draws.weights.items() if not torch.equal(state[name], weight)]
    assert not different


WIDTHS = {"stem": 16, "bottleneck": 8, "res2": 32, "fpn": 16}
BLOCKS = (3, 4, 6, 3)


def bottleneck(d: Draws, name: str, c_in: int, c_mid: int, c_out: int, offsets: bool = False) -> None:
    """Shortcut, 1x1, 3x3 and 1x1 are made; then these are drawn again, the shortcut last."""
    parts = [d.conv(f"{name}.shortcut", c_in, c_out, 1, bias=False)] if c_in != c_out else []
    convs = [d.conv(f"{name}.conv1", c_in, c_mid, 1, bias=False)]
    if offsets:
        d.conv(f"{name}.conv2_offset", c_mid, 18, 3)
    convs.append(d.conv(f"{name}.conv2", c_mid, c_mid, 3, bias=False))
    convs.append(d.conv(f"{name}.conv3", c_mid, c_out, 1, bias=False))
    d.msra(*convs, *parts)
    d.zero(f"{name}.conv2_offset.weight")
    d.zero(f"{name}.conv2_offset.bias")


def resnet50(d: Draws, prefix: str, *, deform_res5: bool = False) -> None:
    """The stem and all four stages, whether they are kept or not."""
    d.msra(d.conv(f"{prefix}.stem.conv1", 3, WIDTHS["stem"], 7, bias=False))
    c_in = WIDTHS["stem"]
    for stage, num_blocks in enumerate(BLOCKS):
        c_mid, c_out = WIDTHS["bottleneck"] << stage, WIDTHS["res2"] << stage
        for block in range(num_blocks):
            bottleneck(d, f"{prefix}.res{stage + 2}.{block}", c_in, c_mid, c_out, deform_res5 and stage == 3)
            c_in = c_out


def res2net(d: Draws, prefix: str, *, scale: int, width: int, blocks: Sequence[int]) -> None:
    """The deep stem, and bottlenecks that draw the shortcut before the 3x3 convolutions."""
    half, stem = WIDTHS["stem"] // 2, WIDTHS["stem"]
    sizes = (("0", 3, half), ("3", half, half), ("6", half, stem))
    d.msra(*[d.conv(f"{prefix}.stem.conv1.{i}", a, b, 3, bias=False) for i, a, b in sizes])
    c_in = stem
    for stage, num_blocks in enumerate(blocks):
        split, c_out = width << stage, WIDTHS["res2"] << stage
        for block in range(num_blocks):
            name = f"{prefix}.res{stage + 2}.{block}"
            shortcut = [d.conv(f"{name}.shortcut.1", c_in, c_out, 1, bias=False)] if c_in != c_out else []
            first = d.conv(f"{name}.conv1", c_in, split * scale, 1, bias=False)
            middle = [d.conv(f"{name}.convs.{i}", split, split, 3, bias=False) for i in range(scale - 1)]
            last = d.conv(f"{name}.conv3", split * scale, c_out, 1, bias=False)
            d.msra(first, last, *shortcut, *middle)
            c_in = c_out


def fpn(d: Draws, prefix: str, levels: Sequence[int] = (2, 3, 4, 5)) -> None:
    """Per level the lateral and the output convolution are made, then drawn again."""
    for level in levels:
        names = [
            d.conv(f"{prefix}.fpn_lateral{level}", WIDTHS["res2"] << (level - 2), WIDTHS["fpn"], 1),
            d.conv(f"{prefix}.fpn_output{level}", WIDTHS["fpn"], WIDTHS["fpn"], 3),
        ]
        d.xavier(*names)


def top_block(d: Draws, prefix: str) -> None:
    names = [
        d.conv(f"{prefix}.top_block.p6", WIDTHS["res2"] << 3, WIDTHS["fpn"], 3),
        d.conv(f"{prefix}.top_block.p7", WIDTHS["fpn"], WIDTHS["fpn"], 3),
    ]
    d.xavier(*names)


def rpn(d: Draws, channels: int, num_anchors: int) -> None:
    head = "proposal_generator.rpn_head"
    names = [
        d.conv(f"{head}.conv", channels, channels, 3),
        d.conv(f"{head}.objectness_logits", channels, num_anchors, 1),
        d.conv(f"{head}.anchor_deltas", channels, 4 * num_anchors, 1),
    ]
    d.normal(0.01, *names)


def box_head(
    d: Draws, name: str, channels: int, side: int, *, num_convs: int = 0, fcs: Sequence[int]
) -> None:
    """All layers are made before the first is drawn again: convolutions first, then the others."""
    convs = [d.conv(f"{name}.conv{i + 1}", channels, channels, 3) for i in range(num_convs)]
    sizes = [channels * side * side, *fcs]
    linears = [d.linear(f"{name}.fc{i + 1}", sizes[i], sizes[i + 1]) for i in range(len(fcs))]
    d.msra(*convs)
    d.xavier(*linears)


def box_predictor(d: Draws, name: str, c_in: int, num_classes: int, num_deltas: int) -> None:
    names = [
        d.linear(f"{name}.cls_score", c_in, num_classes + 1),
        d.linear(f"{name}.bbox_pred", c_in, num_deltas),
    ]
    d.normal(0.01, names[0])
    d.normal(0.001, names[1])


def mask_head(d: Draws, c_in: int, dims: Sequence[int], num_classes: int) -> None:
    head = "roi_heads.mask_head"
    sizes = [c_in, *dims]
    names = [d.conv(f"{head}.mask_fcn{i + 1}", sizes[i], sizes[i + 1], 3) for i in range(len(dims) - 1)]
    names.append(d.deconv(f"{head}.deconv", sizes[-2], sizes[-1], 2))
    d.conv(f"{head}.predictor", sizes[-1], num_classes, 1)
    d.msra(*names)
    d.normal(0.001, f"{head}.predictor")


def keypoint_head(d: Draws, c_in: int, dims: Sequence[int], num_keypoints: int) -> None:
    head = "roi_heads.keypoint_head"
    sizes = [c_in, *dims]
    names = [d.conv(f"{head}.conv_fcn{i + 1}", sizes[i], sizes[i + 1], 3) for i in range(len(dims))]
    names.append(d.deconv(f"{head}.score_lowres", sizes[-1], num_keypoints, 4))
    d.msra(*names)


def sem_seg_head(d: Draws, c_in: int, channels: int, num_classes: int, bias: bool) -> None:
    """Every convolution is drawn again as soon as it is made."""
    for level, num_convs in ((2, 1), (3, 1), (4, 2), (5, 3)):
        for i in range(num_convs):
            name = f"sem_seg_head.p{level}.{2 * i}"
            d.msra(d.conv(name, c_in if i == 0 else channels, channels, 3, bias=bias))
    d.msra(d.conv("sem_seg_head.predictor", channels, num_classes, 1))


def dense_head(d: Draws, c_in: int, num_convs: int, num_logits: int, num_deltas: int) -> None:
    """The two stacks are made by turns, and drawn again one after the other."""
    for i in range(num_convs):
        for stack in ("cls", "bbox"):
            d.conv(f"head.{stack}_subnet.{2 * i}", c_in, c_in, 3)
    d.conv("head.cls_score", c_in, num_logits, 3)
    d.conv("head.bbox_pred", c_in, num_deltas, 3)
    for stack in ("cls", "bbox"):
        d.normal(0.01, *[f"head.{stack}_subnet.{2 * i}" for i in range(num_convs)])
    d.normal(0.01, "head.cls_score", "head.bbox_pred")
    d.weights["head.cls_score.bias"].fill_(-math.log((1 - 0.01) / 0.01))
