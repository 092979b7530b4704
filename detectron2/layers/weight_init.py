"""Initialisers of convolution and linear layers, under the names that Caffe2 gave them."""

from __future__ import annotations

from torch import Tensor, nn

from detectron2.utils.user_errors import UserTypeError


def c2_xavier_fill(module: nn.Module) -> None:
    """Fill `module.weight` with Caffe2's XavierFill (uniform, variance 1 / fan-in) and zero the bias."""
    nn.init.kaiming_uniform_(_weight_of(module), a=1)  # a=1: gain 1, hence bound sqrt(3 / fan_in)
    _zero_bias(module)


def c2_msra_fill(module: nn.Module) -> None:
    """Fill `module.weight` with Caffe2's MSRAFill (normal, variance 2 / fan-out) and zero the bias."""
    nn.init.kaiming_normal_(_weight_of(module), mode="fan_out", nonlinearity="relu")
    _zero_bias(module)


def _weight_of(module: nn.Module) -> Tensor:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise UserTypeError(f"{type(module).__name__} has no weight tensor to initialise")
    return weight


def _zero_bias(module: nn.Module) -> None:
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
