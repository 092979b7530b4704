"""What the demo reads and where it writes: pictures in folders, videos, animations."""

from __future__ import annotations

import glob
import logging
import mimetypes
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from detectron2.utils.paths import FreshNames
from detectron2.utils.user_errors import UserValueError

logger = logging.getLogger("detectron2.demo")

DRAWN_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
IMAGE_SUFFIXES = (*DRAWN_SUFFIXES, ".gif")  # drawings of GIFs need more colours than a GIF has
VIDEO_CODECS = {".mp4": "mp4v", ".mkv": "XVID", ".avi": "XVID"}
_VIDEO_SUFFIXES = (*VIDEO_CODECS, ".gif")
_SHORTEST_FRAME = 20  # milliseconds; viewers slow down what is faster


def find_pictures(inputs: Sequence[str], output: str | None = None) -> tuple[dict[str, str], list[str]]:
    """Resolve folders, with all folders in them, and patterns.

    Args:
        inputs: pictures, folders and patterns.
        output: where drawings go; a folder of that name is not looked into.

    Returns:
        Paths of pictures in a fixed order, each once and with the name of its drawing, which below a folder
        has the folders in it; and the inputs that name none.
    """
    found: dict[str, str] = {}
    missing = []
    for entry in inputs:
        path = os.path.expanduser(entry)
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        pictures: dict[str, str] = {}
        for match in matches:
            if os.path.isdir(match):
                pictures.update({p: os.path.relpath(p, match) for p in _pictures_below(match, output)})
            else:
                pictures[match] = os.path.basename(match)
        found.update({picture: name for picture, name in pictures.items() if picture not in found})
        if not pictures:
            missing.append(entry)
    return found, missing


def _pictures_below(root: str, output: str | None) -> Iterator[str]:
    drawings = os.path.realpath(output) if output is not None else None
    for folder, subfolders, names in os.walk(root):
        for subfolder in sorted(subfolders):
            path = os.path.join(folder, subfolder)
            reason = None
            if os.path.realpath(path) == drawings:
                reason = "drawings go there"
            elif subfolder.startswith("."):
                reason = "it is hidden"
            elif os.path.islink(path):
                reason = "it is a link"
            if reason is not None:
                logger.warning("Skipped the folder %s: %s", path, reason)
                subfolders.remove(subfolder)
        subfolders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield path
            elif (mimetypes.guess_type(name)[0] or "").startswith("image/"):
                logger.warning("Skipped %s: folders are searched for %s", path, ", ".join(IMAGE_SUFFIXES))


def names_a_file(path: str) -> bool:
    """Whether an output is meant as a file: it ends like a picture or a video, and is no folder."""
    kind = mimetypes.guess_type(path)[0] or ""
    is_known = path.lower().endswith((*IMAGE_SUFFIXES, *_VIDEO_SUFFIXES))
    return (is_known or kind.startswith(("image/", "video/"))) and not os.path.isdir(path)


def plan_outputs(pictures: Mapping[str, str], output: str | None) -> dict[str, str | None]:
    """Decide where the drawing of each picture goes; drawings of one name get numbers.

    Args:
        pictures: their paths, each with the name that its drawing gets in a folder.
        output: a folder, a file name for a single picture, or None for a window.

    Raises:
        ValueError: a drawing would take the place of an input, or the output is a file that cannot hold what
            would be drawn.
    """
    if output is None:
        return dict.fromkeys(pictures)
    if names_a_file(output):
        planned = _plan_file(list(pictures), output)
    else:
        planned, names = {}, FreshNames()
        for picture, name in pictures.items():
            stem, suffix = os.path.splitext(name)
            suffix = suffix if suffix.lower() in DRAWN_SUFFIXES else ".jpg"
            planned[picture] = os.path.join(output, names.take(stem + suffix))
    originals = {os.path.realpath(picture) for picture in pictures}
    for picture, target in planned.items():
        if os.path.realpath(target) in originals:
            raise UserValueError(
                f"the drawing of {picture} would overwrite an input; give --output another folder"
            )
    return dict(planned)


def _plan_file(pictures: Sequence[str], output: str) -> dict[str, str]:
    if len(pictures) > 1:
        raise UserValueError(
            f"--output {output} is one file, and {len(pictures)} pictures are to be drawn; name a folder"
        )
    suffix = os.path.splitext(output)[1].lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise UserValueError(
            f"cannot write a picture as '{output}': end it in one of {', '.join(DRAWN_SUFFIXES)}, .gif"
        )
    return dict.fromkeys(pictures, output)


def read_frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames of an opened video or camera, (H, W, 3) BGR, until it ends."""
    while True:
        success, frame = capture.read()
        if not success:
            return
        yield frame


def video_output(source: str | int, output: str | None) -> str | None:
    """Where the drawn video goes: the file that was named, or one in the folder that was.

    Raises:
        ValueError: the file is no video, or it is the one that is read.
    """
    if output is None:
        return None
    target = output
    if not names_a_file(output):
        stem = os.path.splitext(os.path.basename(source))[0] if isinstance(source, str) else "webcam"
        target = os.path.join(output, f"{stem}.mp4")
    if os.path.splitext(target)[1].lower() not in _VIDEO_SUFFIXES:
        raise UserValueError(
            f"cannot write a video as '{target}': end it in one of {', '.join(_VIDEO_SUFFIXES)}"
        )
    if isinstance(source, str) and os.path.realpath(target) == os.path.realpath(source):
        raise UserValueError(
            f"the drawing of {source} would overwrite it; give --output another folder or name"
        )
    return target


class FrameWriter(Protocol):
    """What takes the frames of a video."""

    def write(self, frame: np.ndarray, /) -> object:
        """Add a frame, (H, W, 3) uint8 BGR."""

    def release(self) -> None:
        """Finish the file."""


class _AnimationWriter:
    """Writes a GIF that repeats for ever."""

    def __init__(self, path: str, frames_per_second: float) -> None:
        self._path = path
        self._duration = max(_SHORTEST_FRAME, round(1000 / frames_per_second))
        self._frames: list[Image.Image] = []

    def write(self, frame: np.ndarray) -> None:
        picture = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
        self._frames.append(picture.quantize(method=Image.Quantize.FASTOCTREE))

    def release(self) -> None:
        if self._frames:
            first, *others = self._frames
            first.save(self._path, save_all=True, append_images=others, duration=self._duration, loop=0)


@contextmanager
def video_writer(path: str, frames_per_second: float, size: tuple[int, int]) -> Iterator[FrameWriter]:
    """Open a video file for writing; it appears under its name when it is complete.

    Args:
        path: ends in a suffix that `video_output` lets through.
        size: (width, height).
    """
    suffix = os.path.splitext(path)[1].lower()
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo", dir=folder) as scratch:
        temporary = os.path.join(scratch, f"video{suffix}")
        writer = _open_writer(temporary, frames_per_second, size)
        try:
            yield writer
        finally:
            writer.release()
        os.replace(temporary, path)


def _open_writer(path: str, frames_per_second: float, size: tuple[int, int]) -> FrameWriter:
    suffix = os.path.splitext(path)[1]
    if suffix == ".gif":
        return _AnimationWriter(path, frames_per_second)
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*VIDEO_CODECS[suffix]), frames_per_second, size)
    if not writer.isOpened():
        raise UserValueError(f"the installed OpenCV cannot write {suffix} videos; try another suffix")
    return writer
