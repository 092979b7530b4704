"""The script that makes the embedded data set."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def prepare_shapes(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("datasets/prepare_shapes.py")


def test_script_makes_both_splits_and_then_has_nothing_to_do(
    prepare_shapes: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--root",
        str(tmp_path),
        "--workers",
        "1",
        "--images",
        "3",
        "--val-images",
        "2",
        "--size",
        "48x64",
    ]
    prepare_shapes.main(arguments)
    assert len(list((tmp_path / "shapes/train").glob("*.jpg"))) == 3
    assert len(list((tmp_path / "shapes/panoptic_val").glob("*.png"))) == 2
    capsys.readouterr()
    prepare_shapes.main(arguments)
    assert capsys.readouterr().out.count(" 0 of them new") == 2


def test_script_explains_a_wrong_size(prepare_shapes: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as failed:
        prepare_shapes.main(["--size", "big"])
    assert failed.value.code == 2 and "HEIGHTxWIDTH" in capsys.readouterr().err


def test_workers_draw_the_same_scenes_as_one_process(prepare_shapes: ModuleType, tmp_path: Path) -> None:
    for root, workers in (("one", "1"), ("two", "2")):
        arguments = [
            "--root",
            str(tmp_path / root),
            "--workers",
            workers,
            "--images",
            "30",
            "--val-images",
            "1",
        ]
        prepare_shapes.main([*arguments, "--size", "48x48"])
    for kind in ("train", "panoptic_train", "annotations"):
        files = sorted((tmp_path / "one/shapes" / kind).iterdir())
        assert files
        for file in files:
            assert file.read_bytes() == (tmp_path / "two/shapes" / kind / file.name).read_bytes()
