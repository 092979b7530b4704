#!/usr/bin/env python
"""Convert an ImageNet backbone to this package's names, and print the config that goes with it.

    tools/convert-torchvision-to-d2.py res2net101_v1b_26w_4s.pth r2_101.pkl

Known are torchvision's ResNet, ResNeXt and Wide-ResNet, the official Res2Net files (v1 and v1b), timm's and
mmdetection's, as `.pth`, `.pt` or `.safetensors`; depth, width, groups, scale and variant are read off
the weights. The suffix of the output decides its format: `.pkl`, `.pth` or `.safetensors`.
"""

from __future__ import annotations

import argparse
import sys

from detectron2.checkpoint.convert_file import convert_file, describe_conversion


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", help="weights of a backbone as another package names them")
    parser.add_argument("output", help="where to write; ends in .pkl, .pth or .safetensors")
    parser.add_argument(
        "--bgr-caffe",
        action="store_true",
        help="the weights came out of Caffe (MSRA): stride in the 1x1 convolutions, BGR, unscaled pixels",
    )
    args = parser.parse_args()
    try:
        converted = convert_file(args.input, args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(describe_conversion(converted, args.output, is_caffe=args.bgr_caffe))
    return 0


if __name__ == "__main__":
    sys.exit(main())
