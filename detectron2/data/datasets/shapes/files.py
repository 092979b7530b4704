"""Writing the embedded data set to disk in the layout of COCO panoptic.

    shapes/{train,val}/000000000001.jpg             pictures
    shapes/panoptic_{train,val}/000000000001.png    segment ids as R + 256 G + 65536 B
    shapes/annotations/panoptic_{train,val}.json    segments: category, area, box, crowd flag
    shapes/annotations/instances_{train,val}.json   the things among them, masks as run lengths

Work is done in chunks. A finished chunk leaves its annotations in a part file, so that a run that was stopped
continues where it was. Boxes are XYWH in image pixels, like everywhere in COCO.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from detectron2.structures import rle
from detectron2.structures.panoptic_ids import id_of_color
from detectron2.utils.file_io import atomic_write

from .layout import SplitFiles, SplitRecipe
from .scene import Scene, SceneSegment

logger = logging.getLogger(__name__)

_CHUNK_SIZE = 25
_JPEG_QUALITY = 92

SceneRenderer = Callable[[int], Scene]


def write_split(
    files: SplitFiles,
    recipe: SplitRecipe,
    num_images: int,
    render: SceneRenderer,
    categories: list[dict[str, Any]],
    num_workers: int = 1,
) -> int:
    """Write the first `num_images` scenes of a split, except for those that are there already.

    Args:
        files: where to write.
        recipe: what `render` draws.
        num_images: size of the split.
        render: draws the scene of an index; sent to other processes when there are several workers.
        categories: as they go into the panoptic JSON.
        num_workers: processes that draw; 1 draws in this one.

    Returns:
        The number of scenes that were drawn.
    """
    for folder in (files.image_root, files.panoptic_root, files.parts_root):
        folder.mkdir(parents=True, exist_ok=True)
    records = _read_records(files, recipe)
    missing = [index for index in range(num_images) if index not in records]
    if missing:
        chunks = [missing[start : start + _CHUNK_SIZE] for start in range(0, len(missing), _CHUNK_SIZE)]
        work = partial(_write_chunk, files, recipe, render, {c["name"]: c for c in categories})
        with tqdm(total=len(missing), desc=f"shapes {files.split}", unit="scene") as bar:
            for chunk_records in _map_chunks(work, chunks, num_workers):
                records.update(chunk_records)
                bar.update(len(chunk_records))
    _write_annotations(files, recipe, [records[index] for index in range(num_images)], categories)
    for part in files.parts_root.glob("*.json"):
        part.unlink()
    files.parts_root.rmdir()
    return len(missing)


def is_complete(files: SplitFiles, recipe: SplitRecipe, num_images: int) -> bool:
    """Whether a split with this recipe and exactly this number of images lies there."""
    if files.parts_root.exists() or not files.instances_json.exists():
        return False
    listed = _read_json(files.panoptic_json)
    return (
        listed is not None
        and listed.get("info") == recipe.as_info()
        and len(listed["images"]) == num_images
        and all(files.image_file(image["id"]).exists() for image in listed["images"])
        and all(files.panoptic_file(image["id"]).exists() for image in listed["images"])
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] | None = json.loads(path.read_text())
        return content
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _read_records(files: SplitFiles, recipe: SplitRecipe) -> dict[int, dict[str, Any]]:
    """Collect the annotations, by scene index, of scenes whose two pictures lie on disk."""
    records: dict[int, dict[str, Any]] = {}
    for part in sorted(files.parts_root.glob("*.json")):
        content = _read_json(part)
        if content is not None and content["info"] == recipe.as_info():
            records.update((record["image"]["id"] - 1, record) for record in content["records"])
    panoptic, instances = _read_json(files.panoptic_json), _read_json(files.instances_json)
    if panoptic is not None and instances is not None and panoptic.get("info") == recipe.as_info():
        things: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in panoptic["images"]}
        for annotation in instances["annotations"]:
            things[annotation["image_id"]].append(annotation)
        for image, segments in zip(panoptic["images"], panoptic["annotations"]):
            record = {"image": image, "panoptic": segments, "instances": things[image["id"]]}
            records.setdefault(image["id"] - 1, record)
    return {
        index: record
        for index, record in records.items()
        if files.image_file(index + 1).exists() and files.panoptic_file(index + 1).exists()
    }


def _map_chunks(
    work: Callable[[list[int]], dict[int, dict[str, Any]]], chunks: list[list[int]], num_workers: int
) -> Iterator[dict[int, dict[str, Any]]]:
    if num_workers <= 1 or len(chunks) == 1:
        yield from map(work, chunks)
        return
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=_start_worker)
    try:
        yield from pool.map(work, chunks)
    finally:
        pool.shutdown(cancel_futures=True)  # when stopped, chunks that have begun are finished, no more


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    cv2.setNumThreads(1)


def _write_chunk(
    files: SplitFiles,
    recipe: SplitRecipe,
    render: SceneRenderer,
    category_of: dict[str, dict[str, Any]],
    indices: list[int],
) -> dict[int, dict[str, Any]]:
    """Draw and write some scenes, then note in a part file that they are done."""
    records = {index: _write_scene(files, index + 1, render(index), category_of) for index in indices}
    part = files.parts_root / f"{indices[0]:09d}.json"
    with atomic_write(part, "w") as file:
        json.dump({"info": recipe.as_info(), "records": list(records.values())}, file)
    return records


def _write_scene(
    files: SplitFiles, image_id: int, scene: Scene, category_of: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write the two pictures of a scene and return its annotations."""
    height, width = scene.segment_ids.shape
    image_file, panoptic_file = files.image_file(image_id), files.panoptic_file(image_id)
    with _replacing(image_file) as path:
        Image.fromarray(scene.image).save(path, format="JPEG", quality=_JPEG_QUALITY)
    colours = _segment_colours(scene.segments, category_of)
    palette = np.zeros((max(colours) + 1, 3), np.uint8)
    for segment_id, colour in colours.items():
        palette[segment_id] = colour
    with _replacing(panoptic_file) as path:
        Image.fromarray(palette[scene.segment_ids]).save(path, format="PNG", compress_level=1)
    segments_info, instances = [], []
    for segment in scene.segments:
        code = rle.encode_one(scene.segment_ids == segment.id)
        left, top, right, bottom = rle.boxes([code]).astype(int)[0].tolist()
        common = {
            "category_id": category_of[segment.name]["id"],
            "area": int(rle.areas([code])[0]),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": int(segment.is_crowd),
        }
        segments_info.append({"id": id_of_color(colours[segment.id]), **common})
        if segment.is_thing:
            instances.append({"image_id": image_id, **common, "segmentation": rle.as_json(code)})
    return {
        "image": {"id": image_id, "file_name": image_file.name, "height": height, "width": width},
        "panoptic": {"image_id": image_id, "file_name": panoptic_file.name, "segments_info": segments_info},
        "instances": instances,
    }


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` at the end, without a sync to disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _segment_colours(
    segments: Iterable[SceneSegment], category_of: dict[str, dict[str, Any]]
) -> dict[int, tuple[int, int, int]]:
    """Give every segment a colour of its own, near that of its category."""
    colours: dict[int, tuple[int, int, int]] = {}
    taken = {(0, 0, 0)}
    for segment in segments:
        red, green, blue = category_of[segment.name]["color"]
        colour = (red, green, blue)
        while colour in taken:
            green = (green + 23) % 256
            blue = (blue + 11) % 256
            colour = (red, green, blue)
        taken.add(colour)
        colours[segment.id] = colour
    return colours


def _write_annotations(
    files: SplitFiles, recipe: SplitRecipe, records: list[dict[str, Any]], categories: list[dict[str, Any]]
) -> None:
    images = [record["image"] for record in records]
    annotations = [annotation for record in records for annotation in record["instances"]]
    # Ids start at 1: evaluators take 0 for "not matched".
    instances = {
        "info": recipe.as_info(),
        "images": images,
        "annotations": [
            {**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)
        ],
        "categories": [c for c in categories if c["isthing"]],
    }
    panoptic = {
        "info": recipe.as_info(),
        "images": images,
        "annotations": [record["panoptic"] for record in records],
        "categories": categories,
    }
    for path, content in ((files.instances_json, instances), (files.panoptic_json, panoptic)):
        with atomic_write(path, "w") as file:
            json.dump(content, file)
