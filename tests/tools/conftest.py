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
        sys.path.insert(0, str((_ROOT / path).parent))  # as for a script that is run
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.pop(0)
        return module

    return load
