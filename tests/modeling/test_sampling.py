from __future__ import annotations

import pytest
import torch

from detectron2.modeling.sampling import subsample_labels


@pytest.mark.parametrize(
    ("num_positive", "num_negative", "expected"),
    [
        (10, 50, (4, 12)),  # positives capped, negatives fill up
        (2, 50, (2, 14)),
        (10, 3, (4, 3)),  # negatives run out; positives stay capped
        (0, 0, (0, 0)),
        (1, 0, (1, 0)),
    ],
)
def test_counts(num_positive: int, num_negative: int, expected: tuple[int, int], device: str) -> None:
    labels = torch.cat((torch.full((num_positive,), 2), torch.full((num_negative,), 7), torch.full((3,), -1)))
    labels = labels.to(device)
    positive, negative = subsample_labels(labels, 16, 0.25, bg_label=7)
    assert (len(positive), len(negative)) == expected
    assert (labels[positive] == 2).all() and (labels[negative] == 7).all()
    assert len(positive.unique()) == len(positive) and len(negative.unique()) == len(negative)


def test_every_candidate_can_be_drawn_and_the_seed_decides() -> None:
    labels = torch.tensor([0] * 8 + [1] * 8)
    torch.manual_seed(0)
    drawn = [subsample_labels(labels, 4, 0.5, bg_label=0) for _ in range(60)]
    assert set(torch.cat([torch.cat(d) for d in drawn]).tolist()) == set(range(16))
    torch.manual_seed(0)
    again = subsample_labels(labels, 4, 0.5, bg_label=0)
    assert [x.tolist() for x in again] == [x.tolist() for x in drawn[0]]
