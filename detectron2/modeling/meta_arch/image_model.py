"""What all models share: images in, normalised and batched; labels checked before they reach a GPU.

Shapes: N images; C channels; H, W size of an image before padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from detectron2.config.config.node import CfgNode
from detectron2.layers.tracing import is_tracing
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserValueError

from ..backbone.backbone import Backbone


class ImageModel(nn.Module):
    """Base of models that take a list of dicts with an `image` each."""

    # Config keys that say how many classes of things and of stuff there are, for checks of the data. A model
    # that is registered declares those it has; "thing" goes with `instances`, "stuff" with `sem_seg`.
    class_count_keys: ClassVar[Mapping[str, str]] = {}

    backbone: Backbone
    pixel_mean: Tensor
    pixel_std: Tensor

    @staticmethod
    def image_arguments(cfg: CfgNode) -> dict[str, Any]:
        """Arguments `pixel_mean` and `pixel_std`, which every model has, from a config."""
        return {"pixel_mean": cfg.MODEL.PIXEL_MEAN, "pixel_std": cfg.MODEL.PIXEL_STD}

    def _setup_images(
        self, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        self.backbone = backbone
        mean, std = torch.as_tensor(pixel_mean).view(-1, 1, 1), torch.as_tensor(pixel_std).view(-1, 1, 1)
        if mean.shape != std.shape:
            raise UserValueError(
                f"MODEL.PIXEL_MEAN has {len(mean)} channels and MODEL.PIXEL_STD {len(std)}; both need as "
                "many as images have"
            )
        # They come from the config, not from checkpoints.
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is; inputs are moved there."""
        return self.pixel_mean.device

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the images of a batch and pad them to one size.

        Args:
            batched_inputs: per image, a dict with `image`, (C, H, W) in the channel order of `INPUT.FORMAT`,
                values in [0, 255], any dtype.
        """
        images = [self._move_to_current_device(x["image"]) for x in batched_inputs]
        for image in images:
            if not is_tracing() and image.shape[0] != len(self.pixel_mean):
                raise UserValueError(
                    f"Expected (C, H, W) images with {len(self.pixel_mean)} channels as MODEL.PIXEL_MEAN; "
                    f"got an image of shape {tuple(image.shape)}. See INPUT.FORMAT."
                )
        return self._batch([self.normalize(image) for image in images], pad_value=0.0)

    def _move_to_current_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)

    def normalize(self, image: Tensor) -> Tensor:
        """(C, H, W) image with values in [0, 255] -> the same with the means and deviations taken out."""
        return (image - self.pixel_mean) / self.pixel_std

    def _batch(self, tensors: list[Tensor], pad_value: float) -> ImageList:
        return ImageList.from_tensors(
            tensors,
            self.backbone.size_divisibility,
            pad_value=pad_value,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _ground_truth(
        self, batched_inputs: list[dict[str, Any]], num_classes: int | None = None
    ) -> list[Instances] | None:
        """The `instances` of a batch on the model's device; None where there are none.

        Args:
            batched_inputs: per image, a dict that may have `instances`.
            num_classes: class ids from here on are refused; None for no check.
        """
        if "instances" not in batched_inputs[0]:
            return None
        if num_classes is not None:
            key = self.class_count_keys.get("thing", "num_classes of the model")
            for x in batched_inputs:
                check_class_ids(x["instances"].gt_classes, num_classes, key, x.get("file_name"))
        return [x["instances"].to(self.device) for x in batched_inputs]

    def _sem_seg_targets(
        self, batched_inputs: list[dict[str, Any]], num_classes: int | None, ignore_value: int
    ) -> Tensor | None:
        """(N, H', W') int64 labels, padded like the images with `ignore_value`; None where there are none."""
        if "sem_seg" not in batched_inputs[0]:
            return None
        if num_classes is not None:
            key = self.class_count_keys.get("stuff", "num_classes of the semantic head")
            for x in batched_inputs:
                check_sem_seg_ids(x["sem_seg"], num_classes, ignore_value, key, x.get("file_name"))
        labels = [x["sem_seg"].to(self.device, non_blocking=True).long() for x in batched_inputs]
        return self._batch(labels, pad_value=ignore_value).tensor


def output_size(batched_input: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in which results are wanted: of the original image, or else of the network input."""
    return batched_input.get("height", image_size[0]), batched_input.get("width", image_size[1])


def check_class_ids(gt_classes: Tensor, num_classes: int, key: str, file_name: str | None = None) -> None:
    """Refuse class ids that the model has no output for.

    Looks at CPU tensors only, as loaders deliver them: asking a GPU would make every step wait.

    Args:
        gt_classes: (M,) ids.
        num_classes: how many classes the model has.
        key: the config key that says so.
        file_name: the image, for the message.

    Raises:
        ValueError: an id is negative or not below `num_classes`.
    """
    if gt_classes.device.type != "cpu" or not gt_classes.numel():
        return
    lowest, highest = (int(x) for x in gt_classes.aminmax())
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise UserValueError(
            f"Ground truth{_of(file_name)} has the class id {wrong}, but {key} is {num_classes}, so ids must "
            f"lie in [0, {num_classes}). Set {key} to the number of classes of the data set, or correct its "
            "annotations."
        )


def check_sem_seg_ids(
    sem_seg: Tensor, num_classes: int, ignore_value: int, key: str, file_name: str | None = None
) -> None:
    """Refuse semantic labels that the model has no output for; on CPU tensors only, as `check_class_ids`.

    Args:
        sem_seg: (H, W) labels.
        num_classes: how many classes the model has.
        ignore_value: the label that is not trained on.
        key: the config key that says how many classes there are.
        file_name: the image, for the message.

    Raises:
        ValueError: a label is neither `ignore_value` nor in [0, num_classes).
    """
    if sem_seg.device.type != "cpu" or not sem_seg.numel():
        return
    is_wrong = ((sem_seg < 0) | (sem_seg >= num_classes)) & (sem_seg != ignore_value)
    if is_wrong.any():
        raise UserValueError(
            f"The semantic ground truth{_of(file_name)} has the label {int(sem_seg[is_wrong][0])}, but "
            f"{key} is {num_classes} and the ignored label {ignore_value}: set {key} to the number of "
            "classes of the data set, or correct its label maps."
        )


def _of(file_name: str | None) -> str:
    return f" of {file_name}" if file_name else ""
