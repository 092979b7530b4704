"""Files that name classes and functions name them by paths that are a contract."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

from detectron2 import config
from detectron2.config.instantiate import dotted_path
from detectron2.utils.registry import locate

CONTRACT: dict[str, dict[str, object]] = json.loads(
    (Path(__file__).parents[1] / "public_api.json").read_text(encoding="utf-8")
)


def test_public_classes_and_functions_have_a_public_path() -> None:
    wrong = []
    for module_name, names in CONTRACT.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # left out on purpose, or of an optional package: tests/test_public_api.py knows
            continue
        for name in names:
            value = getattr(module, name, None)
            is_ours = inspect.isclass(value) or inspect.isfunction(value)
            if not is_ours or not value.__module__.startswith("detectron2") or value.__name__ != name:
                continue
            if value.__module__ == "detectron2.utils.offer":  # stands for what was left out, and raises
                continue
            path = dotted_path(value)
            assert locate(path) is value
            home, _, _ = path.rpartition(".")
            facades = [facade for facade in CONTRACT if facade.startswith(home + ".")]
            if name not in CONTRACT.get(home, {}) and not facades:
                wrong.append(f"{path} (from {module_name})")
    assert not wrong


def test_the_table_names_modules_that_exist() -> None:
    table = json.loads((Path(config.__file__).parent / "public_paths.json").read_text())
    for inner, public in table.items():
        found = locate(inner)
        names = (
            [found.__name__] if inspect.isclass(found) else [name for name in vars(found) if name[0] != "_"]
        )
        assert set(names) & set(vars(importlib.import_module(public))), f"{public} has nothing of {inner}"
    assert list(table) == sorted(table)
