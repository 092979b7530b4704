"""Files that are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from detectron2.utils.file_io import Detectron2Handler, PathHandler, PathManager, atomic_write, set_aside


def test_atomic_write_makes_folders_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with atomic_write(str(path), "w") as file:
        file.write("zwei ä")
    assert path.read_text(encoding="utf-8") == "zwei ä"
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path, "w") as file:
        file.write("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_permissions_are_those_of_a_normal_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_write(tmp_path / "new") as file:
        file.write(b"")
    mode = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
    (tmp_path / "new").chmod(0o600)
    with atomic_write(tmp_path / "new") as file:
        file.write(b"")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_relative_path_goes_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_write("here.txt", "w") as file:
        file.write("x")
    assert (tmp_path / "here.txt").read_text() == "x"


def test_other_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'wb' or 'w', got 'a'"), atomic_write(tmp_path / "x", "a"):
        pass


def test_local_paths_go_through_the_path_manager(tmp_path: Path) -> None:
    with PathManager.open(str(tmp_path / "x"), "w") as file:
        file.write("text")
    assert PathManager.isfile(str(tmp_path / "x"))
    assert PathManager.get_local_path(str(tmp_path / "x")) == str(tmp_path / "x")


def test_model_zoo_address_becomes_its_public_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def fetch(path: str, force: bool = False, **kwargs: object) -> str:
        asked.append(path)
        return str(tmp_path / "cached")

    (tmp_path / "cached").write_text("weights")
    handler = Detectron2Handler()
    monkeypatch.setattr(PathManager, "get_local_path", fetch)
    assert handler._get_local_path("detectron2://A/b.pkl") == str(tmp_path / "cached")
    assert asked == ["https://dl.fbaipublicfiles.com/detectron2/A/b.pkl"]
    assert handler._get_supported_prefixes() == ["detectron2://"]


def test_storage_that_cannot_rename_keeps_an_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Store(PathHandler):  # type: ignore[misc]  # iopath has no types
        def _get_supported_prefixes(self) -> list[str]:
            return ["store://"]

        def _isfile(self, path: str, **kwargs: object) -> bool:
            return path == "store://run/metrics.json"

        _exists = _isfile

    monkeypatch.setattr(PathManager, "_path_handlers", PathManager._path_handlers.copy())
    PathManager.register_handler(Store())
    set_aside("store://run/metrics.json")
    assert "cannot be renamed" in caplog.text
    set_aside("store://run/model_final.pth")
    assert len(caplog.records) == 1

    (tmp_path / "a.pth").write_text("first")
    set_aside(str(tmp_path / "a.pth"))
    assert [path.name for path in tmp_path.iterdir()] == ["a_1.pth"]
