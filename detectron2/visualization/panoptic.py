"""A panoptic segmentation taken apart into masks.

Shapes: H x W the picture. Masks are (H, W) bool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detectron2.data.catalog import Metadata
from detectron2.visualization.inputs import forge_segments, to_array

Segment = Mapping[str, Any]


class PanopticPrediction:
    """The segments of one picture, stuff and things apart, the large ones first.

    Attributes:
        label_map: (H, W) ids of segments.
        areas: pixels by id, of the ids that the map has.
    """

    def __init__(
        self,
        panoptic_seg: torch.Tensor | np.ndarray,
        segments_info: Sequence[Segment] | None,
        metadata: Metadata | None = None,
    ) -> None:
        """
        Args:
            panoptic_seg: (H, W) ids of segments.
            segments_info: their "id", contiguous "category_id" and "isthing"; None for a map of
                `category * label_divisor + instance`.
            metadata: says `label_divisor` and which classes are things, where there are no segments.
        """
        self.label_map = to_array(panoptic_seg)
        if segments_info is None:
            segments_info = forge_segments(self.label_map, metadata if metadata is not None else Metadata())
        ids, counts = np.unique(self.label_map, return_counts=True)
        self.areas: dict[int, int] = dict(zip(ids.tolist(), counts.tolist()))
        present = [segment for segment in segments_info if int(segment["id"]) in self.areas]
        self._segments = sorted(present, key=lambda segment: -self.areas[int(segment["id"])])

    def non_empty_mask(self) -> np.ndarray:
        """Where any segment is: (H, W) bool."""
        return np.isin(self.label_map, [int(segment["id"]) for segment in self._segments])

    def semantic_masks(self) -> Iterator[tuple[np.ndarray, Segment]]:
        """The masks of stuff, each with its entry of `segments_info`."""
        return self._masks(things=False)

    def instance_masks(self) -> Iterator[tuple[np.ndarray, Segment]]:
        """The masks of things, each with its entry of `segments_info`."""
        return self._masks(things=True)

    def thing_classes(self) -> list[int]:
        """The class of each of `instance_masks`."""
        return [int(segment["category_id"]) for segment in self._segments if segment["isthing"]]

    def _masks(self, things: bool) -> Iterator[tuple[np.ndarray, Segment]]:
        for segment in self._segments:
            if bool(segment["isthing"]) == things:
                yield self.label_map == int(segment["id"]), segment
