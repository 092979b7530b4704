from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances


@META_ARCH_REGISTRY.register()
class WeightedRCNN(GeneralizedRCNN):
    @configurable
    def __init__(self, *, box_weight: float, **kwargs):
        super().__init__(**kwargs)
        self.box_weight = box_weight

    @classmethod
    def from_config(cls, cfg):
        ret = super().from_config(cfg)
        ret["box_weight"] = cfg.MODEL.WEIGHTED.BOX_WEIGHT
        return ret

    def forward(self, batched_inputs):
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        assert isinstance(images, ImageList)
        gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self.proposal_generator(images, features, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        losses = {**proposal_losses, **detector_losses}
        losses["loss_box_reg"] = losses["loss_box_reg"] * self.box_weight
        return losses

    def inference(self, batched_inputs):
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features, None)
        results, _ = self.roi_heads(images, features, proposals, None)
        outputs = []
        for per_image, sample, size in zip(results, batched_inputs, images.image_sizes):
            assert isinstance(per_image, Instances)
            height, width = sample.get("height", size[0]), sample.get("width", size[1])
            outputs.append({"instances": detector_postprocess(per_image, height, width)})
        return outputs
