"""Fixtures that every test may use."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest

REPO_ROOT = Path(__file__).resolve().parents[1]

# Many small tests run side by side; threads inside each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_sessionstart() -> None:
    """On CI, refuse to run where a declared requirement is missing: its tests would skip and look fine."""
    if os.environ.get("CI", "").lower() not in ("1", "true"):
        return
    needed = {"detectron2"} if _is_missing("detectron2") else _declared_requirements()
    missing = sorted(filter(_is_missing, needed))
    if missing:
        raise pytest.UsageError(f"on CI every requirement must be installed; missing: {', '.join(missing)}")


def _declared_requirements() -> set[str]:
    """Names of what the package needs to run and, from the extra `dev`, to be tested."""
    declared = metadata.requires("detectron2") or []
    needed = [entry for entry in declared if "extra ==" not in entry or re.search(r"extra == .dev.", entry)]
    return {re.split(r"[^\w.-]", entry, maxsplit=1)[0] for entry in needed}


def _is_missing(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return True
    return False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the tests marked `full` too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out full-size tests unless they are asked for, and skip GPU tests where there is no GPU."""
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a GPU, none is available"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that a test can run on."""
    return request.param


@pytest.fixture(params=["compiled", "plain"])
def operator_side(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with the compiled operators, where there are any, and without."""
    from detectron2.layers import extension

    if request.param == "plain":
        with mock.patch.dict(extension._KERNELS, clear=True):
            yield "plain"
    else:
        if extension.missing_reason():
            pytest.skip(extension.missing_reason())
        yield "compiled"


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder of the checkout."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The optional folder beside the checkout with reference numbers and real images."""
    path = REPO_ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("the optional folder ../shared with reference data is not here")
    return path


@pytest.fixture(autouse=True)
def _restore_loggers() -> Iterator[None]:
    """Undo what a test did to the package's loggers: handlers on files, levels, propagation."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [(log, list(log.handlers), log.level, log.propagate) for log in loggers]
    yield
    for log, handlers, level, propagate in before:
        for handler in log.handlers:
            if handler not in handlers:
                handler.close()
        log.handlers[:] = handlers
        log.setLevel(level)
        log.propagate = propagate
