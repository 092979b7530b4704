import torch
from torch import nn

from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.utils.events import get_event_storage


@ROI_BOX_HEAD_REGISTRY.register()
class ScaledBoxHead(nn.Module):
    @configurable
    def __init__(self, input_shape: ShapeSpec, *, width, scale=1.0):
        super().__init__()
        size = input_shape.channels * input_shape.height * input_shape.width
        self.fc = nn.Linear(size, width)
        self.scale = nn.Parameter(torch.tensor(scale))
        self._width = width

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"input_shape": input_shape, "width": cfg.MODEL.ROI_BOX_HEAD.FC_DIM}

    def forward(self, x):
        return torch.relu(self.fc(x.flatten(1))) * self.scale

    @property
    def output_shape(self):
        return ShapeSpec(channels=self._width)


class LoggingOutputLayers(FastRCNNOutputLayers):
    def losses(self, predictions, proposals):
        scores, _ = predictions
        gt_classes = cat([p.gt_classes for p in proposals], dim=0)
        get_event_storage().put_scalar("plugin/num_boxes", gt_classes.numel())
        losses = super().losses(predictions, proposals)
        return {**losses, "loss_small_scores": 1e-4 * scores.pow(2).mean()}


@ROI_HEADS_REGISTRY.register()
class TaggedROIHeads(StandardROIHeads):
    @configurable
    def __init__(self, *, tag, **kwargs):
        super().__init__(**kwargs)
        self.tag = tag

    @classmethod
    def from_config(cls, cfg, input_shape):
        ret = super().from_config(cfg, input_shape)
        ret["tag"] = cfg.MODEL.ROI_HEADS.TAG
        return ret

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        ret = super()._init_box_head(cfg, input_shape)
        ret["box_predictor"] = LoggingOutputLayers(cfg, ret["box_head"].output_shape)
        return ret

    def forward(self, images, features, proposals, targets=None):
        instances, losses = super().forward(images, features, proposals, targets)
        if not self.training:
            for per_image in instances:
                per_image.tag = torch.full((len(per_image),), self.tag)
        return instances, losses
