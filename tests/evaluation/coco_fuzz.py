"""Random COCO data sets and detections, with ties, crowds, empty images and duplicates."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_util

HEIGHT, WIDTH = 160, 200


def random_coco(seed: int, num_keypoints: int = 17) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A ground truth and detections that carry boxes, masks and keypoints."""
    rng = np.random.default_rng(seed)
    num_images, num_categories = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    images = [
        {"id": 10 + i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(num_images)
    ]
    categories = [{"id": 3 * c + 1, "name": f"class{c}"} for c in range(num_categories)]
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in images:
        for _ in range(int(rng.integers(0, 8))):
            box = _random_box(rng)
            category = int(rng.choice([c["id"] for c in categories]))
            is_crowd = int(rng.random() < 0.15)
            points = _random_keypoints(rng, box, num_keypoints)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3] * float(rng.uniform(0.5, 1)),
                    "iscrowd": is_crowd,
                    "segmentation": _ellipse(box, as_list=bool(is_crowd)),
                    "keypoints": points,
                    "num_keypoints": int(np.count_nonzero(points[2::3])),
                }
            )
            for _ in range(int(rng.integers(0, 3))):
                moved = [max(0.0, v + float(rng.normal(0, 4))) for v in box[:2]] + [
                    max(1.0, v + float(rng.normal(0, 4))) for v in box[2:]
                ]
                detections.append(_detection(rng, image["id"], category, moved, num_keypoints))
        for _ in range(int(rng.integers(0, 4))):
            category = int(rng.choice([c["id"] for c in categories]))
            detections.append(_detection(rng, image["id"], category, _random_box(rng), num_keypoints))
    return {"images": images, "categories": categories, "annotations": annotations}, detections


def _random_box(rng: np.random.Generator) -> list[float]:
    width, height = rng.uniform(4, 120, size=2)
    return [float(rng.uniform(0, WIDTH - 5)), float(rng.uniform(0, HEIGHT - 5)), float(width), float(height)]


def _ellipse(box: list[float], as_list: bool = False) -> dict[str, Any]:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    x, y, w, h = box
    inside = ((xs - x - w / 2) / (w / 2)) ** 2 + ((ys - y - h / 2) / (h / 2)) ** 2 <= 1
    if as_list:
        flat = inside.ravel(order="F")
        changes = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
        counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
        return {"size": [HEIGHT, WIDTH], "counts": counts}
    rle = mask_util.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _random_keypoints(rng: np.random.Generator, box: list[float], num_keypoints: int) -> list[float]:
    x, y, w, h = box
    visible = rng.integers(0, 3, size=num_keypoints)
    points = np.stack(
        [rng.uniform(x, x + w, num_keypoints), rng.uniform(y, y + h, num_keypoints), visible], axis=1
    )
    return np.where(visible[:, None] > 0, points, 0).reshape(-1).tolist()


def _detection(
    rng: np.random.Generator, image_id: int, category: int, box: list[float], num_keypoints: int
) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": category,
        "bbox": box,
        "score": float(np.round(rng.random(), 1)),  # rounding makes ties
        "segmentation": _ellipse(box),
        "keypoints": _random_keypoints(rng, box, num_keypoints),
    }
