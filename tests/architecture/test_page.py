"""The page on the architecture says what the code says: files, names and config keys on it exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from detectron2.config import get_cfg

from .source_tree import ROOT

WALKS = {
    "A new loss for the mask head": "detectron2/modeling/roi_heads/mask_head.py",
    "A new Res2Net variant with other weight names": "detectron2/modeling/backbone/res2net/weights.py",
    "A new evaluator": "detectron2/engine/evaluators.py",
    "A new augmentation": "detectron2/data/transforms/build.py",
    "A new operator": "detectron2/layers/csrc/library.cpp",
}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "tools" / "make_architecture_page.py"
    spec = importlib.util.spec_from_file_location("make_architecture_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def code_words(page: str) -> list[str]:
    """What stands in backticks, outside blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))


def test_generated_sections_are_up_to_date(tool: ModuleType, page: str) -> None:
    assert tool.make_page(page) == page, "run tools/make_architecture_page.py"


def test_an_outdated_page_is_told_from_an_up_to_date_one(tool: ModuleType, page: str) -> None:
    assert tool.make_page(page.replace("| 2 | `config` |", "| 2 | `konfig` |")) == page
    with pytest.raises(ValueError, match="no marks for packages"):
        tool.make_page(page.replace("make_architecture_page.py: packages", "packages"))
    with pytest.raises(ValueError, match="section 'tables'"):
        tool.make_page(page.replace("_page.py: packages", "_page.py: tables"))


def missing_files(page: str) -> list[str]:
    paths = [word for word in code_words(page) if "<" not in word and re.fullmatch(r"[\w./-]+", word)]
    files = [word for word in paths if "/" in word or word.endswith((".py", ".yaml", ".cpp", ".md"))]
    bare = {path.name for path in (ROOT / "detectron2").rglob("*.*")}
    return [word for word in files if not (ROOT / word).exists() and word not in bare]


def test_files_on_the_page_exist(page: str) -> None:
    assert missing_files(page) == []
    assert missing_files(page + "`detectron2/layers/none.py` `none.py`") == [
        "detectron2/layers/none.py",
        "none.py",
    ]
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in target]
    assert links and [target for target in links if not (ROOT / "docs" / target).exists()] == []


def test_names_on_the_page_exist(page: str) -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("detectron2", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
    )
    known = set(re.findall(r"\w+", source))
    names = {word for word in code_words(page) if re.fullmatch(r"[A-Za-z_]\w+", word)}
    assert len(names) > 20
    assert sorted(names - known) == []


def test_config_keys_on_the_page_exist(page: str) -> None:
    keys = {word.partition(":")[0] for word in code_words(page) if re.match(r"(MODEL|INPUT|TEST)\.", word)}
    assert keys
    for key in keys:
        node = get_cfg()
        for part in key.split("."):
            node = node[part]


@pytest.mark.parametrize("title", WALKS)
def test_each_walk_goes_from_a_file_to_its_tests(page: str, title: str) -> None:
    text = page.partition(f"### {title}\n")[2].partition("\n##")[0]
    assert f"`{WALKS[title]}`" in text
    assert re.search(r"`tests/(?!contracts)\w+/[\w/]+\.py`", text), "names no test of its own"
    assert "`tests/contracts/" in text or "`tests/layers/test_operators.py`" in text, "names no contract"
