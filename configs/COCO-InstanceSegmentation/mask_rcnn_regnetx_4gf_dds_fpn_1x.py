"""Mask R-CNN on RegNetX-4GF with a feature pyramid."""

from ..common.coco_schedule import lr_multiplier_1x as lr_multiplier
from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.models.regnets import pixel_std
from ..common.models.regnets import regnetx_4gf_dds as _regnet
from ..common.optim import SGD as optimizer
from ..common.train import train

model.backbone.bottom_up = _regnet
model.backbone.bottom_up.update(norm="FrozenBN", freeze_at=2)
model.pixel_std = pixel_std

optimizer.weight_decay = 5e-5
train.init_checkpoint = (
    "https://dl.fbaipublicfiles.com/pycls/dds_baselines/160906383/RegNetX-4.0GF_dds_8gpu.pyth"
)
train.cudnn_benchmark = True
