"""slowfast pools the features of clips with our ROIAlign."""

from __future__ import annotations

import torch
from slowfast.models.head_helper import ResNetRoIHead

from detectron2.layers import ROIAlign


def test_the_head_of_detection(monkeypatch) -> None:
    torch.manual_seed(0)
    head = ResNetRoIHead(
        dim_in=[8, 4],
        num_classes=3,
        pool_size=[[2, 1, 1], [4, 1, 1]],
        resolution=[[7, 7], [7, 7]],
        scale_factor=[16, 16],
        act_func="sigmoid",
    )
    assert isinstance(head.s0_roi, ROIAlign)
    slow, fast = torch.rand(2, 8, 2, 8, 8), torch.rand(2, 4, 4, 8, 8)
    boxes = torch.tensor([[0.0, 0, 0, 64, 64], [1, 10, 20, 100, 90], [1, 0, 0, 128, 128]])
    slow.requires_grad_()
    scores = head([slow, fast], boxes)
    assert scores.shape == (3, 3)
    assert ((scores > 0) & (scores < 1)).all()
    scores.sum().backward()
    assert slow.grad is not None and slow.grad.abs().sum() > 0
    # The box of a second clip takes nothing of the first.
    only_second = head([slow[1:], fast[1:]], torch.tensor([[0.0, 10, 20, 100, 90]]))
    torch.testing.assert_close(only_second[0], scores[1])
