"""Which errors a tool shows as one message, and which keep their traceback."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detectron2.engine import HookBase, TrainerBase
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger
from detectron2.utils.user_errors import UserValueError, describe_error, exit_on_user_error, suggest_files


def test_a_deliberate_error_becomes_a_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info, exit_on_user_error(), EventStorage() as storage:
        storage.history("no_such_loss")
    assert info.value.code == 2
    assert capsys.readouterr().err.startswith("error: No scalar named 'no_such_loss'")


def test_a_missing_file_becomes_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_user_error():
        Path("no/such/file").read_text()
    assert "no/such/file" in capsys.readouterr().err


@pytest.mark.parametrize("bug", [lambda: {}["key"], lambda: int("x"), lambda: None + 1, lambda: 1 / 0])  # type: ignore[operator]
def test_a_bug_keeps_its_traceback(bug: object) -> None:
    with pytest.raises((KeyError, ValueError, TypeError, ZeroDivisionError)), exit_on_user_error():
        bug()  # type: ignore[operator]


@pytest.fixture
def no_handlers() -> Iterator[None]:
    """A process in which nobody has set up logging yet, and which forgets what the test sets up."""
    logger = logging.getLogger("detectron2")
    kept, logger.handlers = logger.handlers, []
    level, propagate = logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = kept, level, propagate


def fail(error: Exception) -> None:
    raise error


@pytest.mark.usefixtures("no_handlers")
def test_the_console_shows_the_sentence_and_the_log_file_the_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), exit_on_user_error():
        setup_logger(str(tmp_path))
        fail(UserValueError("no such colour"))
    console = capsys.readouterr()
    assert (console.out, console.err) == ("", "error: no such colour\n")
    log = (tmp_path / "log.txt").read_text()
    assert "The program ends: no such colour\nTraceback" in log
    assert "fail(UserValueError" in log


@pytest.mark.usefixtures("no_handlers")
def test_the_log_file_has_the_traceback_of_a_bug_as_well(tmp_path: Path) -> None:
    setup_logger(str(tmp_path))
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        1 / 0  # noqa: B018
    assert "ZeroDivisionError" in (tmp_path / "log.txt").read_text()


def test_an_error_before_there_is_a_logger_is_one_sentence() -> None:
    program = """
from detectron2.utils.user_errors import UserKeyError, exit_on_user_error
with exit_on_user_error():
    raise UserKeyError("no key COLOUR")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: no key COLOUR\n")


@pytest.mark.usefixtures("no_handlers")
@pytest.mark.parametrize(("error", "on_console"), [(UserValueError("a b"), 0), (ValueError("a b"), 1)])
def test_a_failing_run_is_logged_with_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, on_console: int
) -> None:
    class Failing(TrainerBase):
        def run_step(self) -> None:
            raise error

    class FailsAtTheEnd(HookBase):
        def after_train(self) -> None:
            raise OSError("disk full")

    setup_logger(str(tmp_path))
    trainer = Failing()
    trainer.register_hooks([FailsAtTheEnd()])
    with pytest.raises(OSError, match="disk full"):
        trainer.train(0, 1)
    console, log = capsys.readouterr().out, (tmp_path / "log.txt").read_text()
    assert "Training stopped in iteration 0: a b" in console
    assert "FailsAtTheEnd failed after training: disk full" in console
    assert console.count("raise error") == on_console
    assert console.count("raise OSError") == 0
    assert "raise error" in log
    assert "raise OSError" in log


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
