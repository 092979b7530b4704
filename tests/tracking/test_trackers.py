from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.tracking import (
    TRACKER_HEADS_REGISTRY,
    BaseHungarianTracker,
    BaseTracker,
    BBoxIOUTracker,
    IOUWeightedHungarianBBoxIOUTracker,
    VanillaHungarianBBoxIOUTracker,
    build_tracker_head,
    create_prediction_pairs,
)
from detectron2.tracking.utils import LARGE_COST_VALUE

SIZE = (100, 200)
TRACKERS = [BBoxIOUTracker, VanillaHungarianBBoxIOUTracker, IOUWeightedHungarianBBoxIOUTracker]
EVERY_TRACKER = pytest.mark.parametrize("kind", TRACKERS)
A, B, C = [10.0, 10, 50, 50], [100.0, 10, 140, 50], [60.0, 60, 90, 90]


def frame(*boxes: list[float], **fields: Any) -> Instances:
    return Instances(SIZE, pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)), **fields)


def moved(box: list[float], dx: float) -> list[float]:
    return [box[0] + dx, box[1], box[2] + dx, box[3]]


def make(kind: Any, **options: Any) -> Any:
    return kind(**{"video_height": SIZE[0], "video_width": SIZE[1], **options})


@EVERY_TRACKER
def test_identities_follow_boxes(kind: Any) -> None:
    tracker = make(kind)
    first = tracker.update(frame(A, B))
    assert (first.ID, first.ID_period, first.lost_frame_count) == ([0, 1], [1, 1], [0, 0])
    second = tracker.update(frame(moved(B, 5), C, moved(A, -5)))
    assert (second.ID, second.ID_period) == ([1, 2, 0], [2, 1, 2])
    third = tracker.update(frame(moved(C, 3)))
    assert (third.ID, third.ID_period, len(third)) == ([2], [2], 1)


@EVERY_TRACKER
def test_boxes_that_overlap_too_little_are_different_objects(kind: Any) -> None:
    """Also when nothing else is left for an assignment to give them."""
    tracker = make(kind, track_iou_threshold=0.5)
    tracker.update(frame(A))
    assert tracker.update(frame(moved(A, 20))).ID == [1]  # IoU 1 / 3
    assert tracker.update(frame(C)).ID == [2]
    assert make(kind, track_iou_threshold=0.3).update(frame(A)).ID == [0]


@EVERY_TRACKER
def test_lost_ones_are_remembered_for_some_frames(kind: Any) -> None:
    tracker = make(kind, max_lost_frame_count=2, min_instance_period=1)
    tracker.update(frame(A, B))
    tracker.update(frame(A, B))
    lost = tracker.update(frame(B))
    assert (lost.ID, lost.ID_period, lost.lost_frame_count) == ([1, 0], [3, 2], [0, 1])
    assert torch.equal(lost.pred_boxes.tensor[1], torch.tensor(A))
    found = tracker.update(frame(A, B))
    assert (found.ID, found.lost_frame_count) == ([0, 1], [0, 0])
    for expected in ([1, 0], [1, 0], [1]):
        assert tracker.update(frame(B)).ID == expected
    assert tracker.update(frame(A, B)).ID == [2, 1]


@EVERY_TRACKER
@pytest.mark.parametrize(
    "options", [{"min_instance_period": 2}, {"min_box_rel_dim": 0.41}, {"max_lost_frame_count": 0}]
)
def test_some_are_not_worth_remembering(kind: Any, options: dict[str, Any]) -> None:
    tracker = make(kind, **{"max_lost_frame_count": 9, **options})
    for _ in range(2):
        tracker.update(frame(A))  # 40 of 100 pixels high
    assert len(tracker.update(frame())) == 0
    assert tracker.update(frame(A)).ID == [1]


@EVERY_TRACKER
def test_there_is_a_limit_to_what_is_remembered(kind: Any) -> None:
    tracker = make(kind, max_lost_frame_count=9, max_num_instances=2)
    for _ in range(2):
        tracker.update(frame(A, B, C))
    assert tracker.update(frame(C)).ID == [2, 0]


@EVERY_TRACKER
def test_empty_frames(kind: Any) -> None:
    tracker = make(kind)
    for boxes, expected in [((), []), ((A,), [0]), ((), []), ((A, B), [1, 2]), ((A, B), [1, 2])]:
        assert tracker.update(frame(*boxes)).ID == expected


@EVERY_TRACKER
def test_other_fields_stay_with_their_objects(kind: Any) -> None:
    tracker = make(kind, max_lost_frame_count=1)
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, 10:50, 10:50] = True
    fields = {"scores": torch.tensor([0.9, 0.8]), "pred_keypoints": torch.ones(2, 3, 3), "pred_masks": masks}
    given = frame(A, B, **fields)
    for _ in range(2):
        tracker.update(given)
    assert not given.has("ID")
    result = tracker.update(given[1])
    assert result.ID == [1, 0] and result.scores.tolist() == pytest.approx([0.8, 0.9])
    assert torch.equal(result.pred_masks, masks.flip(0)) and result.pred_keypoints.shape == (2, 3, 3)


@EVERY_TRACKER
def test_a_result_may_be_changed_by_its_owner(kind: Any) -> None:
    tracker = make(kind)
    result = tracker.update(frame(A, B))
    result.pred_boxes.scale(5, 5)
    result.ID[:] = [7, 8]
    assert tracker.update(frame(A, B)).ID == [0, 1]


def test_frames_of_another_size_are_refused() -> None:
    tracker = make(BBoxIOUTracker, max_lost_frame_count=1)
    for _ in range(2):
        tracker.update(frame(A))
    other = Instances((7, 9), pred_boxes=Boxes(torch.tensor([C])))
    with pytest.raises(ValueError, match="image sizes differ"):
        tracker.update(other)
    with pytest.raises(ValueError, match="size of the video"):
        make(BBoxIOUTracker, video_height=0)


def test_greedy_and_optimal_matching_differ_where_the_best_pair_leaves_one_over() -> None:
    """Previous p and q; now x, which overlaps both and p most, and y, which overlaps only p."""
    p, q = [0.0, 0, 100, 50], [30.0, 0, 130, 50]
    x, y = [10.0, 0, 110, 50], [-25.0, 0, 75, 50]
    expected = {
        BBoxIOUTracker: [0, 2],  # IoU 0.82 of x and p comes first, and y is new
        VanillaHungarianBBoxIOUTracker: [1, 0],
        IOUWeightedHungarianBBoxIOUTracker: [1, 0],
    }
    for kind, ids in expected.items():
        tracker = make(kind, track_iou_threshold=0.5)
        tracker.update(frame(p, q))
        assert tracker.update(frame(x, y)).ID == ids, kind


def test_weighted_matching_prefers_closer_boxes() -> None:
    p, q = [0.0, 0, 100, 50], [20.0, 0, 120, 50]
    tracker = make(IOUWeightedHungarianBBoxIOUTracker)
    tracker.update(frame(p, q))
    assert tracker.update(frame(moved(q, 1), moved(p, 1))).ID == [1, 0]


def test_costs() -> None:
    previous = frame(A, B, ID=[0, 1], ID_period=[1, 1])
    now = frame(moved(B, 10), C)
    iou = 30 / 50
    cost = make(VanillaHungarianBBoxIOUTracker).build_cost_matrix(now, previous)
    assert cost.tolist() == [[LARGE_COST_VALUE, -1], [LARGE_COST_VALUE] * 2]
    weighted = make(IOUWeightedHungarianBBoxIOUTracker).build_cost_matrix(now, previous)
    assert weighted[0, 1] == pytest.approx(-iou) and (weighted != LARGE_COST_VALUE).sum() == 1


def test_prediction_pairs() -> None:
    previous = frame(A, B, ID=[4, 9], ID_period=[1, 3])
    iou = np.array([[0.5, 0.49], [0.0, 0.75]])
    expected = [
        {"idx": 0, "prev_idx": 0, "prev_id": 4, "IoU": 0.5, "prev_period": 1},
        {"idx": 1, "prev_idx": 1, "prev_id": 9, "IoU": 0.75, "prev_period": 3},
    ]
    assert create_prediction_pairs(frame(A, B), previous, iou) == expected
    assert (
        create_prediction_pairs(frame(A, B), previous, torch.from_numpy(iou), threshold=0.6) == expected[1:]
    )
    with pytest.raises(ValueError, match="2 x 2"):
        create_prediction_pairs(frame(A, B), previous, iou[:1])


@EVERY_TRACKER
def test_trackers_are_built_from_configs(kind: Any) -> None:
    cfg = CfgNode()
    cfg.TRACKER_HEADS = CfgNode(
        {"TRACKER_NAME": kind.__name__, "VIDEO_HEIGHT": 100, "VIDEO_WIDTH": 200, "TRACK_IOU_THRESHOLD": 0.3}
    )
    tracker = build_tracker_head(cfg)
    assert type(tracker) is kind and TRACKER_HEADS_REGISTRY.get(kind.__name__) is kind
    tracker.update(frame(A))
    assert tracker.update(frame(moved(A, 20))).ID == [0]  # IoU 1 / 3


def test_missing_keys_and_names_are_told() -> None:
    cfg = CfgNode()
    with pytest.raises(ValueError, match=r"TRACKER_HEADS\.TRACKER_NAME"):
        build_tracker_head(cfg)
    cfg.TRACKER_HEADS = CfgNode({"TRACKER_NAME": "BBoxIOUTrack", "VIDEO_WIDTH": 3})
    with pytest.raises(KeyError, match="BBoxIOUTracker"):
        build_tracker_head(cfg)
    cfg.TRACKER_HEADS.TRACKER_NAME = "BBoxIOUTracker"
    with pytest.raises(ValueError, match=r"TRACKER_HEADS\.VIDEO_HEIGHT"):
        build_tracker_head(cfg)


def test_own_trackers() -> None:
    """A plug-in defines what matches cost."""

    class LeftmostTracker(BaseHungarianTracker):
        def build_cost_matrix(self, instances: Instances, prev_instances: Instances) -> np.ndarray:
            x, prev_x = (i.pred_boxes.tensor[:, 0].numpy() for i in (instances, prev_instances))
            return np.abs(x[:, None] - prev_x)

    tracker = LeftmostTracker(*SIZE)
    tracker.update(frame(A, B, C))
    assert tracker.update(frame(moved(C, 1), moved(A, 1), moved(B, 1))).ID == [2, 0, 1]
    with pytest.raises(NotImplementedError, match="BaseTracker"):
        BaseTracker().update(frame(A))


@EVERY_TRACKER
def test_a_new_tracker_has_seen_nothing(kind: Any) -> None:
    tracker = make(kind)
    assert tracker._prev_instances is None and tracker._id_count == 0
    assert (tracker._video_height, tracker._video_width) == SIZE
    fresh = tracker._initialize_extra_fields(frame(A, B))
    assert (fresh.ID, fresh.ID_period, fresh.lost_frame_count) == ([0, 1], [1, 1], [0, 0])
    assert tracker._id_count == 2
    tracker._prev_instances = fresh
    assert tracker._initialize_extra_fields(frame(A)).ID == [None]


def test_steps_of_the_greedy_tracker() -> None:
    tracker = make(BBoxIOUTracker, max_lost_frame_count=3, min_instance_period=0)
    tracker.update(frame(A, B))
    tracker._reset_fields()
    assert tracker._untracked_prev_idx == {0, 1}
    assert tracker._matched_idx == tracker._matched_ID == set()
    tracker._matched_idx, tracker._untracked_prev_idx = {1}, {0}
    found = tracker._initialize_extra_fields(frame(C, B))
    found.ID[1] = 1
    assert tracker._assign_new_id(found).ID == [2, 1]
    merged = tracker._merge_untracked_instances(tracker._assign_new_id(frame_with_identities(C, B)))
    assert merged.ID[2:] == [0] and merged.lost_frame_count[2:] == [1]
    tracker.update(frame(B, C))
    assert tracker._matched_idx == {0} and tracker._matched_ID == {1} and tracker._untracked_prev_idx == {0}


def frame_with_identities(*boxes: list[float]) -> Instances:
    nothing: list[Any] = [0] * len(boxes)
    return frame(*boxes, ID=[*nothing], ID_period=[*nothing], lost_frame_count=[*nothing])


@pytest.mark.parametrize("kind", TRACKERS[1:])
def test_steps_of_trackers_by_assignment(kind: Any) -> None:
    tracker = make(kind, max_lost_frame_count=3, min_instance_period=0)
    tracker.update(frame(A, B))
    found = tracker._initialize_extra_fields(frame(B, C))
    found = tracker._process_matched_idx(found, np.array([0]), np.array([1]))
    assert (found.ID, found.ID_period, found.lost_frame_count) == ([1, None], [2, None], [0, None])
    found = tracker._process_unmatched_idx(found, np.array([0]))
    assert (found.ID, found.ID_period) == ([1, 2], [2, 1])
    found = tracker._process_unmatched_prev_idx(found, np.array([1]))
    assert (found.ID, found.lost_frame_count) == ([1, 2, 0], [0, 0, 1])


@EVERY_TRACKER
def test_a_step_that_is_overridden_has_its_effect(kind: Any) -> None:
    class InHundreds(kind):  # type: ignore[misc]  # a class from the table
        def _assign_new_id(self, instances: Instances) -> Instances:
            return self._number(super()._assign_new_id(instances))

        def _process_unmatched_idx(self, instances: Instances, matched_idx: np.ndarray) -> Instances:
            return self._number(super()._process_unmatched_idx(instances, matched_idx))

        def _number(self, instances: Instances) -> Instances:
            instances.ID = [identity * 100 for identity in instances.ID]
            return instances

    tracker = make(InHundreds)
    tracker.update(frame(A))
    assert tracker.update(frame(A, C)).ID == [0, 100]


def test_pairs_of_the_greedy_tracker_are_a_step() -> None:
    class OneIdentityForAll(BBoxIOUTracker):
        def _create_prediction_pairs(self, instances: Instances, iou_all: np.ndarray) -> list[dict[str, Any]]:
            assert iou_all.shape == (2, 2)
            pairs = super()._create_prediction_pairs(instances, iou_all)
            assert [(pair["idx"], pair["prev_idx"], pair["IoU"]) for pair in pairs] == [(0, 1, 1.0)]
            return [{**pairs[0], "IoU": 0.4}, {**pairs[0], "idx": 1}]

    tracker = make(OneIdentityForAll, track_iou_threshold=0.5)
    tracker.update(frame(A, B))
    assert tracker.update(frame(B, C)).ID == [2, 1]
