"""As mask_rcnn_R_50_FPN_100ep_LSJ.py, for 400 epochs."""

from ..common.coco_schedule import stretch
from .mask_rcnn_R_50_FPN_100ep_LSJ import dataloader, lr_multiplier, model, optimizer, train

stretch(4, train, lr_multiplier)
