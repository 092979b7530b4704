#!/usr/bin/env python
"""Write ADE20K's label maps as the data sets `ade20k_sem_seg_train` and `ade20k_sem_seg_val` expect them.

In ADEChallengeData2016/annotations, 0 stands for what belongs to none of the 150 classes. The maps that this
writes to ADEChallengeData2016/annotations_detectron2 have classes from 0 on, and 255 there. Maps that exist
are left alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from detectron2.utils.file_io import atomic_write
from detectron2.utils.user_errors import UserValueError, exit_on_user_error

SPLITS = ("training", "validation")
IGNORED = 255
NUM_CLASSES = 150


def convert(input: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write a label map with every label lessened by one, 0 becoming 255.

    Args:
        input: a PNG of labels 0 to 150.
        output: the PNG to write.

    Raises:
        ValueError: the picture is no map of such labels.
    """
    labels = np.asarray(Image.open(input))
    if labels.dtype != np.uint8 or labels.ndim != 2 or (labels.size and labels.max() > NUM_CLASSES):
        raise UserValueError(
            f"Expected a map of labels from 0 to {NUM_CLASSES} in {os.fspath(input)!r}, got {labels.dtype} "
            f"of shape {labels.shape} with values up to {labels.max() if labels.size else 0}. The "
            "benchmark's maps are those of ADEChallengeData2016, not of the full ADE20K."
        )
    shifted = np.where(labels == 0, IGNORED, labels - 1).astype(np.uint8)
    with atomic_write(Path(output)) as file:
        Image.fromarray(shifted).save(file, format="PNG")


def convert_split(source: Path, target: Path) -> int:
    """Convert all maps of a folder that are not there yet; returns how many."""
    target.mkdir(parents=True, exist_ok=True)
    pending = [path for path in sorted(source.glob("*.png")) if not (target / path.name).exists()]
    for path in tqdm(pending, desc=source.name, unit="map", disable=not pending):
        convert(path, target / path.name)
    return len(pending)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument(
        "--root", type=Path, default=root, help="folder that has ADEChallengeData2016/ (%(default)s)"
    )
    folder = parser.parse_args(arguments).root.expanduser() / "ADEChallengeData2016"
    found = [split for split in SPLITS if (folder / "annotations" / split).is_dir()]
    if not found:
        print(
            f"error: there is no {folder / 'annotations' / SPLITS[0]}. Set --root, or DETECTRON2_DATASETS, "
            "to the folder that has ADEChallengeData2016/; datasets/README.md shows what lies in it.",
            file=sys.stderr,
        )
        return 1
    for split in found:
        target = folder / "annotations_detectron2" / split
        print(f"{split}: {convert_split(folder / 'annotations' / split, target)} maps written to {target}")
    return 0


if __name__ == "__main__":
    with exit_on_user_error():
        sys.exit(main())
