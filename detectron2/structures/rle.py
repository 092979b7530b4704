"""Run-length codes of masks, as COCO's files and evaluators use them: the one codec of this package.

Shapes: N masks, H x W pixels. A code is a dictionary with "size" [H, W] and "counts": the lengths of the
runs of 0 and 1, column after column, 0 first. Counts are compressed bytes here; files have them as text, or
as a list of numbers where they are not compressed. Polygons are [x0, y0, x1, y1, ...] and boxes XYXY, in
pixels of the image, where the corner of pixel (0, 0) is (0, 0). Everything is bit-equal to
`pycocotools.mask`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectron2.utils.user_errors import UserTypeError, UserValueError

Rle = dict[str, Any]


def _library() -> ModuleType:
    """What does the work. Most programs see no code at all, so importing the package does not load it."""
    from hotcoco import mask

    return mask


def encode(masks: Tensor | np.ndarray) -> list[Rle]:
    """Encode bitmaps.

    Args:
        masks: (N, H, W), nonzero inside of the object, on any device.

    Returns:
        N codes.

    Raises:
        ValueError: the masks have another number of dimensions.
    """
    if masks.ndim != 3:
        raise UserValueError(f"expected masks of shape (N, H, W), got {tuple(masks.shape)}")
    if not len(masks):
        return []
    # The library reads columns: laying the transpose out contiguously is the one copy that is needed.
    if isinstance(masks, Tensor):
        columns = masks.detach().ne(0).to("cpu", torch.uint8).transpose(1, 2).contiguous().numpy()
    else:
        columns = np.ascontiguousarray((masks != 0).transpose(0, 2, 1)).view(np.uint8)
    codes: list[Rle] = _library().encode(columns.transpose(2, 1, 0))  # (N, W, H) -> Fortran's (H, W, N)
    return codes


def encode_one(mask: Tensor | np.ndarray) -> Rle:
    """Encode one bitmap (H, W).

    Raises:
        ValueError: the mask has another number of dimensions.
    """
    if mask.ndim != 2:
        raise UserValueError(f"expected a mask of shape (H, W), got {tuple(mask.shape)}")
    return encode(mask[None])[0]


def from_polygons(polygons: Sequence[Any], height: int, width: int) -> Rle:
    """Rasterise the union of polygons.

    Args:
        polygons: flat lists or arrays [x0, y0, x1, y1, ...] of at least three points; none: an empty mask.
        height: H.
        width: W.

    Raises:
        ValueError: a polygon has too few points, or a point without y.
    """
    flat = [np.asarray(polygon, dtype=np.float64).reshape(-1) for polygon in polygons]
    for polygon in flat:
        if len(polygon) < 6 or len(polygon) % 2:
            raise UserValueError(
                f"expected polygons x0, y0, x1, y1, ... of at least 3 points, got one of {len(polygon)} "
                "numbers"
            )
    if not flat:
        return from_counts([height * width], height, width)
    library = _library()
    code: Rle = library.merge(library.frPyObjects(flat, height, width))
    return code


def from_counts(counts: Sequence[int], height: int, width: int) -> Rle:
    """Compress the lengths of runs.

    Args:
        counts: how many pixels are 0, how many after them 1, and so on, column after column.
        height: H.
        width: W.

    Raises:
        ValueError: a length is negative, or they do not add up to H * W.
    """
    lengths = [int(count) for count in counts]
    if sum(lengths) != height * width or min(lengths, default=0) < 0:
        raise UserValueError(
            f"RLE counts of a {height} x {width} mask must add up to {height * width}, none below 0; "
            f"they give {sum(lengths)}"
        )
    code: Rle = _library().frPyObjects({"size": [height, width], "counts": lengths}, height, width)
    return code


def compress(code: Mapping[str, Any]) -> Rle:
    """Bring a code of a file into the form that is used here.

    Args:
        code: "size", and "counts" as list, text or bytes; other keys stay.

    Returns:
        The code with compressed counts in bytes.

    Raises:
        ValueError: "size" is not a height and a width, or the counts do not fill it.
        TypeError: "counts" are something else.
    """
    height, width = image_size(code)
    counts = code["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    elif isinstance(counts, (list, tuple, np.ndarray)):
        counts = from_counts([int(count) for count in counts], height, width)["counts"]
    elif not isinstance(counts, bytes):
        raise UserTypeError(f"RLE counts must be a list, text or bytes, got {type(counts).__name__}")
    return {**code, "size": [height, width], "counts": counts}


def image_size(code: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the image that a code belongs to.

    Raises:
        ValueError: the code has no "size" and "counts", or the size is not two whole numbers from 0 on.
    """
    if "size" not in code or "counts" not in code:
        raise UserValueError(f"an RLE mask has 'size' and 'counts', got keys {sorted(map(str, code))}")
    size = [int(side) for side in code["size"]]
    if len(size) != 2 or min(size) < 0 or size != list(code["size"]):
        raise UserValueError(f"the 'size' of an RLE mask must be [height, width], got {code['size']!r}")
    return size[0], size[1]


def as_json(code: Mapping[str, Any]) -> Rle:
    """The code with its counts as text, as result files have it."""
    compressed = compress(code)
    return {"size": compressed["size"], "counts": compressed["counts"].decode("ascii")}


def decode(code: Mapping[str, Any]) -> np.ndarray:
    """Decode one code of any form that `compress` takes.

    Returns:
        (H, W) uint8, 0 or 1, in Fortran's order.

    Raises:
        ValueError: the size is none, or the counts do not belong to it.
    """
    compressed = compress(code)
    try:
        mask: np.ndarray = _library().decode(compressed)
    except ValueError as error:
        height, width = compressed["size"]
        raise UserValueError(
            f"the counts of an RLE mask do not fit its size {height} x {width}: {error}"
        ) from error
    return mask


def find_problem(code: Mapping[str, Any]) -> str | None:
    """Say why a code cannot be read: its runs are more pixels than its size has, or it is none; else None.

    Where runs end early, the pixels that are left are outside.
    """
    try:
        _library().area(code)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def areas(codes: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(N,) int64 numbers of pixels inside of N objects."""
    counted = [_library().area(compress(code)) for code in codes]
    return np.asarray(counted, dtype=np.int64)


def boxes(codes: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(N, 4) float64 XYXY boxes around N objects, all zero for an empty one."""
    if not codes:
        return np.zeros((0, 4))
    xywh = np.asarray(_library().toBbox([compress(code) for code in codes]), dtype=np.float64)  # (N, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def pairwise_iou(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(N, M) float64 intersection over union of masks; 0 where they belong to images of different sizes."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    codes = [[compress(code) for code in group] for group in (first, second)]
    overlaps = np.asarray(_library().iou(*codes, [0] * len(second)), dtype=np.float64)
    return np.maximum(overlaps, 0.0)  # -1 says that the sizes differ
