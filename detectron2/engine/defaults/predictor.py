"""A config turned into a function from one image to predictions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron2.checkpoint.class_names import describe_difference, learned_classes
from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.config.config.node import CfgNode
from detectron2.data.catalog import Metadata, MetadataCatalog
from detectron2.data.transforms.augmentation import AugInput
from detectron2.data.transforms.augmentation_impl.resizing import ResizeShortestEdge
from detectron2.engine.defaults.run_notes import load_run
from detectron2.modeling.meta_arch.build import build_model, find_device
from detectron2.utils.env import setup_environment
from detectron2.utils.user_errors import UserValueError

__all__ = ["DefaultPredictor"]

logger = logging.getLogger(__name__)


class DefaultPredictor:
    """Predict on single images, as they come from a file or a camera.

    It builds the model of a config, loads `MODEL.WEIGHTS`, resizes the image as the config does for
    testing and converts its channels to `INPUT.FORMAT`. For batches, or for numbers, use a data loader and
    an evaluator.

    Attributes:
        metadata: what was given, else the metadata of the first data set in `DATASETS.TEST`, where there is
            one; with `from_checkpoint`, what the checkpoint says about its classes.
        model: the model, in evaluation mode.

    Example:
        predictor = DefaultPredictor(cfg)
        outputs = predictor(cv2.imread("input.jpg"))
    """

    def __init__(self, cfg: CfgNode, *, metadata: Metadata | None = None) -> None:
        """
        Args:
            cfg: the config; a copy is kept.
            metadata: the names of the classes; None means those of the first data set in `DATASETS.TEST`,
                with a warning where the checkpoint carries others.

        Raises:
            ValueError: `INPUT.FORMAT` is not one of colour images.
        """
        setup_environment()
        self.input_format = cfg.INPUT.FORMAT
        if self.input_format not in ("RGB", "BGR"):
            raise UserValueError(
                f"DefaultPredictor converts colour images to INPUT.FORMAT RGB or BGR, got "
                f"{self.input_format!r}. For other formats read images with detectron2.data.detection_utils "
                "and call the model."
            )
        self.cfg = cfg.clone()
        self.model = build_model(self.cfg)
        self.model.eval()
        if metadata is not None:
            self.metadata = metadata
        elif cfg.DATASETS.TEST:
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        if metadata is None:
            self._warn_of_other_classes()
        self.aug = ResizeShortestEdge(
            [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
        )

    @classmethod
    def from_checkpoint(cls, path: str, opts: Sequence[Any] = ()) -> DefaultPredictor:
        """Make a predictor from a checkpoint that carries its config and class names, as trainers here write.

        Modules that register parts of the model, those of a project, must have been imported.

        Args:
            path: a file or address.
            opts: KEY, VALUE, KEY, VALUE, ... that replace values of the config, such as "MODEL.DEVICE".

        Returns:
            The predictor; its metadata is what the checkpoint carries.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or carries no config.

        Example:
            predictor = DefaultPredictor.from_checkpoint("output/model_final.pth")
            outputs = predictor(cv2.imread("input.jpg"))
        """
        cfg, metadata = load_run(path, opts)
        predictor = cls(cfg)
        predictor.metadata = metadata
        return predictor

    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """Predict on one image.

        Args:
            original_image: (H, W, 3) array with values in [0, 255], channels in BGR order, as OpenCV reads
                it.

        Returns:
            The model's output for the image, e.g. "instances" with boxes in pixels of `original_image`.
        """
        _check_image(original_image)
        height, width = original_image.shape[:2]
        with torch.no_grad():
            image = self._to_model_input(original_image)
            inputs = {"image": image, "height": height, "width": width}
            output: dict[str, Any] = self.model([inputs])[0]
        return output

    def _warn_of_other_classes(self) -> None:
        learned = learned_classes(self.model)
        if not learned or not self.cfg.DATASETS.TEST:
            return
        for kind, names in learned.items():
            difference = describe_difference(names, self.metadata.get(kind) or names)
            if difference:
                logger.warning(
                    "The %s of DATASETS.TEST[0] are not those of %s, by which predictions are numbered: %s.",
                    kind,
                    self.cfg.MODEL.WEIGHTS,
                    difference,
                )

    def _to_model_input(self, original_image: np.ndarray) -> Tensor:
        """(H, W, 3) BGR -> (3, H', W') float32 in the model's channel order and test size."""
        image = original_image if self.input_format == "BGR" else original_image[:, :, ::-1]
        image = self.aug.get_transform(AugInput(image).image).apply_image(image)
        # The copy makes negative strides, which torch does not take, positive.
        channels_first = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy(channels_first).to(find_device(self.cfg.MODEL.DEVICE))


def _check_image(image: Any) -> None:
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return
    what = "None" if image is None else f"a {type(image).__name__}"
    if isinstance(image, (np.ndarray, Tensor)):
        what += f" of shape {tuple(image.shape)} and type {image.dtype}"
    raise UserValueError(
        f"DefaultPredictor takes one colour image as a non-empty (H, W, 3) array in BGR order, got {what}. "
        "If it was read by cv2.imread, None means that the file is missing or broken."
    )
