"""Where data sets lie, and reading their JSON files."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from typing import Any

from detectron2.utils.file_io import PathManager
from detectron2.utils.user_errors import UserFileNotFoundError, UserValueError

from ..catalog import LazyValue

logger = logging.getLogger(__name__)

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class DataPath(LazyValue, os.PathLike[str]):
    """A path below the folder that the environment variable DETECTRON2_DATASETS names when the path is
    used."""

    relative: str

    def __fspath__(self) -> str:
        root = os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))
        return os.path.join(root, self.relative)

    resolve = __fspath__

    def __str__(self) -> str:
        return self.__fspath__()


def path_below(root: Path | None, relative: str) -> Path:
    """`relative` below `root`; below DETECTRON2_DATASETS, looked up when used, where `root` is None."""
    if "://" in relative:
        return relative
    return DataPath(relative) if root is None else os.path.join(root, relative)


def read_json(path: Path, dataset_name: str | None = None) -> Any:
    """Read the annotation file of a data set.

    Raises:
        FileNotFoundError: there is no such file; the message says where data sets are looked for.
        ValueError: the file is not JSON.
    """
    path = os.fspath(path)
    of_dataset = f" of data set {dataset_name!r}" if dataset_name else ""
    start = time.perf_counter()
    try:
        with PathManager.open(path, "r", encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError as e:
        root = os.environ.get("DETECTRON2_DATASETS")
        looked = (
            f"DETECTRON2_DATASETS is {root!r}"
            if root
            else "DETECTRON2_DATASETS is not set, so ./datasets is used"
        )
        raise UserFileNotFoundError(
            f"Annotation file {path!r}{of_dataset} does not exist. {looked}; datasets/README.md shows the "
            "folders."
        ) from e
    except json.JSONDecodeError as e:
        raise UserValueError(f"Annotation file {path!r}{of_dataset} is not complete JSON: {e}.") from e
    seconds = time.perf_counter() - start
    if seconds > 1:
        logger.info("Reading %s took %.1f seconds.", path, seconds)
    return content
