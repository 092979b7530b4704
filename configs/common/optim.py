"""Optimizers; the training tool sets `params.model`."""

import torch

from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

SGD = L(torch.optim.SGD)(
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
)

# Where parameters get rates of their own, these are relative to `lr`.
AdamW = L(torch.optim.AdamW)(
    lr=1e-4,
    weight_decay=0.1,
    betas=(0.9, 0.999),
    params=L(get_default_optimizer_params)(base_lr="${..lr}", weight_decay_norm=0.0),
)
