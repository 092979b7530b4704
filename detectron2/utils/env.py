"""The process around the library: seeds, plug-in files, one-time set-up."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import random
import sys
from collections.abc import Iterable, MutableMapping
from datetime import datetime
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .compat_names import configure_libraries as _configure_libraries  # noqa: F401  # for others' code
from .user_errors import (
    UserAttributeError,
    UserFileNotFoundError,
    UserImportError,
    UserValueError,
    suggest_files,
)

__all__ = ["seed_all_rng"]

logger = logging.getLogger(__name__)

TORCH_VERSION: tuple[int, ...] = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
"""(major, minor) of the running torch."""

DOC_BUILDING = os.getenv("_DOC_BUILDING", "").lower() not in ("", "0", "false")
"""True while the documentation is built, where optional packages may be absent."""


def seed_all_rng(seed: int | None = None) -> None:
    """Seed the generators of torch, NumPy and Python.

    Args:
        seed: None draws one from the clock, the process id and the system, and logs it.
    """
    if seed is None:
        entropy = (os.getpid(), datetime.now().microsecond, int.from_bytes(os.urandom(4), "big"))
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        logger.info("No seed was given; using %d", seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed % 2**32)


def import_file(
    module_name: str, file_path: str | os.PathLike[str], make_importable: bool = False
) -> ModuleType:
    """Run a Python file as a module.

    Args:
        module_name: the name it gets.
        file_path: the file; it is executed, so it must be trusted.
        make_importable: also enter it into `sys.modules`.
    """
    spec = importlib.util.spec_from_file_location(module_name, file_path)
    if spec is None or spec.loader is None:
        raise UserValueError(f"expected the path of a Python file, got {os.fspath(file_path)!r}")
    module = importlib.util.module_from_spec(spec)
    if make_importable:
        sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if make_importable:
            del sys.modules[module_name]
        raise
    return module


_import_file = import_file

_ENV_VARIABLE = "DETECTRON2_ENV_MODULE"
_ENV_SETUP_DONE = False


def setup_environment() -> None:
    """Run the user's own set-up, where the environment variable DETECTRON2_ENV_MODULE names it.

    It names a module that can be imported, or the path of a `.py` file, with a function
    `setup_environment()`, which is called without arguments, once in a process. Importing the library runs
    nothing of this: `engine.default_setup`, `DefaultTrainer` and `DefaultPredictor` call it first.

    Raises:
        ImportError, FileNotFoundError, AttributeError: the module, the file or the function is not there.
    """
    global _ENV_SETUP_DONE
    if _ENV_SETUP_DONE:
        return
    custom_module = os.environ.get(_ENV_VARIABLE)
    _ENV_SETUP_DONE = True  # before the call, which may come here again
    try:
        if custom_module:
            setup_custom_environment(custom_module)
    except BaseException:
        _ENV_SETUP_DONE = False
        raise


def setup_custom_environment(custom_module: str) -> None:
    """Import a module, or run a `.py` file, and call its `setup_environment()`.

    Args:
        custom_module: a dotted name, or a path that ends in ".py"; it is executed, so it must be trusted.

    Raises:
        ImportError, FileNotFoundError, AttributeError: the module, the file or the function is not there.
    """
    setup = getattr(_import_custom_module(custom_module), "setup_environment", None)
    if not callable(setup):
        raise UserAttributeError(
            f"{custom_module} must define a function setup_environment() to be used as set-up module "
            f"({_ENV_VARIABLE})."
        )
    setup()


def _import_custom_module(name: str) -> ModuleType:
    if name.endswith(".py"):
        if not os.path.isfile(name):
            raise UserFileNotFoundError(
                f"{_ENV_VARIABLE} names a set-up file that is not there: {name}.{suggest_files(name)} "
                "Correct the path, or unset the variable."
            )
        return import_file("detectron2.utils.env.custom_module", name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks something itself
        raise UserImportError(
            f"{_ENV_VARIABLE} names a set-up module that cannot be imported: {name!r}. Give a module that "
            "lies on PYTHONPATH or is installed, or the path of a .py file, or unset the variable."
        ) from error


def fixup_module_metadata(
    module_name: str, namespace: MutableMapping[str, Any], keys: Iterable[str] | None = None
) -> None:
    """Make re-exported classes and functions say that they come from `module_name`.

    Args:
        module_name: what `__module__` shall be.
        namespace: `globals()` of the package that re-exports.
        keys: names to change; every public name when None.
    """
    for name in list(namespace) if keys is None else keys:
        if not name.startswith("_"):
            _claim(namespace[name], module_name, name)


def _claim(obj: Any, module_name: str, qualified_name: str) -> None:
    module = getattr(obj, "__module__", None)
    if not isinstance(obj, type) and not callable(obj):
        return
    if module is None or not (module.startswith("detectron2.") or module.startswith("fvcore.")):
        return
    obj.__module__ = module_name
    if isinstance(obj, type):
        for name, member in list(vars(obj).items()):
            if isinstance(member, type):
                _claim(member, module_name, f"{qualified_name}.{name}")
