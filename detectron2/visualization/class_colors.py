"""Which colour a class has: the same in every picture that is drawn with the same metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from detectron2.data.catalog import Metadata
from detectron2.utils.user_errors import UserValueError
from detectron2.visualization.colors import Color, from_rgb8, palette_color, shade

ColorBy = Literal["class", "instance", "track"]
"""What one colour stands for: every instance of a class; one instance, in a shade of its class's colour; or
one object for as long as a video shows it. Single pictures have no tracks: they take "track" as "instance".
"""


def check_color_by(color_by: str | None) -> None:
    """Refuse what is none of `ColorBy`.

    Raises:
        ValueError: naming the choices.
    """
    if color_by is not None and color_by not in get_args(ColorBy):
        raise UserValueError(f"color_by should be one of {list(get_args(ColorBy))} or None, got {color_by!r}")


class ClassColors:
    """The colours of the things and the stuff of one data set.

    `thing_colors` and `stuff_colors` of the metadata decide. A class without one takes that of the class of
    its name in the other list, as one class may be in both, and else one of the palette that no other
    class takes from there.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def of_thing(self, category: int) -> Color:
        """The colour of a class of `thing_classes`, by its place there."""
        known = self._given("thing", category) or self._of_namesake("thing", category, "stuff")
        return known or palette_color(max(category, 0))

    def of_stuff(self, category: int) -> Color:
        """The colour of a class of `stuff_classes`, by its place there."""
        known = self._given("stuff", category) or self._of_namesake("stuff", category, "thing")
        if known is not None:
            return known
        things = self._metadata.get("thing_classes") or []
        names = self._metadata.get("stuff_classes") or []
        if 0 <= category < len(names) and names[category] in things:
            return palette_color(list(things).index(names[category]))
        return palette_color(len(things) + max(category, 0))

    def _given(self, kind: str, category: int) -> Color | None:
        colors = self._metadata.get(f"{kind}_colors")
        return from_rgb8(colors[category]) if colors is not None and 0 <= category < len(colors) else None

    def _of_namesake(self, kind: str, category: int, other: str) -> Color | None:
        names = self._metadata.get(f"{kind}_classes") or []
        if not 0 <= category < len(names) or self._metadata.get(f"{other}_colors") is None:
            return None
        others = list(self._metadata.get(f"{other}_classes") or [])
        return self._given(other, others.index(names[category])) if names[category] in others else None


class Shades:
    """Shades of colours, to tell the instances of one class apart: each call gives another one."""

    def __init__(self, first: int = 0) -> None:
        """
        Args:
            first: 0 gives a colour itself before its shades, 1 shades alone.
        """
        self._first = first
        self._num_given: Counter[Color] = Counter()

    def next(self, color: Color) -> Color:
        """The next shade of a colour."""
        number = self._first + self._num_given[color]
        self._num_given[color] += 1
        return shade(color, number)

    def for_each(self, colors: Sequence[Color]) -> list[Color]:
        """One shade for each of the colours, in their order."""
        return [self.next(color) for color in colors]
