"""What a tracker is, the registry of trackers, and the function that makes the one a config names."""

from __future__ import annotations

from typing import Any

from detectron2.config.config.construction import configurable
from detectron2.config.config.node import CfgNode
from detectron2.structures.instances import Instances
from detectron2.utils.registry import Registry
from detectron2.utils.user_errors import UserNotImplementedError, UserValueError

TRACKER_HEADS_REGISTRY = Registry("TRACKER_HEADS")
TRACKER_HEADS_REGISTRY.__doc__ = """
Subclasses of `BaseTracker`, made by `(cfg)`.
"""


class BaseTracker:
    """Takes the detections of a video, one frame after the other, and says which belong together."""

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        """
        Args:
            kwargs: for subclasses; not used here.
        """
        self._prev_instances: Instances | None = None  # what `update` returned last
        self._matched_idx: set[int] = set()  # of this frame's detections, those that continue one
        self._matched_ID: set[int] = set()  # identities of these
        self._untracked_prev_idx: set[int] = set()  # of the frame before, those that nothing continues
        self._id_count = 0  # identities given so far

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        raise UserNotImplementedError(f"{cls.__name__} does not define from_config")

    def update(self, predictions: Instances) -> Instances:
        """Take the detections of the next frame.

        Args:
            predictions: with `pred_boxes`.

        Returns:
            The same with `ID` and what else the tracker knows.
        """
        raise UserNotImplementedError(f"{type(self).__name__} does not define update")


def build_tracker_head(cfg: CfgNode) -> BaseTracker:
    """Build the tracker `TRACKER_HEADS.TRACKER_NAME`; the default config has no such node, add one.

    Raises:
        ValueError: the config has no such key.
        KeyError: no tracker of this name is registered.
    """
    tracker: BaseTracker = TRACKER_HEADS_REGISTRY.get(
        tracker_options(cfg, required=("TRACKER_NAME",))["tracker_name"]
    )(cfg)
    return tracker


def tracker_options(cfg: CfgNode, required: tuple[str, ...], **defaults: Any) -> dict[str, Any]:
    """Read arguments of a tracker from the node `TRACKER_HEADS` of a config.

    Args:
        required: keys that must be there.
        defaults: values of arguments whose keys (the names in capitals) may be missing.
    """
    node = cfg.get("TRACKER_HEADS")
    missing = [key for key in required if node is None or key not in node]
    if missing:
        raise UserValueError(
            f"A tracker needs TRACKER_HEADS.{' and TRACKER_HEADS.'.join(missing)} in its config; add "
            "`cfg.TRACKER_HEADS = CfgNode({...})`"
        )
    options = {key.lower(): node[key] for key in required}
    return {**options, **{name: node.get(name.upper(), default) for name, default in defaults.items()}}
