"""What every tracker does with the frames of a video, empty ones among them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.structures import Boxes, Instances
from detectron2.tracking import TRACKER_HEADS_REGISTRY, BaseTracker, build_tracker_head

from . import registered
from .compare import assert_same

SIZE = (100, 200)
LEFT, MIDDLE, RIGHT = [10.0, 10.0, 50.0, 60.0], [80.0, 20.0, 120.0, 80.0], [140.0, 30.0, 190.0, 90.0]

# What a tracker needs beside the settings of all.
TRACKERS: dict[str, dict[str, float]] = {
    "BBoxIOUTracker": {},
    "IOUWeightedHungarianBBoxIOUTracker": {},
    "VanillaHungarianBBoxIOUTracker": {},
}

tracker_names = pytest.mark.parametrize("name", TRACKERS)


def test_every_tracker_has_a_row() -> None:
    assert registered.entries("TRACKER_HEADS") == sorted(TRACKERS)


def make(name: str, *, remember: int = 0) -> BaseTracker:
    cfg = get_cfg()
    cfg.TRACKER_HEADS = CfgNode(
        {
            "TRACKER_NAME": name, "VIDEO_HEIGHT": SIZE[0], "VIDEO_WIDTH": SIZE[1], "TRACK_IOU_THRESHOLD": 0.5,
            "MAX_LOST_FRAME_COUNT": remember, "MIN_INSTANCE_PERIOD": 0, **TRACKERS[name],
        }
    )  # fmt: skip
    tracker = build_tracker_head(cfg)
    assert type(tracker) is TRACKER_HEADS_REGISTRY.get(name)
    return tracker


def frame(*boxes: list[float], shift: float = 0.0) -> Instances:
    """Detections of one frame, all of one class, with masks as the trackers' users have them."""
    tensor = torch.tensor(boxes).reshape(-1, 4) + shift
    number = len(tensor)
    return Instances(
        SIZE,
        pred_boxes=Boxes(tensor),
        pred_classes=torch.zeros(number, dtype=torch.int64),
        scores=torch.linspace(0.9, 0.5, number),
        pred_masks=torch.zeros(number, *SIZE, dtype=torch.bool),
    )


@tracker_names
def test_a_video_of_empty_frames_has_no_identities(name: str) -> None:
    tracker = make(name)
    for _ in range(3):
        tracked = tracker.update(frame())
        assert len(tracked) == 0 and list(tracked.ID) == []


@tracker_names
def test_detections_keep_their_identities_in_any_order(name: str) -> None:
    tracker = make(name)
    first = tracker.update(frame(LEFT, MIDDLE, RIGHT))
    assert len(set(first.ID)) == 3
    assert list(tracker.update(frame(RIGHT, LEFT, MIDDLE, shift=3.0)).ID) == [
        first.ID[2],
        first.ID[0],
        first.ID[1],
    ]


@tracker_names
def test_who_is_new_gets_an_identity_that_nobody_had(name: str) -> None:
    tracker = make(name)
    seen = set(tracker.update(frame(LEFT)).ID)
    both = tracker.update(frame(LEFT, MIDDLE))
    assert both.ID[0] in seen and both.ID[1] not in seen
    seen |= set(both.ID)
    tracker.update(frame())
    later = set(tracker.update(frame(LEFT, MIDDLE, RIGHT)).ID)
    assert len(later) == 3 and not later & seen


@tracker_names
def test_who_is_remembered_over_an_empty_frame_keeps_the_identity(name: str) -> None:
    tracker = make(name, remember=2)
    first = tracker.update(frame(LEFT, RIGHT))
    assert sorted(tracker.update(frame()).ID) == sorted(first.ID)
    assert list(tracker.update(frame(RIGHT, LEFT)).ID) == [first.ID[1], first.ID[0]]


@tracker_names
@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original_does_and_apart_from_it(name: str, duplicate: str) -> None:
    tracker = make(name, remember=2)
    tracker.update(frame(LEFT, MIDDLE))
    twin = copy.deepcopy(tracker) if duplicate == "deepcopy" else pickle.loads(pickle.dumps(tracker))
    rest = (frame(MIDDLE), frame(RIGHT, LEFT), frame())
    expected = [tracker.update(copy.deepcopy(detections)) for detections in rest]
    for detections, tracked in zip(rest, expected):
        assert_same(tracked, twin.update(copy.deepcopy(detections)))


@tracker_names
def test_what_goes_in_is_left_alone_and_what_comes_out_is_the_callers(name: str) -> None:
    tracker, other = make(name), make(name)
    detections = frame(LEFT, MIDDLE)
    before = copy.deepcopy(detections)
    tracked = tracker.update(detections)
    assert_same(before, detections)
    tracked.pred_boxes.tensor.zero_()
    tracked.ID[0] = 99
    other.update(frame(LEFT, MIDDLE))
    assert_same(tracker.update(frame(MIDDLE, LEFT)), other.update(frame(MIDDLE, LEFT)))
