"""What a module knows about a feature map before it sees one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Describe a tensor between modules; None stands for "not known".

    Attributes:
        channels: number of channels.
        height: rows.
        width: columns.
        stride: input-image pixels per cell.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
