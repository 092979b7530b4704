"""As mask_rcnn_R_101_FPN_100ep_LSJ.py, for 200 epochs."""

from ..common.coco_schedule import stretch
from .mask_rcnn_R_101_FPN_100ep_LSJ import dataloader, lr_multiplier, model, optimizer, train

stretch(2, train, lr_multiplier)
