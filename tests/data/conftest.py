"""Tiny data sets, written to a temporary folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog

WIDTH, HEIGHT = 40, 30
SQUARE = [4.0, 6.0, 24.0, 6.0, 24.0, 26.0, 4.0, 26.0]

PANOPTIC_CATEGORIES = [
    {"id": 3, "name": "cat", "isthing": 1, "color": [255, 0, 0]},
    {"id": 7, "name": "dog", "isthing": 1},
    {"id": 20, "name": "grass", "isthing": 0, "color": [0, 255, 0]},
    {"id": 21, "name": "sky", "isthing": 0},
]


@pytest.fixture(autouse=True)
def _restore_catalogs() -> Iterator[None]:
    """Forget what a test registers."""
    before = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    yield
    DatasetCatalog.data, MetadataCatalog.data = before


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """A noisy PNG or JPEG; returns what was drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def make_coco(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes a COCO instances data set of square objects; returns JSON and image folder."""

    def make(
        num_images: int = 2, annotations: list[dict[str, Any]] | None = None, **annotation: Any
    ) -> tuple[Path, Path]:
        images = []
        for i in range(num_images):
            name = f"{i + 1:03}.png"
            write_image(tmp_path / "images" / name, seed=i)
            images.append({"id": i + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
        if annotations is None:
            default = {
                "category_id": 7,
                "iscrowd": 0,
                "bbox": [4, 6, 20, 20],
                "segmentation": [SQUARE],
                "area": 400,
            }
            annotations = [
                {"id": i + 1, "image_id": i + 1, **default, **annotation} for i in range(num_images)
            ]
        categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return path, tmp_path / "images"

    return make


def paint_ids(ids: np.ndarray) -> Image.Image:
    """(H, W) segment ids -> panoptic PNG."""
    return Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8))


@pytest.fixture
def make_panoptic(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Writes a panoptic data set; returns the arguments of `register_panoptic` and the painted ids."""

    def make(num_images: int = 2, with_boxes: bool = True, suffix: str = ".png") -> dict[str, Any]:
        images, annotations = [], []
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        ids[:15], ids[15:] = 70000, 300  # sky, grass
        ids[6:26, 4:24] = 5  # a cat
        ids[20:28, 30:38] = 1000  # a crowd of dogs
        ids[0, 0] = 0
        segments = [
            {"id": 70000, "category_id": 21, "iscrowd": 0, "bbox": [0, 0, 40, 15], "area": 419},
            {"id": 300, "category_id": 20, "iscrowd": 0, "bbox": [0, 15, 40, 15], "area": 316},
            {"id": 5, "category_id": 3, "iscrowd": 0, "bbox": [4, 6, 20, 20], "area": 400},
            {"id": 1000, "category_id": 7, "iscrowd": 1, "bbox": [30, 20, 8, 8], "area": 64},
        ]
        if not with_boxes:
            segments = [{k: v for k, v in s.items() if k not in ("bbox", "area")} for s in segments]
        (tmp_path / "png").mkdir()
        for i in range(num_images):
            name = f"{i + 1:03}"
            write_image(tmp_path / "images" / (name + suffix), seed=i)
            paint_ids(ids).save(tmp_path / "png" / f"{name}.png")
            images.append({"id": i + 1, "file_name": name + suffix, "width": WIDTH, "height": HEIGHT})
            annotations.append({"image_id": i + 1, "file_name": f"{name}.png", "segments_info": segments})
        path = tmp_path / "panoptic.json"
        content = {"images": images, "annotations": annotations, "categories": PANOPTIC_CATEGORIES}
        path.write_text(json.dumps(content))
        return {
            "image_root": tmp_path / "images",
            "panoptic_root": tmp_path / "png",
            "panoptic_json": path,
            "ids": ids,
        }

    return make


@pytest.fixture
def expected_stuff() -> np.ndarray:
    """(H, W) stuff map of the images of `make_panoptic`: 0 things, 1 grass, 2 sky, 255 unlabelled."""
    stuff = np.ones((HEIGHT, WIDTH), dtype=np.uint8)
    stuff[:15] = 2
    stuff[6:26, 4:24] = 0
    stuff[20:28, 30:38] = 0
    stuff[0, 0] = 255
    return stuff
