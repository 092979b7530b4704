#!/usr/bin/env python
"""Make the embedded data set `shapes_panoptic_{train,val}`: drawn here, nothing is downloaded.

    python datasets/prepare_shapes.py --images 1500 --val-images 200 --size 160x192

It goes to `shapes/` below $DETECTRON2_DATASETS, or below `datasets/` without that variable. Run again, it
makes what is missing; a change of --size makes everything anew.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time

from detectron2.data.datasets.shapes import DEFAULT_IMAGE_SIZE, shapes_files, write_shapes
from detectron2.utils.logger import setup_logger

logger = logging.getLogger("detectron2.prepare_shapes")


def parse_size(text: str) -> tuple[int, int]:
    """Read "HxW"."""
    height, separator, width = text.lower().partition("x")
    if not (separator and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH such as 160x192, got {text!r}")
    return int(height), int(width)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1500, metavar="N", help="training scenes")
    parser.add_argument("--val-images", type=int, default=200, metavar="N", help="validation scenes")
    parser.add_argument("--size", type=parse_size, default=DEFAULT_IMAGE_SIZE, metavar="HxW")
    parser.add_argument(
        "--root", default=os.getenv("DETECTRON2_DATASETS", "datasets"), help="folder of all data sets"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write both splits; return the exit status."""
    args = parse_args(argv)
    setup_logger(name="detectron2")
    try:
        write_splits(args)
    except KeyboardInterrupt:
        logger.info("Stopped. The same command continues from here.")
        return 130
    except (OSError, ValueError) as error:
        logger.error("%s", error)
        return 2
    return 0


def write_splits(args: argparse.Namespace) -> None:
    """Write what is missing of training and validation scenes."""
    start = time.perf_counter()
    for split, num_images in (("train", args.images), ("val", args.val_images)):
        num_drawn = write_shapes(
            split, num_images, root=args.root, image_size=args.size, num_workers=args.workers
        )
        folder = shapes_files(split, args.root).root
        logger.info(
            "shapes_panoptic_%s: %d scenes in %s, %d of them new", split, num_images, folder, num_drawn
        )
    logger.info("Done in %.1f s", time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
