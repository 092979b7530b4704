"""The command line that training tools share."""

from __future__ import annotations

import argparse
import sys

__all__ = ["default_argument_parser"]

_EPILOG = """\
examples:

  one machine with 8 GPUs
    {program} --config-file cfg.yaml --num-gpus 8

  change keys of the config
    {program} --config-file cfg.yaml MODEL.WEIGHTS /path/to/weights.pth SOLVER.BASE_LR 0.001

  no GPU
    {program} --config-file cfg.yaml --num-gpus 0 MODEL.DEVICE cpu SOLVER.IMS_PER_BATCH 1

  two machines: the first line on machine 0, the second on machine 1
    {program} --config-file cfg.yaml --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT
    {program} --config-file cfg.yaml --num-gpus 8 --num-machines 2 --machine-rank 1 --dist-url tcp://HOST:PORT

  processes started by torchrun
    torchrun --nproc-per-node 8 {program} --config-file cfg.yaml
"""


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of the arguments that training tools have in common.

    Args:
        epilog: replaces the examples at the end of the help text.

    Returns:
        A parser to which a tool may add arguments of its own. Everything behind the last option lands in
        `opts`, as a flat list of keys and values.
    """
    parser = argparse.ArgumentParser(
        epilog=epilog or _EPILOG.format(program=sys.argv[0]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="the config file")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in OUTPUT_DIR, at the iteration behind it",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS and do not train")
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="GPUs to use on each machine; 0 runs on the CPU"
    )
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines in the run")
    parser.add_argument("--machine-rank", type=int, default=0, help="which of the machines this is, from 0")
    parser.add_argument(
        "--dist-url",
        default="auto",
        help="where processes meet, as tcp://HOST:PORT of machine 0; 'auto' does for one machine",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys and values that replace those of the file; they come last",
    )
    return parser
