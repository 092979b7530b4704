"""The bookkeeping of identities, for trackers that only say which boxes of two frames belong together."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.structures.instances import Instances
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

from .base_tracker import BaseTracker, tracker_options


class IdentityTracker(BaseTracker):
    """Hands identities on from matched detections, and remembers lost ones for some frames.

    A subclass defines `_match`, or all of `_follow`.
    """

    @configurable
    def __init__(
        self,
        video_height: int,
        video_width: int,
        max_num_instances: int = 200,
        max_lost_frame_count: int = 0,
        min_box_rel_dim: float = 0.02,
        min_instance_period: int = 1,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            video_height: of the frames, in pixels.
            video_width: of the frames, in pixels.
            max_num_instances: most detections of a frame with remembered ones; beyond, lost ones are dropped.
            max_lost_frame_count: for how many frames a lost one is remembered.
            min_box_rel_dim: smaller ones, as a fraction of the video's width or height, are not remembered.
            min_instance_period: only those are remembered that were seen in more frames than this.
            kwargs: of `BaseTracker`.
        """
        super().__init__(**kwargs)
        if video_height <= 0 or video_width <= 0:
            raise UserValueError(
                f"the size of the video must be positive, got {video_height} x {video_width}"
            )
        self._video_height, self._video_width = video_height, video_width
        self._max_num_instances, self._max_lost_frame_count = max_num_instances, max_lost_frame_count
        self._min_box_rel_dim, self._min_instance_period = min_box_rel_dim, min_instance_period

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return tracker_options(
            cfg,
            required=("VIDEO_HEIGHT", "VIDEO_WIDTH"),
            max_num_instances=200,
            max_lost_frame_count=0,
            min_box_rel_dim=0.02,
            min_instance_period=1,
        )

    def update(self, instances: Instances) -> Instances:
        """Take the detections of the next frame.

        Args:
            instances: with `pred_boxes`; the other fields are the same in all frames.

        Returns:
            The detections, and behind them the lost ones that are remembered, with three more fields, lists
            of int: `ID`; `ID_period`, in how many frames it was seen; `lost_frame_count`, for how many it is
            lost.
        """
        previous = self._prev_instances
        tracked = self._initialize_extra_fields(instances)
        if previous is not None:
            tracked = self._follow(tracked, previous)
        # A copy, because what is returned belongs to the caller.
        self._prev_instances = copy.deepcopy(tracked)
        return tracked

    def _initialize_extra_fields(self, instances: Instances) -> Instances:
        """The detections with fields of identity: new identities in the first frame, None in later ones."""
        tracked = Instances(instances.image_size, **instances.get_fields())
        for name in ("ID", "ID_period", "lost_frame_count"):
            tracked.set(name, [None] * len(instances))
        if self._prev_instances is None:
            self._give_new_identities(tracked, range(len(tracked)))
        return tracked

    def _follow(self, instances: Instances, prev_instances: Instances) -> Instances:
        """Fill the fields of identity in, and append the lost ones that are remembered."""
        raise UserNotImplementedError(f"{type(self).__name__} does not define _follow")

    def _match(self, instances: Instances, prev_instances: Instances) -> dict[int, int]:
        """Index of a detection -> index of the previous one that it continues, both at most once."""
        raise UserNotImplementedError(f"{type(self).__name__} does not define _match")

    def _give_new_identities(self, instances: Instances, indices: Iterable[int]) -> None:
        for index in indices:
            instances.ID[index], instances.ID_period[index] = self._id_count, 1
            instances.lost_frame_count[index] = 0
            self._id_count += 1

    def _hand_identities_on(self, instances: Instances, matches: Mapping[int, int]) -> None:
        """Give detections the identity of the previous ones that they continue: `matches`, as of `_match`."""
        previous = self._require_previous()
        for index, prev_index in matches.items():
            instances.ID[index] = previous.ID[prev_index]
            instances.ID_period[index] = previous.ID_period[prev_index] + 1
            instances.lost_frame_count[index] = 0

    def _with_remembered(self, instances: Instances, lost: Iterable[int]) -> Instances:
        """The detections, and behind them those of the lost previous ones that are worth remembering."""
        previous = self._require_previous()
        x1_y1, x2_y2 = previous.pred_boxes.tensor.double().cpu().numpy().reshape(-1, 2, 2).swapaxes(0, 1)
        video_size = np.array([self._video_width, self._video_height], dtype=np.float64)
        is_large = ((x2_y2 - x1_y1) / video_size >= self._min_box_rel_dim).all(axis=1)
        kept = [
            previous[i]
            for i in sorted(lost)
            if is_large[i]
            and previous.lost_frame_count[i] < self._max_lost_frame_count
            and previous.ID_period[i] > self._min_instance_period
        ]
        for instance in kept:
            instance.lost_frame_count = [count + 1 for count in instance.lost_frame_count]
        return Instances.cat([instances, *kept[: max(self._max_num_instances - len(instances), 0)]])

    def _require_previous(self) -> Instances:
        if self._prev_instances is None:
            raise UserValueError("the tracker has seen no frame yet: call update() with the first one")
        return self._prev_instances


class IOUIdentityTracker(IdentityTracker):
    """Only boxes that overlap enough can belong together."""

    @configurable
    def __init__(
        self,
        *,
        video_height: int,
        video_width: int,
        max_num_instances: int = 200,
        max_lost_frame_count: int = 0,
        min_box_rel_dim: float = 0.02,
        min_instance_period: int = 1,
        track_iou_threshold: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            video_height: of the frames, in pixels.
            video_width: of the frames, in pixels.
            max_num_instances: most detections of a frame with remembered ones; beyond, lost ones are dropped.
            max_lost_frame_count: for how many frames a lost one is remembered.
            min_box_rel_dim: smaller ones, as a fraction of the video's width or height, are not remembered.
            min_instance_period: only those are remembered that were seen in more frames than this.
            track_iou_threshold: least IoU of a match.
            kwargs: of `BaseTracker`.
        """
        remembering = (max_num_instances, max_lost_frame_count, min_box_rel_dim, min_instance_period)
        super().__init__(video_height, video_width, *remembering, **kwargs)
        self._track_iou_threshold = track_iou_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        threshold = tracker_options(cfg, required=(), track_iou_threshold=0.5)
        return {**super().from_config(cfg), **threshold}
