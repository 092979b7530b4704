"""Reading, merging and dumping configs."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from fvcore.common.config import CfgNode as FvcoreCfgNode

from detectron2.config import CfgNode, get_cfg, global_cfg, set_global_cfg


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def merged(folder: Path, text: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(write(folder, "config.yaml", text))
    return cfg


OTHER_VALUES: dict[type, Any] = {bool: None, int: 7, float: 0.125, str: "1e-4", tuple: (), list: []}


def changed(value: Any) -> Any:
    """A different value of the same type, also inside sequences."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "1e-4"
    if isinstance(value, (list, tuple)):
        return type(value)([changed(item) for item in value] or ["(1, 2)"])
    return 0.5


def test_is_the_type_that_fvcore_users_check_for() -> None:
    assert isinstance(get_cfg(), FvcoreCfgNode)
    assert isinstance(get_cfg().MODEL.RPN, CfgNode)


def test_defaults_are_those_of_the_interface(shared_dir: Path) -> None:
    expected = flatten(yaml.safe_load((shared_dir / "spec" / "config_defaults.yaml").read_text()))
    actual = flatten(yaml.safe_load(get_cfg().dump()))
    # A node of its own here, so that the dump of a plain ResNet does not become a Res2Net.
    del expected["MODEL.RESNETS.SCALE"]
    assert {key: actual.get(key) for key in expected} == expected
    added = actual.keys() - expected.keys()
    own = ("MODEL.RES2NET.", "MODEL.TIMM.", "SOLVER.AMP.DTYPE", "DATALOADER.RANDOM_SUBSET_RATIO")
    own += ("SOLVER.CHECKPOINT_KEEP", "TEST.CHECK_CLASS_NAMES")
    assert all(key.startswith(own) for key in added), added
    assert actual["MODEL.RES2NET.SCALE"] == 4
    assert actual["MODEL.RES2NET.DEEP_STEM"] is True
    assert actual["MODEL.RES2NET.AVG_DOWN"] is True
    assert actual["MODEL.RES2NET.STAGE_POOL"] == "auto"
    assert actual["DATALOADER.RANDOM_SUBSET_RATIO"] == 1.0


def test_get_cfg_gives_independent_copies() -> None:
    first = get_cfg()
    first.MODEL.PIXEL_MEAN.append(1.0)
    first.SOLVER.BASE_LR = 5.0
    assert get_cfg().SOLVER.BASE_LR == 0.001
    assert len(get_cfg().MODEL.PIXEL_MEAN) == 3


def test_dump_of_every_key_changed_reloads_equal(tmp_path: Path) -> None:
    cfg = get_cfg()
    sections = [cfg]
    while sections:
        section = sections.pop()
        for key, value in section.items():
            if isinstance(value, CfgNode):
                sections.append(value)
            elif key != "VERSION":
                section[key] = changed(value)
    assert flatten(cfg) != flatten(get_cfg())
    assert merged(tmp_path, cfg.dump()) == cfg


@pytest.mark.parametrize(
    "text", ["1e-4", "123", "None", "(1, 2)", "", "a: b", "true", "#x", "ä", "line\nbreak"]
)
def test_text_that_looks_like_something_else_survives_a_dump(tmp_path: Path, text: str) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = text
    assert merged(tmp_path, cfg.dump()).OUTPUT_DIR == text


def test_dump_of_a_foreign_type_names_the_key() -> None:
    cfg = get_cfg()
    cfg.MODEL["WEIGHTS"] = Path("x")
    with pytest.raises(TypeError, match="MODEL.WEIGHTS holds .*Path"):
        cfg.dump()


def test_dump_writes_to_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "out.yaml"
    with path.open("w") as stream:
        assert get_cfg().dump(stream) is None
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    assert cfg == get_cfg()


@pytest.mark.parametrize("empty", ["", "# nothing\n", "{}\n"])
def test_empty_file_changes_nothing(tmp_path: Path, empty: str) -> None:
    assert merged(tmp_path, empty) == get_cfg()


def test_base_is_relative_to_its_file_and_overridden_by_it(tmp_path: Path) -> None:
    write(tmp_path, "base/root.yaml", "SOLVER: {BASE_LR: 1.0, MAX_ITER: 10, GAMMA: 0.5}")
    write(tmp_path, "base/middle.yaml", "_BASE_: root.yaml\nSOLVER: {MAX_ITER: 20, GAMMA: 0.25}")
    cfg = merged(tmp_path, "_BASE_: base/middle.yaml\nSOLVER:\n  GAMMA: 0.125\n")
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.GAMMA) == (1.0, 20, 0.125)


def test_base_may_be_absolute_or_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write(tmp_path, "home/base.yaml", "SEED: 3")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert merged(tmp_path, f"_BASE_: {base}").SEED == 3
    assert merged(tmp_path, "_BASE_: ~/base.yaml").SEED == 3


@pytest.mark.parametrize("base", ["http://127.0.0.1:9/b.yaml", "detectron2://b.yaml", "s3://bucket/b.yaml"])
def test_local_file_does_not_make_us_read_from_the_network(tmp_path: Path, base: str) -> None:
    with pytest.raises(ValueError, match="another place.*DETECTRON2_REMOTE_BASE"):
        merged(tmp_path, f"_BASE_: {base}")


def test_bases_of_a_file_from_the_network_come_from_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "http://host/a/c.yaml": "_BASE_: ../b.yaml",
        "http://host/a/../b.yaml": "SEED: 3",
        "http://host/local.yaml": f"_BASE_: {write(tmp_path, 'base.yaml', 'SEED: 4')}",
        "http://host/other.yaml": "_BASE_: http://host.evil/b.yaml",
        "http://host.evil/b.yaml": "SEED: 5",
    }

    def open_file(name: str) -> io.StringIO:
        return io.StringIO(files[name] if name in files else Path(name).read_text())

    monkeypatch.setattr(CfgNode, "_open_cfg", open_file)
    assert CfgNode.load_yaml_with_base("http://host/a/c.yaml") == {"SEED": 3}
    for name in ("http://host/local.yaml", "http://host/other.yaml"):
        with pytest.raises(ValueError, match="another place"):
            CfgNode.load_yaml_with_base(name)
    monkeypatch.setenv("DETECTRON2_REMOTE_BASE", "1")
    assert CfgNode.load_yaml_with_base("http://host/other.yaml") == {"SEED": 5}
    assert CfgNode.load_yaml_with_base("http://host/local.yaml") == {"SEED": 4}


def test_of_several_bases_later_ones_win(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "SEED: 1\nVIS_PERIOD: 1")
    write(tmp_path, "b.yaml", "SEED: 2")
    cfg = merged(tmp_path, "_BASE_: [a.yaml, b.yaml]")
    assert (cfg.SEED, cfg.VIS_PERIOD) == (2, 1)


def test_base_cycle_is_an_error_that_shows_it(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "_BASE_: b.yaml")
    write(tmp_path, "b.yaml", "_BASE_: ./a.yaml")
    with pytest.raises(ValueError, match=r"a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        get_cfg().merge_from_file(str(tmp_path / "a.yaml"))


def test_missing_files_name_who_asked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.yaml does not exist"):
        get_cfg().merge_from_file(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml, which .*config\.yaml names as _BASE_"):
        merged(tmp_path, "_BASE_: gone.yaml")


@pytest.mark.parametrize("base", ["3", "{a: b}", "[1]", "['']"])
def test_base_of_another_type_is_an_error(tmp_path: Path, base: str) -> None:
    with pytest.raises(ValueError, match="_BASE_ must be a path or a list of paths"):
        merged(tmp_path, f"_BASE_: {base}")


def test_unknown_key_names_file_key_and_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"config\.yaml: unknown config key SOLVER.BASE_RL\. .*SOLVER.BASE_LR"):
        merged(tmp_path, "SOLVER: {BASE_RL: 1.0}")
    with pytest.raises(KeyError, match="MODEL.RESNET. Did you mean MODEL.RESNETS"):
        merged(tmp_path, "MODEL: {RESNET: {DEPTH: 18}}")


def test_unknown_key_of_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "SOLVER: {BASE_RL: 1.0}")
    with pytest.raises(KeyError, match=r"base\.yaml: unknown config key SOLVER.BASE_RL"):
        merged(tmp_path, "_BASE_: base.yaml\nSEED: 1")


def test_unknown_key_in_a_list_or_a_config() -> None:
    with pytest.raises(KeyError, match="SOLVER.BASE_RL. Did you mean SOLVER.BASE_LR"):
        get_cfg().merge_from_list(["SOLVER.BASE_RL", "1.0"])
    with pytest.raises(KeyError, match="MODEL.MASKON"):
        get_cfg().merge_from_other_cfg(CfgNode({"MODEL": {"MASKON": True}}))
    with pytest.raises(KeyError, match="SEED.DEEPER"):
        get_cfg().merge_from_list(["SEED.DEEPER", "1"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.MAX_ITER", "soon", "SOLVER.MAX_ITER must be int such as 40000, got str 'soon'"),
        ("SOLVER.MAX_ITER", "9e4", "must be int such as 40000, got float"),
        ("MODEL.MASK_ON", "1", "must be bool such as False, got int"),
        ("SOLVER.STEPS", "100", "must be tuple such as"),
        ("MODEL.RPN", "1", "must be a section with the keys HEAD_NAME"),
        ("MODEL.RPN", "None", "must be a section"),
    ],
)
def test_wrong_type_is_an_error(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_cfg().merge_from_list([key, value])
    section, _, name = key.partition(".")
    with pytest.raises(ValueError, match=message):
        merged(tmp_path, f"{section}: {{{name}: {value.replace('None', 'null').replace('9e4', '9.0e+4')}}}")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-3", 0.001),
        ("SOLVER.STEPS", "[1, 2]", (1, 2)),
        ("SOLVER.STEPS", "(1, 2)", (1, 2)),
        ("MODEL.PIXEL_MEAN", "(1.0, 2.0)", [1.0, 2.0]),
        ("SOLVER.WEIGHT_DECAY_BIAS", "0.5", 0.5),
        ("SOLVER.WEIGHT_DECAY_BIAS", "None", None),
        ("DATASETS.TRAIN", "('a', 'b')", ("a", "b")),
        ("OUTPUT_DIR", "2024", "2024"),
        ("OUTPUT_DIR", "'quoted'", "quoted"),
        ("MODEL.RES2NET.STAGE_POOL", "False", "False"),
        ("MODEL.RES2NET.STAGE_POOL", "auto", "auto"),
        ("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", "[[1.0, 1.0, 1.0, 1.0]]", ((1.0, 1.0, 1.0, 1.0),)),
    ],
)
def test_values_take_the_type_of_the_default(key: str, text: str, value: Any) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([key, text])
    found = flatten(cfg)[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", ["True", "1", "0.5"])
def test_number_for_a_text_key_is_refused_with_the_spelling_that_works(tmp_path: Path, value: str) -> None:
    with pytest.raises(ValueError, match=rf'STAGE_POOL must be str .* in quotes, "{value}", it is text'):
        merged(tmp_path, f"MODEL: {{RES2NET: {{STAGE_POOL: {value}}}}}")
    cfg = merged(tmp_path, f'MODEL: {{RES2NET: {{STAGE_POOL: "{value}"}}}}')
    assert cfg.MODEL.RES2NET.STAGE_POOL == value


def test_list_of_odd_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="pairs KEY VALUE, got 3 words"):
        get_cfg().merge_from_list(["SEED", "1", "OUTPUT_DIR"])
    get_cfg().merge_from_list([])


def test_a_failed_list_changes_nothing_that_is_shared() -> None:
    value = [0.5, 0.5, 0.5]
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.PIXEL_MEAN", value])
    value.append(1.0)
    assert cfg.MODEL.PIXEL_MEAN == [0.5, 0.5, 0.5]


def test_a_section_of_ones_own_can_be_merged_into(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.MODEL.MINE = CfgNode({"DEPTH": 3})
    cfg.merge_from_file(write(tmp_path, "own.yaml", "MODEL: {MINE: {DEPTH: 4}}"))
    assert cfg.MODEL.MINE.DEPTH == 4
    cfg.MODEL.MINE.set_new_allowed(True)
    cfg.merge_from_file(write(tmp_path, "own.yaml", "MODEL: {MINE: {WIDTH: 5, INNER: {A: 1}}}"))
    assert (cfg.MODEL.MINE.WIDTH, cfg.MODEL.MINE.INNER.A) == (5, 1)


def test_deprecated_and_renamed_keys_of_yacs_work(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.register_deprecated_key("MODEL.OLD")
    cfg.register_renamed_key("MODEL.BEFORE", "MODEL.AFTER")
    cfg.merge_from_file(write(tmp_path, "old.yaml", "MODEL: {OLD: 1}"))
    cfg.merge_from_list(["MODEL.OLD", 1])
    with pytest.raises(KeyError, match="MODEL.AFTER"):
        cfg.merge_from_list(["MODEL.BEFORE", 1])
    with pytest.raises(KeyError, match="MODEL.AFTER"):
        cfg.merge_from_file(write(tmp_path, "old.yaml", "MODEL: {BEFORE: 1}"))


def test_frozen_config_refuses_every_way_in(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SOLVER.BASE_LR = 1.0
    for change in (
        lambda: cfg.merge_from_list(["SEED", 1]),
        lambda: cfg.merge_from_other_cfg(CfgNode({"SEED": 1})),
        lambda: cfg.merge_from_file(write(tmp_path, "a.yaml", "SEED: 1")),
    ):
        with pytest.raises(AttributeError, match="defrost"):
            change()
    assert cfg == get_cfg()
    thawed = cfg.clone()
    thawed.defrost()
    thawed.merge_from_list(["SEED", 1])


def test_missing_attribute_names_near_keys() -> None:
    with pytest.raises(AttributeError, match="no key 'BASE_RL'. Did you mean BASE_LR"):
        _ = get_cfg().SOLVER.BASE_RL
    assert not hasattr(get_cfg(), "NOTHING")


def test_base_key_belongs_into_files() -> None:
    with pytest.raises(KeyError, match="_BASE_ is understood in files only"):
        get_cfg().merge_from_other_cfg(CfgNode({"_BASE_": "x"}))


def test_computed_keys_can_be_set_once() -> None:
    cfg = get_cfg()
    cfg.COMPUTED_SIZE = 3
    cfg.COMPUTED_SIZE = 3
    with pytest.raises(KeyError):
        cfg.COMPUTED_SIZE = 4


def test_global_cfg_is_seen_by_those_who_imported_it_before() -> None:
    seen = global_cfg
    try:
        set_global_cfg(get_cfg())
        assert seen.GLOBAL.HACK == 1.0
    finally:
        seen.clear()


FORK_FILE = "MODEL: {BACKBONE: {NAME: %s}, RESNETS: {SCALE: 8, DEPTH: 101}}"


@pytest.mark.parametrize(
    ("backbone", "twin"),
    [
        ("build_resnet_backbone", "build_res2net_backbone"),
        ("build_resnet_fpn_backbone", "build_res2net_fpn_backbone"),
        ("build_retinanet_resnet_fpn_backbone", "build_retinanet_res2net_fpn_backbone"),
        ("build_own_backbone", "build_own_backbone"),
    ],
)
def test_file_of_the_res2net_fork_is_understood(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, backbone: str, twin: str
) -> None:
    with caplog.at_level(logging.INFO):
        cfg = merged(tmp_path, FORK_FILE % backbone)
    assert cfg.MODEL.RES2NET.SCALE == 8
    assert cfg.MODEL.BACKBONE.NAME == twin
    assert cfg.MODEL.RESNETS.DEPTH == 101
    assert "SCALE" not in cfg.MODEL.RESNETS
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "MODEL.RES2NET.SCALE" in lines[0] and twin in lines[0]


def test_fork_key_and_backbone_may_stand_in_different_places(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "MODEL: {RESNETS: {SCALE: 6}}")
    cfg = merged(tmp_path, "_BASE_: base.yaml\nMODEL: {BACKBONE: {NAME: build_resnet_fpn_backbone}}")
    assert (cfg.MODEL.RES2NET.SCALE, cfg.MODEL.BACKBONE.NAME) == (6, "build_res2net_fpn_backbone")
    cfg = merged(tmp_path, "MODEL: {BACKBONE: {NAME: build_resnet_fpn_backbone}}")
    assert cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"
    cfg.merge_from_list(["MODEL.RESNETS.SCALE", "2"])
    assert (cfg.MODEL.RES2NET.SCALE, cfg.MODEL.BACKBONE.NAME) == (2, "build_res2net_fpn_backbone")
    cfg = get_cfg()
    name = ["MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"]
    cfg.merge_from_list(["MODEL.RESNETS.SCALE", "2", *name])
    assert cfg.MODEL.BACKBONE.NAME == "build_retinanet_res2net_fpn_backbone"


def test_plain_resnet_stays_one_after_a_dump(tmp_path: Path) -> None:
    cfg = get_cfg()
    assert merged(tmp_path, cfg.dump()).MODEL.BACKBONE.NAME == "build_resnet_backbone"


def test_dump_of_dictionaries_in_lists_reads_back(tmp_path: Path) -> None:
    cfg = CfgNode({"A": [{"x": 1, "y": [{"z": "t"}]}, {"x": 2}], "B": CfgNode({"C": [CfgNode({"d": 1})]})})
    path = tmp_path / "c.yaml"
    path.write_text(cfg.dump())
    other = CfgNode({"A": [], "B": CfgNode({"C": []})})
    other.merge_from_file(str(path))
    assert other.A == [{"x": 1, "y": [{"z": "t"}]}, {"x": 2}]
    assert other.B.C == [{"d": 1}]
