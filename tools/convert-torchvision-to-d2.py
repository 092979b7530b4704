#!/usr/bin/env python
"""Convert an ImageNet backbone to this package's names, and print the config that goes with it.

    tools/convert-torchvision-to-d2.py resnet101.pth r_101.pkl

Input is `.pth`, `.pt` or `.safetensors`; the architecture is read off the weights. The suffix of the output
decides its format: `.pkl`, `.pth` or `.safetensors`. A plug-in of your own that registers a WeightTranslator
is known with `--import my_plugin`.
"""

from __future__ import annotations

import argparse
import importlib
import sys

import detectron2.modeling.backbone  # noqa: F401  # registers what the backbones know about their weights
from detectron2.checkpoint.convert_file import convert_file, describe_conversion
from detectron2.checkpoint.weight_translation import known_sources


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Backbones that are known: {known_sources()}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", help="weights of a backbone as another package names them")
    parser.add_argument("output", help="where to write; ends in .pkl, .pth or .safetensors")
    parser.add_argument(
        "--bgr-caffe",
        action="store_true",
        help="the weights came out of Caffe (MSRA): stride in the 1x1 convolutions, BGR, unscaled pixels",
    )
    parser.add_argument(
        "--import",
        dest="plugins",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module first; may be given several times",
    )
    args = parser.parse_args()
    for module in args.plugins:
        importlib.import_module(module)
    try:
        converted = convert_file(args.input, args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(describe_conversion(converted, args.output, is_caffe=args.bgr_caffe))
    return 0


if __name__ == "__main__":
    sys.exit(main())
