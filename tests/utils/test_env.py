"""Seeds, plug-in files and set-up modules."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron2.utils import env
from detectron2.utils.user_errors import UserError


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5])
def test_a_seed_decides_all_generators(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    env.seed_all_rng(seed)
    first = draw()
    env.seed_all_rng(seed)
    assert draw() == first
    env.seed_all_rng()
    assert draw() != first


def test_torch_version_has_two_numbers() -> None:
    assert len(env.TORCH_VERSION) == 2 and env.TORCH_VERSION >= (2, 4)


def test_import_file(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text("value = 3\n")
    assert env.import_file("made_up_name", path).value == 3
    assert "made_up_name" not in sys.modules
    assert env.import_file("made_up_name", path, make_importable=True) is sys.modules.pop("made_up_name")
    path.write_text("raise RuntimeError('no')\n")
    with pytest.raises(RuntimeError, match="no"):
        env.import_file("made_up_name", path, make_importable=True)
    assert "made_up_name" not in sys.modules
    with pytest.raises(ValueError, match="path of a Python file"):
        env.import_file("made_up_name", tmp_path / "plugin.txt")


def test_set_up_module_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "custom.py"
    path.write_text(
        "from pathlib import Path\n"
        "def setup_environment():\n"
        "    count = Path(__file__).with_name('count')\n"
        "    count.write_text((count.read_text() if count.exists() else '') + 'x')\n"
    )
    monkeypatch.setenv("DETECTRON2_ENV_MODULE", str(path))
    monkeypatch.setattr(env, "_ENV_SETUP_DONE", False)
    env.setup_environment()
    env.setup_environment()
    assert (tmp_path / "count").read_text() == "x"


def test_a_set_up_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "custom.py"
    monkeypatch.setenv("DETECTRON2_ENV_MODULE", str(path))
    monkeypatch.setattr(env, "_ENV_SETUP_DONE", False)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="DETECTRON2_ENV_MODULE names a set-up file"):
            env.setup_environment()
    path.write_text("def setup_environment(): pass")
    env.setup_environment()


@pytest.mark.parametrize("name", ["no_such_set_up", "email.no_such_set_up"])
def test_a_set_up_module_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ImportError, match=f"DETECTRON2_ENV_MODULE .*'{name}'.*PYTHONPATH") as info:
        env.setup_custom_environment(name)
    assert isinstance(info.value, UserError)


def test_what_a_set_up_module_lacks_itself_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        env.setup_custom_environment("needs_more")


def test_set_up_module_without_the_function_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "custom.py"
    path.write_text("")
    with pytest.raises(AttributeError, match="must define a function setup_environment"):
        env.setup_custom_environment(str(path))
    with pytest.raises(AttributeError, match="must define"):
        env.setup_custom_environment("json")


def test_fixup_module_metadata_claims_own_names_only() -> None:
    class Outer:
        class Inner: ...

    for kind in (Outer, Outer.Inner):
        kind.__module__ = "detectron2.somewhere"
    namespace = {"Outer": Outer, "Path": Path, "_hidden": Outer, "number": 3}
    env.fixup_module_metadata("public.name", namespace)
    assert Outer.__module__ == Outer.Inner.__module__ == "public.name"
    assert Path.__module__.startswith("pathlib")
