"""Which errors a tool shows as one message, and which keep their traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectron2.utils.events import EventStorage
from detectron2.utils.user_errors import describe_error, exit_on_user_error, suggest_files


def test_a_deliberate_error_becomes_a_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info, exit_on_user_error(), EventStorage() as storage:
        storage.history("no_such_loss")
    assert info.value.code == 2
    assert capsys.readouterr().err.startswith("error: No scalar named 'no_such_loss'")


def test_a_missing_file_becomes_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_user_error():
        open("no/such/file")
    assert "no/such/file" in capsys.readouterr().err


@pytest.mark.parametrize("bug", [lambda: {}["key"], lambda: int("x"), lambda: None + 1, lambda: 1 / 0])  # type: ignore[operator]
def test_a_bug_keeps_its_traceback(bug: object) -> None:
    with pytest.raises((KeyError, ValueError, TypeError, ZeroDivisionError)), exit_on_user_error():
        bug()  # type: ignore[operator]


def test_nothing_happens_without_an_error() -> None:
    with exit_on_user_error():
        pass


def test_key_errors_are_shown_as_they_were_written() -> None:
    assert describe_error(KeyError("No 'x' here")) == "No 'x' here"
    assert describe_error(ValueError()) == "ValueError"


def test_similar_files_are_suggested(tmp_path: Path) -> None:
    (tmp_path / "mask_rcnn_R_50.yaml").touch()
    (tmp_path / "readme.txt").touch()
    assert suggest_files(tmp_path / "mask_rcnn_R50.yaml") == f" Did you mean {tmp_path}/mask_rcnn_R_50.yaml?"
    assert suggest_files("/") == ""
