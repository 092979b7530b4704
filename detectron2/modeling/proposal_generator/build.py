"""The registry of proposal generators, and the function that makes the one a config names."""

from __future__ import annotations

from torch import nn

from detectron2.config.config.node import CfgNode
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.utils.registry import Registry

PROPOSAL_GENERATOR_REGISTRY = Registry("PROPOSAL_GENERATOR")
PROPOSAL_GENERATOR_REGISTRY.__doc__ = """
Modules made by `(cfg, input_shape: dict[str, ShapeSpec])` and called as `(images: ImageList, features:
dict[str, Tensor], gt_instances: list[Instances] | None)`; they return proposals, a list of `Instances`, and a
dict of losses.
"""


def build_proposal_generator(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module | None:
    """Build the generator `MODEL.PROPOSAL_GENERATOR.NAME`.

    Returns:
        The module, or None for "PrecomputedProposals": then the data loader delivers proposals.
    """
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name == "PrecomputedProposals":
        return None
    generator: nn.Module = PROPOSAL_GENERATOR_REGISTRY.get(name)(cfg, input_shape)
    return generator
