"""Scripts as modules."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Import a script by its path below the repository."""

    def load(path: str) -> ModuleType:
        name = f"script_{Path(path).stem.replace('-', '_')}"
        spec = importlib.util.spec_from_file_location(name, _ROOT / path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # data classes look their module up
        spec.loader.exec_module(module)
        return module

    return load
