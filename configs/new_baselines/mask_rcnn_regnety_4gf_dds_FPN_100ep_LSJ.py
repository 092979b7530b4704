"""Mask R-CNN on RegNetY-4GF from random weights, with large scale jitter: 100 epochs."""

from ..common.models.regnets import pixel_std
from ..common.models.regnets import regnety_4gf_dds as _regnet
from .mask_rcnn_R_50_FPN_100ep_LSJ import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up = _regnet
model.pixel_std = pixel_std
train.cudnn_benchmark = True
