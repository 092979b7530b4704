"""The page of the model zoo says what the configs and the published numbers say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tool(repo_root: Path) -> ModuleType:
    path = repo_root / "tools" / "make_model_zoo_page.py"
    spec = importlib.util.spec_from_file_location("make_model_zoo_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(repo_root: Path) -> str:
    return (repo_root / "MODEL_ZOO.md").read_text(encoding="utf-8")


def test_page_is_up_to_date(tool: ModuleType, page: str) -> None:
    assert tool.make_page(page) == page, "run tools/make_model_zoo_page.py"


def test_every_config_is_on_the_page(repo_root: Path, page: str) -> None:
    for path in (repo_root / "configs").rglob("*"):
        name = path.relative_to(repo_root).as_posix()
        is_model = path.suffix in (".yaml", ".py") and not path.name.startswith(("Base-", "_"))
        if is_model and "common" not in path.parts:
            assert f"]({name})" in page, name


def test_published_numbers_stand_in_the_row_of_their_config(page: str, shared_dir: Path) -> None:
    results = json.loads((shared_dir / "spec" / "published_results.json").read_text())
    rows = {
        line.split("](configs/")[1].partition(")")[0]: line
        for line in page.splitlines()
        if "](configs/" in line
    }
    num_found = 0
    for result in results:
        name = result["config"].removeprefix("configs/")
        row = rows.get(name) or rows.get(name.replace(".py", ".yaml"))
        if not name or row is None:
            continue
        num_found += 1
        cells = {cell.strip().partition(" (")[0] for cell in row.split("|")}
        for key, value in result.items():
            if ("AP" in key or key == "PQ" or "(" in key) and value not in ("", "N/A"):
                assert value in cells or str(float(value)) in cells, (name, key)
        assert f"/{result['model id']}/" in row, name
    assert num_found > len(results) / 2


def test_res2net_rows_say_where_the_stride_is(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| [") and "_R2" in line.partition("]")[0]]
    assert len(rows) > 15
    strided_in_1x1 = [row.partition("]")[0] for row in rows if "| 1x1 |" in row]
    assert strided_in_1x1 == ["| [panoptic_fpn_R2_101_3x"]


def test_folder_without_a_table_and_table_without_a_folder_are_errors(tool: ModuleType, page: str) -> None:
    with pytest.raises(ValueError, match="no table for Cityscapes"):
        tool.make_page(page.replace("<!-- table: Cityscapes -->", ""))
    with pytest.raises(ValueError, match="table 'Cars'"):
        tool.make_page(page + "<!-- table: Cars -->\n<!-- end of table -->")
