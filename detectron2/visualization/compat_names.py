"""Names that other people's code takes from modules of this package, and that nothing of ours uses.

The facades in `detectron2/utils` hand them on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata


@dataclass
class DetectedInstance:
    """What a drawer of videos remembers of an object.

    Attributes:
        label: its class.
        bbox: (4,) XYXY in pixels, or None.
        mask_rle: its mask as run lengths, or None.
        color: in which it is drawn.
        ttl: for how many more frames it is remembered.
    """

    label: int
    bbox: Any
    mask_rle: Any
    color: Any
    ttl: int


class PanopticPrediction:
    """The segments of a panoptic segmentation as masks, large ones first; H x W is the image."""

    def __init__(
        self,
        panoptic_seg: torch.Tensor,
        segments_info: Sequence[Mapping[str, Any]] | None,
        metadata: Metadata | None = None,
    ) -> None:
        """
        Args:
            panoptic_seg: (H, W) ids of segments.
            segments_info: their "id", contiguous "category_id" and "isthing"; None for a map of
                `category * label_divisor + instance`, whose negative ids are nothing.
            metadata: of the data set; needed without `segments_info`.
        """
        ids, areas = (values.tolist() for values in torch.unique(panoptic_seg, return_counts=True))
        if segments_info is None:
            assert metadata is not None
            things = set(metadata.thing_dataset_id_to_contiguous_id.values())
            classes = {id: int(id // metadata.label_divisor) for id in ids if id >= 0}
            segments_info = [{"id": i, "category_id": c, "isthing": c in things} for i, c in classes.items()]
        self._seg, self._area = panoptic_seg, dict(zip(ids, areas))
        present = [segment for segment in segments_info if segment["id"] in self._area]
        self._segments = sorted(present, key=lambda segment: -self._area[segment["id"]])

    def non_empty_mask(self) -> np.ndarray:
        """(H, W) bool: where any segment is."""
        known = torch.tensor([segment["id"] for segment in self._segments], dtype=self._seg.dtype)
        mask: np.ndarray = torch.isin(self._seg.cpu(), known).numpy()
        return mask

    def semantic_masks(self) -> Iterator[tuple[np.ndarray, Mapping[str, Any]]]:
        """(H, W) bool mask and description of each segment of stuff."""
        return self._masks(is_thing=False)

    def instance_masks(self) -> Iterator[tuple[np.ndarray, Mapping[str, Any]]]:
        """(H, W) bool mask and description of each thing."""
        return self._masks(is_thing=True)

    def _masks(self, is_thing: bool) -> Iterator[tuple[np.ndarray, Mapping[str, Any]]]:
        for segment in self._segments:
            if bool(segment["isthing"]) == is_thing:
                yield (self._seg == segment["id"]).cpu().numpy(), segment
