"""Mask R-CNN from random weights, with large scale jitter: 100 epochs."""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from ..common.coco_schedule import step_schedule
from ..common.data.coco import dataloader
from ..common.models.mask_rcnn_fpn import model
from ..common.optim import SGD as optimizer
from ..common.train import train

_side = 1024
_images_per_batch = 64

# Batch norms learn, over all GPUs. Heads may get no region at all, which torch's own SyncBN does not take.
_backbone, _heads = model.backbone, model.roi_heads
_backbone.norm = _backbone.bottom_up.stem.norm = _backbone.bottom_up.stages.norm = "SyncBN"
_backbone.bottom_up.freeze_at = 0
_heads.mask_head.conv_norm = "naiveSyncBN_N"
_heads.box_head.update(conv_dims=[256] * 4, fc_dims=[1024], conv_norm="naiveSyncBN_N")
model.proposal_generator.head.conv_dims = [-1, -1]

# Resized by a random factor, then cut (or padded) to a square.
dataloader.train.total_batch_size = _images_per_batch
dataloader.train.mapper.update(
    augmentations=[
        L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=_side, target_width=_side),
        L(T.FixedSizeCrop)(crop_size=(_side, _side)),
        L(T.RandomFlip)(horizontal=True),
    ],
    recompute_boxes=True,
)

# 118000 images per epoch; the rate drops at 8/9 and 26/27 of the run.
train.max_iter = 100 * 118000 // _images_per_batch
train.init_checkpoint = ""
train.amp.enabled = True
train.ddp.fp16_compression = True
lr_multiplier = step_schedule(train.max_iter, (163889, 177546), warmup_iters=500, warmup_factor=0.067)
optimizer.update(lr=0.1, weight_decay=4e-5)
