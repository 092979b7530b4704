"""PointRend is left out, and a file that imports its names can still be imported."""

from __future__ import annotations

import pytest

from detectron2.config import get_cfg
from detectron2.projects import point_rend


@pytest.mark.parametrize("name", point_rend.__all__)
def test_a_call_says_why_there_is_nothing(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"{name} is left out: PointRend"):
        getattr(point_rend, name)(get_cfg())
