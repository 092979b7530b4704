"""Detectors as functions of one image tensor, without `Instances`, dicts or Python branches on counts.

A model's own `forward` looks at how many boxes there are, which a graph that is made once cannot. The modules
here run the same submodules and the same arithmetic on plain tensors, for a single image.

Shapes: C channels; H, W size of the image; R proposals; D detections; K classes; M side of a predicted mask.
Boxes are XYXY in pixels of the image that goes in; nothing is resized.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.layers.nms import batched_nms
from detectron2.layers.wrappers import smaller_size
from detectron2.modeling.meta_arch.image_model import ImageModel
from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.proposal_generator.proposal_utils import top_per_level
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads
from detectron2.modeling.roi_heads.roi_heads.standard import StandardROIHeads
from detectron2.structures.boxes import Boxes
from detectron2.utils.user_errors import UserValueError

Outputs = dict[str, Tensor]


class ImageNetwork(nn.Module):
    """Base: normalise and pad one image, run the backbone, and leave the rest to a subclass."""

    def __init__(self, model: ImageModel) -> None:
        """
        Args:
            model: in eval mode; its submodules are shared, not copied.
        """
        super().__init__()
        if model.training:
            raise UserValueError("Export is of models in eval mode: call model.eval() first")
        if model.backbone.padding_constraints.get("square_size", 0) > 0:
            raise UserValueError(
                "This backbone pads every image to one square, which leaves no dynamic height and width; its "
                "export is not supported"
            )
        self.model = model

    @property
    def output_names(self) -> list[str]:
        """Keys of what `forward` returns, in order."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Outputs:
        """Detect.

        Args:
            image: (C, H, W) float32 in the channel order of `INPUT.FORMAT`, values in [0, 255].

        Returns:
            See the subclass.
        """
        model = self.model
        height, width = image.shape[-2:]
        divisor = max(model.backbone.size_divisibility, 1)
        normalised = (image - model.pixel_mean) / model.pixel_std
        padding = (0, -width % divisor, 0, -height % divisor)
        limits = torch.stack([torch.scalar_tensor(side, device=model.device) for side in (width, height)])
        return self._detect(model.backbone(F.pad(normalised, padding)[None]), limits)

    def _detect(self, features: dict[str, Tensor], limits: Tensor) -> Outputs:
        """Features by name, (1, ...) each, and (2,) width and height without padding -> results."""
        raise NotImplementedError


class DenseNetwork(ImageNetwork):
    """RetinaNet: `boxes` (D, 4), `scores` (D,) and `classes` (D,), best first."""

    model: RetinaNet

    @property
    def output_names(self) -> list[str]:
        """See the base."""
        return ["boxes", "scores", "classes"]

    def _detect(self, features: dict[str, Tensor], limits: Tensor) -> Outputs:
        model = self.model
        maps = [features[name] for name in model.head_in_features]
        logits, deltas = model._in_anchor_order(model.head(maps), model.num_classes, 4)
        levels = [
            model._decode_level(anchors, level_logits[0].float().sigmoid(), level_deltas[0])
            for anchors, level_logits, level_deltas in zip(model.anchor_generator(maps), logits, deltas)
        ]
        boxes, scores, classes = (torch.cat(parts) for parts in zip(*levels))
        keep = batched_nms(boxes, scores, classes, model.test_nms_thresh)
        keep = _first(keep, model.max_detections_per_image)
        return {"boxes": boxes[keep], "scores": scores[keep], "classes": classes[keep]}


class RCNNNetwork(ImageNetwork):
    """Faster, Mask and Cascade R-CNN on a pyramid (or one map): as `DenseNetwork`, and with a mask head
    `masks` (D, 1, M, M), the probabilities of each detection's own class inside its box.
    """

    model: GeneralizedRCNN

    def __init__(self, model: GeneralizedRCNN) -> None:
        """
        Args:
            model: with an `RPN`, and `StandardROIHeads` or `CascadeROIHeads` without keypoints.
        """
        super().__init__(model)
        heads = model.roi_heads
        # Subclasses may compute something else, so only the classes themselves.
        if type(model.proposal_generator) is not RPN or type(heads) not in (
            StandardROIHeads,
            CascadeROIHeads,
        ):
            raise UserValueError(
                "Export expects the proposal generator RPN with StandardROIHeads or CascadeROIHeads; got "
                f"{type(model.proposal_generator).__name__} with {type(heads).__name__}"
            )
        if heads.keypoint_on:
            raise UserValueError("Keypoints are not exported: build the model with MODEL.KEYPOINT_ON False")

    @property
    def output_names(self) -> list[str]:
        """See the base."""
        return ["boxes", "scores", "classes"] + (["masks"] if self.model.roi_heads.mask_on else [])

    def _detect(self, features: dict[str, Tensor], limits: Tensor) -> Outputs:
        proposals = self._propose(features, limits)
        boxes, probs = self._classify(features, proposals, limits)
        results = self._choose(boxes, probs, limits)
        if self.model.roi_heads.mask_on:
            results["masks"] = self._predict_masks(features, results["boxes"], results["classes"])
        return results

    def _propose(self, features: dict[str, Tensor], limits: Tensor) -> Tensor:
        """(R, 4) the best proposals."""
        rpn: Any = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        logits, deltas = rpn.rpn_head(maps)
        boxes, scores, levels = top_per_level(
            rpn._decode_proposals(
                rpn.anchor_generator(maps),
                [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas],  # (1, Ri, 4)
            ),
            [x.permute(0, 2, 3, 1).flatten(1) for x in logits],  # (1, Ri)
            int(rpn.pre_nms_topk[False]),
        )
        boxes, scores = _clip(boxes[0], limits), scores[0]
        finite = boxes.isfinite().all(dim=1) & scores.isfinite()
        usable = (finite & Boxes(boxes).nonempty(threshold=rpn.min_box_size)).nonzero().squeeze(1)
        boxes, scores, levels = boxes[usable], scores[usable], levels[usable]
        keep = batched_nms(boxes, scores, levels, rpn.nms_thresh)
        return boxes[_first(keep, int(rpn.post_nms_topk[False]))]

    def _classify(
        self, features: dict[str, Tensor], proposals: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(R, K or 1, 4) refined boxes and (R, K + 1) probabilities."""
        heads: Any = self.model.roi_heads
        maps = [features[name] for name in heads.box_in_features]
        is_cascade = type(heads) is CascadeROIHeads
        stages = (
            list(zip(heads.box_head, heads.box_predictor))
            if is_cascade
            else [(heads.box_head, heads.box_predictor)]
        )
        probs_per_stage: list[Tensor] = []
        boxes = proposals[:, None]  # (R, 1, 4)
        for i, (box_head, predictor) in enumerate(stages):
            sources = _clip(boxes[:, 0], limits) if i else proposals
            pooled = heads.box_pooler(maps, [Boxes(sources)])
            logits, deltas = predictor(box_head(pooled))
            boxes = predictor.box2box_transform.apply_deltas(deltas, sources).unflatten(1, (-1, 4))
            probs_per_stage.append(
                logits.sigmoid() if predictor.use_sigmoid_ce else F.softmax(logits.float(), dim=-1)
            )
        return boxes, torch.stack(probs_per_stage).mean(dim=0)

    def _choose(self, boxes: Tensor, probs: Tensor, limits: Tensor) -> Outputs:
        """What `choose_detections` keeps, as tensors."""
        heads: Any = self.model.roi_heads
        is_cascade = type(heads) is CascadeROIHeads
        predictor: Any = heads.box_predictor[-1] if is_cascade else heads.box_predictor
        finite = boxes.flatten(1).isfinite().all(dim=1) & probs.isfinite().all(dim=1)
        probs = probs[:, :-1]
        regions, classes = ((probs > predictor.test_score_thresh) & finite[:, None]).nonzero().unbind(dim=1)
        columns = classes if boxes.shape[1] > 1 else torch.zeros_like(classes)
        scores, candidates = probs[regions, classes], _clip(boxes[regions, columns], limits)
        keep = batched_nms(candidates, scores, classes, predictor.test_nms_thresh)
        if predictor.test_topk_per_image >= 0:
            keep = _first(keep, predictor.test_topk_per_image)
        return {"boxes": candidates[keep], "scores": scores[keep], "classes": classes[keep]}

    def _predict_masks(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """(D, 1, M, M) probabilities."""
        heads: Any = self.model.roi_heads
        pooled = heads.mask_pooler([features[name] for name in heads.mask_in_features], [Boxes(boxes)])
        logits = heads.mask_head.layers(pooled)  # (D, K or 1, M, M)
        if logits.shape[1] > 1:
            index = classes[:, None, None, None].expand(-1, -1, *logits.shape[2:])
            logits = logits.gather(1, index)
        return logits.sigmoid()


class PanopticNetwork(RCNNNetwork):
    """Panoptic FPN before the merge: as `RCNNNetwork`, and `sem_seg`, the logits of the semantic classes.

    `sem_seg` is (K, H', W') with H', W' the size after padding, as `sem_seg_postprocess` takes it. What
    merges both, `panoptic_fusion.combine_semantic_and_instance_outputs`, loops over segments and stays
    outside.
    """

    model: PanopticFPN

    @property
    def output_names(self) -> list[str]:
        """See the base."""
        return [*super().output_names, "sem_seg"]

    def _detect(self, features: dict[str, Tensor], limits: Tensor) -> Outputs:
        results = super()._detect(features, limits)
        logits, _ = self.model.sem_seg_head(features, None)
        results["sem_seg"] = logits[0]
        return results


_NETWORKS: dict[type, type[ImageNetwork]] = {
    GeneralizedRCNN: RCNNNetwork,
    PanopticFPN: PanopticNetwork,
    RetinaNet: DenseNetwork,
}


def make_network(model: Any) -> ImageNetwork:
    """Make the tensor-only form of a model.

    Args:
        model: a `GeneralizedRCNN`, `PanopticFPN` or `RetinaNet`, not of a subclass, in eval mode.

    Raises:
        ValueError: there is no such form of this model.
    """
    network = _NETWORKS.get(type(model))
    if network is None:
        supported = ", ".join(kind.__name__ for kind in _NETWORKS)
        raise UserValueError(f"Export expects one of {supported}; got {type(model).__name__}")
    return network(model)


def _clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Move the corners of (..., 4) boxes into an image of (2,) width and height."""
    return torch.minimum(boxes.clamp(min=0), limits.repeat(2))


def _first(values: Tensor, count: int) -> Tensor:
    """At most `count` first entries, where their number is not known to the exporter."""
    return values[: smaller_size(values.shape[0], count)]
