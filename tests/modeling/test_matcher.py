from __future__ import annotations

import pytest
import torch

from detectron2.modeling.matcher import Matcher

QUALITY = torch.tensor(
    [
        # predictions: ordinary, ignored, foreground, best of row 0, tie of row 1, tie of row 1
        [0.10, 0.40, 0.90, 0.05, 0.20, 0.00],
        [0.20, 0.35, 0.10, 0.00, 0.45, 0.45],
    ]
)


def reference(quality: torch.Tensor, cuts: list[float], labels: list[int], low: bool) -> tuple[list, list]:
    """The definition, prediction by prediction."""
    matches, out = [], []
    num_gt, num_predictions = quality.shape
    for p in range(num_predictions):
        column = [quality[g, p].item() for g in range(num_gt)]
        best = max(range(num_gt), key=lambda g: (column[g], -g)) if num_gt else 0
        value = column[best] if num_gt else 0.0
        label = labels[sum(torch.tensor(value) >= c for c in cuts)]
        if low and any(column[g] == max(quality[g].tolist()) for g in range(num_gt)):
            label = 1
        matches.append(best)
        out.append(label)
    return matches, out


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize(("cuts", "labels"), [([0.3, 0.7], [0, -1, 1]), ([0.5], [0, 1]), ([0.45], [0, 1])])
def test_labels_follow_the_table(cuts: list[float], labels: list[int], low: bool, device: str) -> None:
    matches, got = Matcher(cuts, labels, allow_low_quality_matches=low)(QUALITY.to(device))
    assert matches.dtype == torch.int64 and got.dtype == torch.int8
    assert (matches.tolist(), got.tolist()) == reference(QUALITY, cuts, labels, low)


def test_random_matrices_agree_with_the_definition() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        quality = (torch.rand(3, 8) * 10).round() / 10  # many ties
        matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
        labels = matcher(quality)[1].tolist()
        assert labels == reference(quality, [0.3, 0.7], [0, -1, 1], True)[1]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_without_ground_truth_or_predictions(shape: tuple[int, int]) -> None:
    matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
    matches, labels = matcher(torch.zeros(shape))
    assert matches.tolist() == labels.tolist() == [0] * shape[1]


def test_a_lowest_label_that_is_not_background_is_kept_without_ground_truth() -> None:
    assert Matcher([0.5], [-1, 1])(torch.zeros(0, 2))[1].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("cuts", "labels", "message"),
    [([0.5], [0], "one label more"), ([0.7, 0.3], [0, -1, 1], "ascending"), ([0.5], [0, 2], "must be -1")],
)
def test_wrong_tables_are_refused(cuts: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Matcher(cuts, labels)
