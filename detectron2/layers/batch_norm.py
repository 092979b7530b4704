"""Normalisation layers, and `get_norm`, which picks one by the name that a config gives it.

Shapes: N images, C channels, H rows, W columns; statistics are (C,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.utils import comm
from detectron2.utils.user_errors import UserValueError, near

from .wrappers import BatchNorm2d

MakeNorm = Callable[[int], nn.Module]
"""Makes a norm for a number of channels."""

Norm = str | MakeNorm | None
"""What `get_norm` takes; "" and None stand for no norm."""

_TRAINABLE_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_STATISTICS = ("running_mean", "running_var")


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine transform are constants.

    All tensors are buffers: no optimizer sees them, and a checkpoint of a trained batch norm loads. One that
    replaced a trained batch norm keeps its count of batches, and so the names of its state dict.

    Args:
        num_features: C.
        eps: added to the variance.
    """

    _version = 3

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        # The variance is less by eps, so that a fresh layer is exactly the identity.
        fresh = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0 - eps}
        for name, value in fresh.items():
            self.register_buffer(name, torch.full((num_features,), value))
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        if not x.requires_grad:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        # F.batch_norm would keep x for the gradients of weight and bias, which nobody asks for.
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - scale * self.running_mean
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        version = args[0].get("version")
        if version is None or version < 2:
            # Before version 2 the statistics were folded into weight and bias and not stored.
            state_dict.setdefault(prefix + "running_mean", torch.zeros_like(self.running_mean))
            state_dict.setdefault(prefix + "running_var", torch.ones_like(self.running_var))
        # A constant norm has no use for the number of batches: files may have it or not.
        counter = prefix + "num_batches_tracked"
        if self.num_batches_tracked is None:
            state_dict.pop(counter, None)
        else:
            state_dict.setdefault(counter, self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm2d and SyncBatchNorm in `module` by a frozen one with the same numbers.

        Returns:
            `module`, changed in place; or its replacement, if it is a batch norm itself.
        """
        return _replace_norms(module, _TRAINABLE_BATCH_NORMS, cls)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """Replace every frozen batch norm in `module` by a trainable BatchNorm2d with the same numbers.

        Returns:
            `module`, changed in place; or its replacement, if it is a frozen batch norm itself.
        """
        return _replace_norms(module, (cls,), BatchNorm2d)


def _replace_norms(module: nn.Module, old: tuple[type, ...], new: Callable[..., nn.Module]) -> nn.Module:
    """Swap each norm of an `old` class for a `new` one with its channels, eps, mode and tensors."""
    if isinstance(module, old):
        replacement = new(module.num_features, eps=module.eps).train(module.training)
        with torch.no_grad():
            for name in ("weight", "bias", *_STATISTICS):
                tensor = getattr(module, name)
                if tensor is not None:
                    target = getattr(replacement, name)
                    target.data = tensor.detach().clone()
            counter = getattr(module, "num_batches_tracked", None)
            if counter is not None:
                replacement.num_batches_tracked = counter.detach().clone()
        return replacement
    for name, child in module.named_children():
        converted = _replace_norms(child, old, new)
        if converted is not child:
            module.add_module(name, converted)
    return module


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class NaiveSyncBatchNorm(BatchNorm2d):
    """Synchronised batch norm from differentiable all-reduces, for any backend and any batch size per worker.

    The running variance is updated without Bessel's correction.

    Args:
        stats_mode: "" gives every worker the same weight, which is exact for equal batches; "N" weighs a
            worker by its number of images, and lets it have none.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if stats_mode not in ("", "N"):
            raise UserValueError(f"stats_mode must be '' or 'N', got {stats_mode!r}")
        if self.momentum is None:
            raise UserValueError("NaiveSyncBatchNorm needs a momentum; it does not average over all batches")
        self._stats_mode = stats_mode

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and dtype."""
        if not self.training or comm.get_world_size() == 1:
            return super().forward(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, mean_square, num_images = self._global_moments(x)
        var = mean_square - mean * mean
        self._update_statistics(mean, var, num_images)
        y = (x - mean[:, None, None]) * torch.rsqrt(var + self.eps)[:, None, None]
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(input.dtype)

    def _global_moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[x] and E[x^2] (C,) over all workers, and the total weight () behind them."""
        num_values = x.shape[0] * x.shape[2] * x.shape[3]
        if num_values == 0 and self._stats_mode == "":
            raise UserValueError('an empty batch on one worker needs NaiveSyncBatchNorm(stats_mode="N")')
        weight = x.new_tensor([float(x.shape[0]) if self._stats_mode == "N" else 1.0])
        sums = torch.cat([x.sum(dim=(0, 2, 3)), x.square().sum(dim=(0, 2, 3))])  # (2C,)
        local = torch.cat([sums / max(num_values, 1) * weight, weight])  # (2C + 1,)
        sum_over_workers: Callable[[Tensor], Tensor] = _SumOverWorkers.apply
        total = sum_over_workers(local)
        num_images = total[-1].detach()
        mean, mean_square = (total[:-1] / num_images.clamp(min=1)).chunk(2)
        return mean, mean_square, num_images

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, var: Tensor, num_images: Tensor) -> None:
        assert self.momentum is not None
        # The momentum of this moment: who measures statistics anew sets it to 1 for a while.
        rate = self.momentum * num_images.clamp(max=1)  # no image anywhere: no update
        self.running_mean += rate * (mean - self.running_mean)
        self.running_var += rate * (var - self.running_var)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


class CycleBatchNormList(nn.ModuleList):
    """Batch norms that take turns, one call each, and share one affine transform.

    For layers that are applied to several feature levels in a fixed order and need statistics per level.

    Args:
        length: number of batch norms.
        bn_class: their class.
        kwargs: for each of them; `affine` (default True) decides on the shared transform.
    """

    def __init__(
        self, length: int, bn_class: Callable[..., nn.Module] = nn.BatchNorm2d, **kwargs: Any
    ) -> None:
        self._affine = kwargs.pop("affine", True)
        norms = [bn_class(**kwargs, affine=False) for _ in range(length)]
        super().__init__(norms)
        if self._affine:
            # Keys of the whole list ("weight"), beside those of its members ("0.running_mean").
            num_features: Any = norms[0].num_features
            self.weight = nn.Parameter(torch.ones(num_features))
            self.bias = nn.Parameter(torch.zeros(num_features))
        self._next = 0

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, by the norm whose turn it is."""
        y: Tensor = self[self._next](x)
        self._next = (self._next + 1) % len(self)
        if not self._affine:
            return y
        return y * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        return f"affine={self._affine}"


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of (N, C, H, W), as ConvNeXt and ViTDet use it.

    Args:
        normalized_shape: C.
        eps: added to the variance.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        # Without var_mean, which warns about zero images.
        centered = x - x.mean(dim=1, keepdim=True)
        variance = centered.square().mean(dim=1, keepdim=True)  # (N, 1, H, W)
        normalized = centered * torch.rsqrt(variance + self.eps)
        return normalized * self.weight[:, None, None] + self.bias[:, None, None]


_NORMS: dict[str, MakeNorm] = {
    "BN": BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "LN": LayerNorm,
}


def get_norm(norm: Norm, out_channels: int) -> nn.Module | None:
    """Make the normalisation layer that a config names.

    Args:
        norm: "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN" or "naiveSyncBN_N"; a function
            of the channel count; "" or None for none.
        out_channels: channels of what the layer will normalise.

    Raises:
        ValueError: if there is no norm of that name.
    """
    if norm is None or norm == "":
        return None
    if not isinstance(norm, str):
        return norm(out_channels)
    if norm not in _NORMS:
        raise UserValueError(
            f"unknown norm {norm!r}, expected one of {', '.join(_NORMS)} or ''.{near(norm, _NORMS)}"
        )
    return _NORMS[norm](out_channels)
