"""Give a checkout the `_C` that its own build would leave, where the build is of this operator.

detrex and GroundingDINO do not import `MultiScaleDeformableAttention`: they compile its sources into
an extension module `_C` of their own package.

    python -m MultiScaleDeformableAttention detrex/detrex              # the folder of the package
    python -m MultiScaleDeformableAttention GroundingDINO/groundingdino
"""

from __future__ import annotations

import argparse
import importlib.machinery
from pathlib import Path

from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError, exit_on_user_error

STAND_IN = '''"""Stands in for a compiled extension; written by `python -m MultiScaleDeformableAttention`."""

from MultiScaleDeformableAttention import ms_deform_attn_backward as ms_deform_attn_backward
from MultiScaleDeformableAttention import ms_deform_attn_forward as ms_deform_attn_forward
'''


def write_stand_in(package: Path) -> Path:
    """Write `_C.py` into the folder of a package; return its path.

    Args:
        package: the folder that holds the package's `__init__.py`.

    Raises:
        FileNotFoundError: there is no `__init__.py`.
        ValueError: the package has a `_C` already.
    """
    if not (package / "__init__.py").is_file():
        raise UserFileNotFoundError(
            f"expected the folder of a package, with __init__.py in it; got {package}"
        )
    target = package / "_C.py"
    built = [package / f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    others = [path for path in built if path.exists()]
    if target.exists() and target.read_text(encoding="utf-8") != STAND_IN:
        others.append(target)
    if others:
        raise UserValueError(f"{others[0]} is there already; remove it if it should be replaced")
    target.write_text(STAND_IN, encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m MultiScaleDeformableAttention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("package", type=Path, help="folder of the package that gets _C.py")
    print(f"wrote {write_stand_in(parser.parse_args().package)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
