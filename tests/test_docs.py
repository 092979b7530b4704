"""What the pages say is so: files that they name exist, code in them runs, lists in them are whole."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import detectron2

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
NAMES_OF_PAGES = [page.relative_to(ROOT).as_posix() for page in PAGES]

# Inline code that begins so is a path from the root of the repository.
FOLDERS = ("detectron2/", "tests/", "tools/", "docs/", "configs/", "results/", "demo/", ".ci/", ".github/")
BUILT = (".so",)
SOURCES = (".py", ".md", ".yaml", ".toml", ".json", ".cpp", ".cu", ".h")


@pytest.fixture(params=PAGES, ids=NAMES_OF_PAGES)
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def prose(text: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def named_paths(text: str) -> Iterator[str]:
    """What inline code names that looks like a path: letters, digits and slashes, no placeholder."""
    for name in re.findall(r"`([\w.+-]+(?:/[\w.+-]+)*/?)`", prose(text)):
        is_source = "/" in name and name.endswith(SOURCES)
        is_page = re.fullmatch(r"[A-Z_]+\.md|pyproject\.toml|setup\.py|Makefile", name)
        if (name.startswith(FOLDERS) or is_source or is_page) and not name.endswith(BUILT):
            yield name


def links(text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(text)):
        if "://" not in target:
            yield target


def python_blocks(text: str) -> list[tuple[str, bool]]:
    """The code of every Python block, and whether the line `<!-- example -->` stands above it."""
    blocks = re.findall(r"(<!-- example -->\n)?^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [(code, bool(marker)) for marker, code in blocks]


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its two first lines."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_what_is_looked_for_is_found() -> None:
    text = "`layers/<op>.py` `detectron2/no.py`, `layers/nms.py` `a/b` [x](y.md#z)\n```\n`tests/`\n```\n"
    assert list(named_paths(text)) == ["detectron2/no.py", "layers/nms.py"]
    assert list(links(text)) == ["y.md"]
    marked = "<!-- example -->\n```python\na\n```\n```python\nb\n```\n"
    assert python_blocks(marked) == [("a\n", True), ("b\n", False)]
    assert rows("## T\n| a | b |\n| --- | --- |\n| c | d |\n## U\n| e |\n", "T") == [["c", "d"]]


def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [
        name
        for name in named_paths(text)
        if not any((folder / name).exists() for folder in (ROOT, ROOT / "detectron2", page.parent))
    ]
    missing += [target for target in links(text) if not (page.parent / target).exists()]
    assert not missing, f"{page.name} names what is not there"


def test_python_blocks_of_a_page_compile_and_examples_run(page: Path) -> None:
    for number, (code, is_example) in enumerate(python_blocks(page.read_text(encoding="utf-8")), start=1):
        compiled = compile(code, f"{page.name}, block {number}", "exec")
        if is_example:
            exec(compiled, {"__name__": "example"})


def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_all_headings_and_stands_in_the_index(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "What would change our mind"]
    assert text.startswith(f"# {decision.name[:4]}: ")
    assert f"]({decision.name})" in (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")


def test_every_decision_has_a_number_of_its_own() -> None:
    # Work that goes on side by side takes numbers from ranges of its own, so there may be gaps.
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert len(numbers) == len(set(numbers))


def test_changelog_begins_with_this_version_or_with_what_comes_next() -> None:
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert detectron2.__version__ in sections[: 2 if sections[0] == "Unreleased" else 1]


def deprecation_warnings() -> Iterator[str]:
    """Every file of the package that warns that something is deprecated, once for each warning."""
    for path in sorted((ROOT / "detectron2").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("warn"):
                arguments = {ast.unparse(value) for value in (*node.args, *(k.value for k in node.keywords))}
                if arguments & {"DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"}:
                    yield path.relative_to(ROOT).as_posix()


def test_the_table_of_deprecated_names_agrees_with_the_warnings_in_the_code() -> None:
    page = (ROOT / "docs" / "deprecation.md").read_text(encoding="utf-8")
    places = sorted(row[1].strip("`") for row in rows(page, "Deprecated now"))
    assert places == sorted(deprecation_warnings())
