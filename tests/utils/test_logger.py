"""Handlers, and messages that are said only now and then."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest

from detectron2.utils import logger as logger_module
from detectron2.utils.logger import (
    DETAILS,
    create_small_table,
    log_every_n,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)

TIME = r"\d\d/\d\d \d\d:\d\d:\d\d"


def test_console_and_file_get_each_message_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        log = setup_logger(str(tmp_path), name="detectron2")
    logging.getLogger("detectron2.engine.x").info("hello %d", 3)
    log.warning("careful")
    log.error("over")
    first, second, third = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"\[{TIME} d2\.engine\.x\]: hello 3", first)
    assert re.fullmatch(rf"WARNING \[{TIME} detectron2\]: careful", second)
    assert re.fullmatch(rf"ERROR \[{TIME} detectron2\]: over", third)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [re.fullmatch(rf"\[{TIME}\] (.*)", line)[1] for line in lines] == [
        "d2.engine.x INFO: hello 3",
        "detectron2 WARNING: careful",
        "detectron2 ERROR: over",
    ]


def test_console_is_coloured_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    log = setup_logger(name="detectron2")
    log.info("a")
    log.warning("b")
    log.critical("c")
    first, second, third = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"\x1b\[32m\[{TIME} detectron2\]: \x1b\[0ma", first)
    assert second.startswith("\x1b[5m\x1b[31mWARNING\x1b[0m \x1b[32m[")
    assert third.startswith("\x1b[4m\x1b[5m\x1b[31mERROR\x1b[0m \x1b[32m[")


def test_details_stay_in_the_file_where_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = setup_logger(name="detectron2")
    log.info("Model:\n%s", "a\nb", extra=DETAILS)
    assert capsys.readouterr().out.endswith("Model:\na\nb\n")
    setup_logger(str(tmp_path), name="detectron2")
    logging.getLogger("detectron2.x").info("Model:\n%s", "a\nb", extra=DETAILS)
    logging.getLogger("detectron2.x").info("Scores:\n%s", "a\nb")
    logging.getLogger("detectron2.x").info("One line", extra=DETAILS)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.endswith(f"d2.x]: Model: 2 lines in {tmp_path / 'log.txt'}")
    assert rest[0].endswith("Scores:") and rest[1:3] == ["a", "b"] and rest[3].endswith(": One line")
    assert "Model:\na\nb\n" in (tmp_path / "log.txt").read_text()


def test_without_colour_the_console_has_the_lines_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logger(name="detectron2", color=False).warning("b")
    assert re.fullmatch(rf"\[{TIME}\] detectron2 WARNING: b\n", capsys.readouterr().out)


def test_other_ranks_write_their_own_file_and_no_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = setup_logger(str(tmp_path / "run.log"), distributed_rank=2, name="detectron2")
    log.info("quiet")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "run.log.rank2").read_text().endswith("quiet\n")


def test_names_and_propagation(capsys: pytest.CaptureFixture[str]) -> None:
    log = setup_logger(name="fvcore", abbrev_name="", enable_propagation=True)
    assert log.propagate
    logging.getLogger("fvcore.common").info("a")
    assert capsys.readouterr().out.endswith(" common]: a\n")


def test_console_can_be_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logger(name="detectron2", configure_stdout=False).info("a")
    assert capsys.readouterr().out == ""


def test_log_first_n_counts_per_line_or_message(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for i in range(5):
            log_first_n(logging.INFO, f"line {i}", n=2)
        for i in range(4):
            log_first_n(logging.INFO, f"message {i % 2}", key="message")
        for i in range(4):
            log_first_n(logging.INFO, f"both {i % 2}", key=("caller", "message"))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["line 0", "line 1", "message 0", "message 1", "both 0", "both 1"]
    assert {record.name for record in caplog.records} == {__name__}
    with pytest.raises(ValueError, match="key must be"):
        log_first_n(logging.INFO, "x", key="line")


def test_log_every_n(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for i in range(7):
            log_every_n(logging.INFO, f"{i}", n=3)
        for i in range(2):
            log_every_n(logging.INFO, f"all {i}", name="detectron2.named")
    assert [record.getMessage() for record in caplog.records] == ["0", "3", "6", "all 0", "all 1"]


def test_log_every_n_seconds(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(logger_module.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO):
        for _ in range(6):
            log_every_n_seconds(logging.INFO, f"{now[0]:.0f}", n=2)
            now[0] += 1
    assert [record.getMessage() for record in caplog.records] == ["100", "102", "104"]


def test_small_table() -> None:
    lines = create_small_table({"AP": 12.34567, "name": "x"}).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["AP", "name"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["12.346", "x"]
    assert create_small_table({"only": 1})
