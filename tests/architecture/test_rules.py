"""Every check of the structure finds what it is meant to find, in packages made up here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from . import rules
from .source_tree import SourceTree

Write = Callable[[dict[str, str]], SourceTree]

LAYERS = (("ground",), ("middle", "side"), ("top",))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a package `house` from {path: source}; folders get an empty `__init__`."""

    def make(files: dict[str, str]) -> SourceTree:
        folder = tmp_path / "house"
        for name, source in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(source), encoding="utf-8")
        for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            (inner / "__init__.py").touch()
        return SourceTree(tmp_path, "house")

    return make


@pytest.mark.parametrize(
    "line",
    [
        "from house.top import roof",
        "from ..top import roof",
        "from ..top.roof import tile",
        "import house.top.roof as r",
        "def f():\n    from ..top import roof",
        "import importlib\nroof = importlib.import_module('house.top.roof')",
        "import importlib\nroof = importlib.import_module('..top.roof', __package__)",
        "roof = __import__('house.top.roof')",
        "target = {'_target_': 'house.top.roof.tile'}",
        "LAZY = {'tile': 'house.top.roof'}",
        "def __getattr__(name):\n    from ..top import roof\n    return getattr(roof, name)",
        "from house.side import wall",  # beside, not above
        "if True:\n    from ..top import roof",
        "try:\n    from ..top import roof\nexcept ImportError:\n    pass",
    ],
)
def test_an_import_that_points_up_is_found(write: Write, line: str) -> None:
    tree = write(
        {"middle/room.py": line, "top/roof.py": "tile = 1", "side/wall.py": "", "ground/floor.py": ""}
    )
    found = rules.upward_imports(tree, LAYERS, re_exports=())
    assert len(found) == 1 and found[0].startswith("house.middle.room:")


def test_imports_that_point_down_are_fine(write: Write) -> None:
    tree = write(
        {"top/roof.py": "from house.middle.room import x\nfrom ..ground import floor\nimport house.side.wall",
         "middle/room.py": "'''Knows house.top.roof.'''\nx = 'see house.top.roof'", "ground/floor.py": "",
         "side/wall.py": "import logging\nlogging.getLogger('house')"}
    )  # fmt: skip
    assert rules.upward_imports(tree, LAYERS, re_exports=()) == []
    assert rules.homeless_modules(tree, LAYERS) == []


def test_listed_re_exports_may_point_up_and_no_other_file(write: Write) -> None:
    source = "from house.top.roof import tile as tile"
    tree = write({"ground/old.py": source, "ground/new.py": source, "top/roof.py": "tile = 1"})
    assert rules.upward_imports(tree, LAYERS, {"ground.old"}) == [
        "house.ground.new:1 imports house.top.roof.tile"
    ]


def test_a_package_is_not_imported_by_what_lies_inside(write: Write) -> None:
    tree = write(
        {"top/__init__.py": "from .roof import tile", "top/roof.py": "", "top/attic.py": "from . import x"}
    )
    assert rules.upward_imports(tree, LAYERS, ()) == [
        "house.top.attic:1 imports house.top.x, a package above itself"
    ]


def test_a_module_without_layer_is_homeless(write: Write) -> None:
    assert rules.homeless_modules(write({"shed.py": "", "top/roof.py": ""}), LAYERS) == ["house.shed"]


@pytest.mark.parametrize(
    "closing",
    [
        "from .a import x",
        "def f():\n    from . import a",
        "import importlib\nimportlib.import_module('house.top.a')",
    ],
)
def test_a_cycle_is_found_however_it_is_closed(write: Write, closing: str) -> None:
    tree = write({"top/a.py": "from . import b", "top/b.py": "from .c import x", "top/c.py": closing})
    assert rules.import_cycle(tree) == [f"house.top.{name}" for name in "abca"]


def test_imports_for_types_alone_close_no_cycle(write: Write) -> None:
    closing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import a"
    assert rules.import_cycle(write({"top/a.py": "from . import b", "top/b.py": closing})) == []


@pytest.mark.parametrize(
    "line",
    [
        "from .other import _secret",
        "from .other import _secret as secret",
        "from house.top.other import shown, _secret",
        "from . import _hidden",
        "from ._hidden import shown",
        "import house.top._hidden",
        "from . import other\nother._secret()",
        "import house.top.other as o\nx = o._secret",
        "import house.top.other\nx = house.top.other._secret",
        "from . import other\nx = getattr(other, '_secret')",
        "x = locate('house.top.other._secret')",
        "x = locate('house.top._hidden.shown')",
        "def f():\n    from .other import _secret",
    ],
)
def test_a_private_name_of_another_module_is_found(write: Write, line: str) -> None:
    tree = write({"top/user.py": line, "top/other.py": "_secret = shown = 1", "top/_hidden.py": "shown = 1"})
    found = rules.private_imports(tree)
    assert found and all(text.startswith("house.top.user:") for text in found)


def test_own_private_names_and_public_names_under_private_spellings_are_fine(write: Write) -> None:
    source = (
        "from .other import shown as _old\nfrom os import _exit\n_mine = _old\nfrom .other import __doc__"
    )
    tree = write(
        {"top/user.py": source + "\nclass A:\n    def f(self):\n        return self._x", "top/other.py": ""}
    )
    assert rules.private_imports(tree) == []


@pytest.mark.parametrize(
    "line",
    [
        "def f():\n    from . import other",
        "x = lambda: __import__('house.top.other')",
        "class A:\n    def f(self):\n        import house.top.other",
        "x = locate('house.top.other.shown')",
        "def __getattr__(name):\n    from .other import shown\n    return shown",
    ],
)
def test_a_hidden_import_needs_an_entry(write: Write, line: str) -> None:
    tree = write({"top/user.py": line, "top/other.py": "shown = 1"})
    assert len(rules.hidden_imports(tree, {})) == 1
    assert rules.hidden_imports(tree, {("top.user", "top.other"): "a reason"}) == []


def test_an_entry_without_use_is_found(write: Write) -> None:
    tree = write({"top/user.py": "from . import other", "top/other.py": ""})
    assert rules.hidden_imports(tree, {("top.user", "top.other"): "old"}) == [
        "top.user does not defer top.other"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "import_module(f'house.top.{name}')",
        "path = 'house.top.' + name",
        "importlib.import_module('.' + name, __package__)",
        "importlib.import_module(f'.{name}', __package__)",
        "importlib.import_module(__name__ + '.other')",
    ],
)
def test_a_computed_path_is_found(write: Write, line: str) -> None:
    assert rules.hidden_imports(write({"top/user.py": line}), {}) == [
        "house.top.user:1 computes the path of a module"
    ]


def test_computed_names_of_others_are_fine(write: Write) -> None:
    source = "import_module(f'timm.{name}')\nx = f'.parts_{name}'\ny = f'house.top is {name}'"
    assert rules.hidden_imports(write({"top/user.py": source}), {}) == []


PLUGIN = {"wood": "top/wood"}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("top/roof.py", "def build_Wood_roof(): ..."),
        ("top/roof.py", "x = 'WOOD.SCALE'"),
        ("ground/floor.py", "# as wood does"),
        ("ground/keys.yaml", "MODEL: {WOOD: 1}"),
        ("top/__init__.py", "'''Has wood.'''"),
        ("top/__init__.py", "from .roof import wooden"),
        ("top/woodwork/roof.py", "x = 'wood'"),
    ],
)
def test_knowledge_of_a_plugin_is_found(write: Write, name: str, source: str) -> None:
    home = {"top/wood/__init__.py": "from .block import wood", "top/wood/block.py": "wood = 1"}
    tree = write({name: source, **home})
    assert rules.plugin_knowledge(tree, PLUGIN) == [f"house/{name}:1 knows wood"]


@pytest.mark.parametrize("home", ["top/wood.py", "top/wood/block.py"])
def test_a_plugin_is_known_at_home_and_imported_by_its_package(write: Write, home: str) -> None:
    facade = "from .wood import (\n    wood as wood,\n)\nfrom .other import x\n"
    assert rules.plugin_knowledge(write({home: "wood = 1", "top/__init__.py": facade}), PLUGIN) == []


@pytest.mark.parametrize(
    "line",
    [
        "x = 1",
        "def f(): ...",
        "class A: ...",
        "if x:\n    pass",
        "f()",
        "for i in y: ...",
        "__version__ = '1'",
    ],
)
def test_a_facade_that_does_more_is_found(write: Write, line: str) -> None:
    source = f"'''Facade.'''\nfrom house.top.roof import tile as tile\n__all__ = ['tile']\n{line}"
    tree = write({"top/roof.py": "tile = 1", "ground/old.py": source, "middle/__init__.py": source})
    found = rules.thick_facades(tree, re_exports={"ground.old"}, lazy=())
    assert [text.split()[0] for text in found] == ["house.ground.old:4", "house.middle:4"]


def test_thin_facades_are_fine_and_unlisted_ones_are_found(write: Write) -> None:
    source = "'''Facade.'''\nfrom house.top.roof import tile as tile\n__all__ = ['tile']\n"
    main = "if __name__ == '__main__':\n    tile()\n"
    lazy = """\
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from .room import x as x
        def __getattr__(name):
            if name == "x":
                from . import room
                return room.x
            raise AttributeError(name)
        """
    tree = write(
        {"__init__.py": "__version__ = '1'", "top/roof.py": "tile = 1", "ground/old.py": source + main,
         "middle/__init__.py": lazy, "middle/room.py": "x = 1", "side/wall.py": source}
    )  # fmt: skip
    assert rules.thick_facades(tree, {"ground.old"}, ("middle",)) == [
        "house.side.wall holds nothing but imports and is not on the list of re-exports"
    ]
    assert len(rules.thick_facades(tree, {"ground.old", "side.wall"}, ())) == 2


def test_names_taken_from_a_facade_are_found(write: Write) -> None:
    tree = write(
        {"middle/__init__.py": "from .room import x as x", "middle/room.py": "x = 1",
         "ground/old.py": "from house.top.roof import tile", "top/roof.py": "tile = 1",
         "top/__init__.py": "from house.middle import x", "top/a.py": "from house.middle import x\ny = x",
         "top/b.py": "from house.ground import old\ny = 1",
         "top/c.py": "from house.middle import room\ny = 1",
         "top/d.py": "from house.middle.room import x\ny = 1"}
    )  # fmt: skip
    assert rules.facade_imports(tree, {"ground.old"}) == [
        "house.top.a:1 imports house.middle.x", "house.top.b:1 imports house.ground.old"
    ]  # fmt: skip


def test_star_imports_and_globals_are_found(write: Write) -> None:
    tree = write({"top/roof.py": "from os import *\nglobals()['x'] = 1"})
    assert rules.wild_imports(tree) == ["house.top.roof:1 star import", "house.top.roof:2 globals()"]


def test_a_long_function_is_found(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text(
        "class A:\n    def f(self):\n" + "        pass\n" * 4 + "    async def g(self):\n        pass\n"
    )
    assert rules.long_functions(path, 4) == [f"{path}:2 f has 5 lines"]
    assert rules.long_functions(path, 5) == []
    assert rules.count_lines(path) == 8
