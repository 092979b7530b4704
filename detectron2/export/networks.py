"""Detectors as functions of one image tensor, without `Instances`, dicts or Python branches on counts.

A model's own `forward` looks at how many boxes there are, which a graph that is made once cannot. The modules
here normalise and pad one image, and name the outputs of the models' own functions for one image. What is
computed is said in the models and in `modeling.inference`.

Shapes: C channels; H, W size of the image; D detections; K classes; M side of a predicted mask.
Boxes are XYXY in pixels of the image that goes in; nothing is resized.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.modeling.inference import Detections
from detectron2.modeling.meta_arch.image_model import ImageModel
from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.cascade_rcnn import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.roi_heads.standard import StandardROIHeads
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

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
        raise UserNotImplementedError(f"{type(self).__name__} does not name its outputs")

    def forward(self, image: Tensor) -> Outputs:
        """Detect.

        Args:
            image: (C, H, W) float32 in the channel order of `INPUT.FORMAT`, values in [0, 255].

        Returns:
            Tensors by `output_names`.
        """
        model = self.model
        height, width = image.shape[-2:]
        divisor = max(model.backbone.size_divisibility, 1)
        padding = (0, -width % divisor, 0, -height % divisor)
        padded = F.pad(model.normalize(image), padding)
        return self._detect(model.backbone(padded[None]), (height, width))

    def _detect(self, features: dict[str, Tensor], image_size: tuple[int, int]) -> Outputs:
        """Features by name, (1, ...) each, and (height, width) without padding -> results."""
        raise UserNotImplementedError(f"{type(self).__name__} does not say how it detects")


class DenseNetwork(ImageNetwork):
    """RetinaNet: `boxes` (D, 4), `scores` (D,) and `classes` (D,), best first."""

    model: RetinaNet

    @property
    def output_names(self) -> list[str]:
        """Keys of what `forward` returns, in order."""
        return ["boxes", "scores", "classes"]

    def _detect(self, features: dict[str, Tensor], image_size: tuple[int, int]) -> Outputs:
        return _named(self.model.detect_in_one_image(features))


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
        if type(heads.last_box_predictor) is not FastRCNNOutputLayers:
            raise UserValueError(
                "Export expects FastRCNNOutputLayers to predict boxes; got "
                f"{type(heads.last_box_predictor).__name__}"
            )
        if heads.keypoint_on:
            raise UserValueError("Keypoints are not exported: build the model with MODEL.KEYPOINT_ON False")

    @property
    def output_names(self) -> list[str]:
        """Keys of what `forward` returns, in order."""
        return ["boxes", "scores", "classes"] + (["masks"] if self.model.roi_heads.mask_on else [])

    def _detect(self, features: dict[str, Tensor], image_size: tuple[int, int]) -> Outputs:
        rpn: Any = self.model.proposal_generator
        heads: Any = self.model.roi_heads
        proposals = rpn.propose_in_one_image(features, image_size)
        results = _named(heads.detect_in_one_image(features, proposals, image_size))
        if heads.mask_on:
            results["masks"] = heads.masks_in_one_image(features, results["boxes"], results["classes"])
        return results


class PanopticNetwork(RCNNNetwork):
    """Panoptic FPN before the merge: as `RCNNNetwork`, and `sem_seg`, the logits of the semantic classes.

    `sem_seg` is (K, H', W') with H', W' the size after padding, as `sem_seg_postprocess` takes it. What
    merges both, `panoptic_fusion.combine_semantic_and_instance_outputs`, loops over segments and stays
    outside.
    """

    model: PanopticFPN

    @property
    def output_names(self) -> list[str]:
        """Keys of what `forward` returns, in order."""
        return [*super().output_names, "sem_seg"]

    def _detect(self, features: dict[str, Tensor], image_size: tuple[int, int]) -> Outputs:
        results = super()._detect(features, image_size)
        logits, _ = self.model.sem_seg_head(features, None)
        results["sem_seg"] = logits[0]
        return results


def _named(detections: Detections) -> Outputs:
    return {"boxes": detections.boxes, "scores": detections.scores, "classes": detections.classes}


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
