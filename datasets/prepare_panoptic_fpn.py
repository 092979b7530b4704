#!/usr/bin/env python
"""Write the stuff maps of a panoptic data set ahead of time, so that training need not derive them.

A stuff map is a PNG of labels: 0 for every thing, 1 to S for the stuff classes, 255 for what is unlabelled.
Without arguments this does the COCO splits that are found below DETECTRON2_DATASETS. A run that was stopped
goes on where it was: maps that are there already are left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from detectron2.data.datasets.builtin_meta import separated_panoptic_meta
from detectron2.data.detection_utils.panoptic_png import LABEL_OF_THINGS, draw_labels, read_panoptic_ids
from detectron2.utils.file_io import atomic_write
from detectron2.utils.user_errors import UserValueError

SPLITS = ("train2017", "val2017", "val2017_100")


def label_of_each_category(categories: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Category id -> label in the stuff map."""
    metadata = separated_panoptic_meta(sorted(categories, key=lambda category: category["id"]))
    things = dict.fromkeys(metadata["thing_dataset_id_to_contiguous_id"], LABEL_OF_THINGS)
    return {**metadata["stuff_dataset_id_to_contiguous_id"], **things}


def write_stuff_map(
    annotation: dict[str, Any], *, panoptic_root: Path, stuff_root: Path, labels: dict[int, int]
) -> None:
    """Write the map of one image.

    Args:
        annotation: of the panoptic JSON.
        panoptic_root: folder of the panoptic PNGs.
        stuff_root: folder of the maps.
        labels: category id -> label in the map.
    """
    source = panoptic_root / annotation["file_name"]
    segments = annotation["segments_info"]
    unknown = sorted({segment["category_id"] for segment in segments} - labels.keys())
    if unknown:
        raise UserValueError(
            f"Segments of {str(source)!r} have category ids {unknown}, which the JSON does not list."
        )
    label_of_segment = {segment["id"]: labels[segment["category_id"]] for segment in segments}
    stuff_map = draw_labels(read_panoptic_ids(str(source)), label_of_segment, str(source))
    with atomic_write(stuff_root / annotation["file_name"]) as file:
        Image.fromarray(stuff_map).save(file, format="PNG")


def prepare_split(panoptic_json: Path, panoptic_root: Path, stuff_root: Path, num_workers: int) -> int:
    """Write the maps of a data set that are not there yet.

    Args:
        panoptic_json: the panoptic JSON.
        panoptic_root: folder of the panoptic PNGs.
        stuff_root: folder of the maps; made when missing.
        num_workers: number of processes.

    Returns:
        How many were written.
    """
    content = json.loads(panoptic_json.read_text(encoding="utf-8"))
    stuff_root.mkdir(parents=True, exist_ok=True)
    existing = set(os.listdir(stuff_root))
    pending = [annotation for annotation in content["annotations"] if annotation["file_name"] not in existing]
    write = partial(
        write_stuff_map,
        panoptic_root=panoptic_root,
        stuff_root=stuff_root,
        labels=label_of_each_category(content["categories"]),
    )
    progress = partial(tqdm, total=len(pending), desc=str(stuff_root), unit="map", disable=not pending)
    if num_workers <= 1:
        for _ in progress(map(write, pending)):
            pass
        return len(pending)
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        for _ in progress(pool.map(write, pending, chunksize=16)):
            pass
    return len(pending)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    add("--root", type=Path, default=root, help="folder that has coco/ (%(default)s)")
    add("--splits", nargs="+", metavar="SPLIT", help=f"by default those there of {', '.join(SPLITS)}")
    add("--dataset", default="coco", help="folder of the data set below the root (%(default)s)")
    add("--output-root", type=Path, help="where the maps go, if not below the root")
    add("--num-workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = parse_arguments(arguments)
    folder = args.root.expanduser() / args.dataset
    json_of = {split: folder / "annotations" / f"panoptic_{split}.json" for split in args.splits or SPLITS}
    found = [split for split, path in json_of.items() if path.is_file()]
    missing = [str(path) for path in json_of.values() if not path.is_file()]
    if not found or (args.splits and missing):
        print(
            f"error: there is no {', no '.join(missing)}. Set --root, or DETECTRON2_DATASETS, to the folder "
            f"that has {args.dataset}/; datasets/README.md shows what lies in it.",
            file=sys.stderr,
        )
        return 1
    output = (args.output_root or args.root).expanduser() / args.dataset
    for split in found:
        stuff_root = output / f"panoptic_stuff_{split}"
        panoptic_root = folder / f"panoptic_{split}"
        num_written = prepare_split(json_of[split], panoptic_root, stuff_root, args.num_workers)
        num_there = len(os.listdir(stuff_root)) - num_written
        print(f"{split}: {num_written} maps written to {stuff_root}, {num_there} were there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
