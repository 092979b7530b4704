"""Keys that plug-ins declare, in a file of their own or from outside the package."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import detectron2
from detectron2.config import CfgNode, ForeignKey, get_cfg, register_config_keys, register_foreign_key
from detectron2.config import foreign_keys as foreign_keys_module
from detectron2.config.config import default_config
from detectron2.config.defaults import _C, DEFAULTS
from detectron2.config.plugin_keys import DECLARATION_FILE, add_declared_keys, add_keys, find_declarations


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    tree = get_cfg()
    monkeypatch.setattr(default_config, "default_tree", lambda: tree)
    monkeypatch.setattr(default_config, "_registered_keys", {})
    monkeypatch.setattr(
        foreign_keys_module, "_FOREIGN_KEYS", dict(vars(foreign_keys_module)["_FOREIGN_KEYS"])
    )


KEYS = {"MODEL": {"WIDENET": {"FACTOR": 4, "STAGES": {"FIRST": []}}}}


def make_package(folder: Path, declaration: str) -> Path:
    for part in (folder, folder / "inner", folder / "inner" / "net"):
        part.mkdir()
        (part / "__init__.py").touch()
    (folder / "inner" / "net" / DECLARATION_FILE).write_text(declaration)
    return folder


def test_registered_keys_are_in_every_later_config() -> None:
    before = get_cfg()
    register_config_keys(KEYS, owner="widenet")
    register_config_keys(KEYS, owner="widenet")
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.WIDENET.FACTOR", "2", "MODEL.WIDENET.STAGES.FIRST", "[1]"])
    assert cfg.MODEL.WIDENET == {"FACTOR": 2, "STAGES": {"FIRST": [1]}}
    assert get_cfg().MODEL.WIDENET == KEYS["MODEL"]["WIDENET"]
    assert "WIDENET" not in before.MODEL


@pytest.mark.parametrize(
    "full_key", ["MODEL.MASK_ON", "MODEL.RPN", "MODEL.MASK_ON.DEEP", "MODEL.RES2NET.SCALE"]
)
def test_a_key_that_is_there_already_is_refused_and_nothing_is_added(full_key: str) -> None:
    keys: dict = {}
    node = keys
    *parents, name = full_key.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[name] = 1
    with pytest.raises(ValueError, match=f"widenet declares the config key {full_key}, which is there"):
        register_config_keys({"FIRST_OF_ALL": 1, **keys}, owner="widenet")
    assert "FIRST_OF_ALL" not in get_cfg()


def test_an_owner_says_its_keys_once() -> None:
    register_config_keys(KEYS, owner="widenet")
    with pytest.raises(ValueError, match="widenet registered config keys before"):
        register_config_keys({"MODEL": {"OTHER": 1}}, owner="widenet")
    with pytest.raises(ValueError, match=r"other declares the config key MODEL\.WIDENET\.FACTOR"):
        register_config_keys(KEYS, owner="other")


def test_a_declaration_is_found_by_its_name_and_read(tmp_path: Path) -> None:
    root = make_package(
        tmp_path / "package",
        """
        keys: {MODEL: {WIDENET: {FACTOR: 4}}}
        foreign_keys:
          - {key: MODEL.RESNETS.WIDE, read_as: MODEL.WIDENET.FACTOR, origin: the authors' fork}
        """,
    )
    (root / "no_package").mkdir()
    (root / "no_package" / DECLARATION_FILE).write_text("keys: {NEVER: 1}")
    tree = DEFAULTS.clone()
    add_declared_keys(tree, root)
    assert "NEVER" not in tree
    tree.merge_from_list(["MODEL.RESNETS.WIDE", "8"])
    assert tree.MODEL.WIDENET.FACTOR == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kes: {A: 1}", "must hold `keys`, a tree of defaults.* it holds kes"),
        ("keys: 3", "must hold `keys`"),
        ("foreign_keys: []", "must hold `keys`"),
        ("keys: {A: 1}\nforeign_keys: [{key: B}]", "each of `foreign_keys` has"),
        ("keys: {MODEL: {RPN: {NMS_THRESH: 1}}}", "is there already"),
        ("keys: [", "expected"),
    ],
)
def test_a_broken_declaration_is_named(tmp_path: Path, text: str, message: str) -> None:
    root = make_package(tmp_path / "package", text)
    with pytest.raises(ValueError, match=message) as error:
        add_declared_keys(DEFAULTS.clone(), root)
    assert DECLARATION_FILE in str(error.value)


def test_declarations_are_found_without_delay() -> None:
    root = Path(detectron2.__file__).parent
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = find_declarations(root)
        times.append(time.perf_counter() - start)
    assert [path.parent.name for path in found] == ["res2net"]
    assert min(times) < 0.02  # two milliseconds on a quiet machine


def test_the_tree_that_projects_import_has_the_declared_keys() -> None:
    assert _C.MODEL.RES2NET.SCALE == 4


def foreign(**changes) -> ForeignKey:
    values = {"key": "MODEL.STRIPE", "read_as": "MODEL.RPN.NMS_THRESH", "origin": "the fork", "renames": {}}
    return ForeignKey(**(values | changes))


def test_a_foreign_key_may_say_that_other_values_mean_something_else(tmp_path: Path) -> None:
    register_foreign_key(foreign(renames={"MODEL.BACKBONE.NAME": {"build_theirs": "build_ours"}}))
    register_foreign_key(foreign(renames={"MODEL.BACKBONE.NAME": {"build_theirs": "build_ours"}}))
    (tmp_path / "a.yaml").write_text("MODEL: {STRIPE: 0.25, BACKBONE: {NAME: build_theirs}}")
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "a.yaml"))
    assert (cfg.MODEL.RPN.NMS_THRESH, cfg.MODEL.BACKBONE.NAME) == (0.25, "build_ours")
    cfg.MODEL.BACKBONE.NAME = "build_theirs"
    cfg.merge_from_list(["MODEL.STRIPE", "0.5"])
    assert (cfg.MODEL.RPN.NMS_THRESH, cfg.MODEL.BACKBONE.NAME) == (0.5, "build_ours")
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_theirs"])
    assert cfg.MODEL.BACKBONE.NAME == "build_theirs"


def test_a_foreign_key_that_a_user_added_is_the_users() -> None:
    register_foreign_key(foreign())
    cfg = get_cfg()
    cfg.MODEL.STRIPE = 1.0
    cfg.merge_from_list(["MODEL.STRIPE", "0.5"])
    assert (cfg.MODEL.STRIPE, cfg.MODEL.RPN.NMS_THRESH) == (0.5, 0.7)


def test_a_config_without_the_key_it_is_read_as_does_not_know_it() -> None:
    register_foreign_key(foreign())
    with pytest.raises(KeyError, match=r"MODEL\.STRIPE"):
        CfgNode({"MODEL": {"DEPTH": 1}}).merge_from_list(["MODEL.STRIPE", "0.5"])


def test_one_foreign_key_has_one_meaning() -> None:
    register_foreign_key(foreign())
    with pytest.raises(
        ValueError, match=r"MODEL\.STRIPE is read as MODEL\.RPN\.NMS_THRESH \(the fork\) already"
    ):
        register_foreign_key(foreign(read_as="MODEL.DEVICE"))
    with pytest.raises(ValueError, match="must be read as a key of another name"):
        register_foreign_key(foreign(key="A", read_as="A"))


def test_adding_keys_leaves_what_was_given_alone() -> None:
    tree = DEFAULTS.clone()
    add_keys(tree, KEYS, owner="widenet")
    tree.MODEL.WIDENET.STAGES.FIRST.append(1)
    assert KEYS["MODEL"]["WIDENET"]["STAGES"] == {"FIRST": []}
