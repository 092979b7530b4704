"""The table of tools/benchmark_ops.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from detectron2.layers import extension

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_ops.py"


def run(*arguments: str) -> str:
    command = [sys.executable, str(TOOL), "--threads", "1", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_prints_a_row_for_each_task() -> None:
    output = run("--only", "nms, 2000", "paste")
    rows = [line for line in output.splitlines() if line.startswith(("| nms", "| paste"))]
    assert len(rows) == 3
    compiled, plain = (cell.strip() for cell in rows[0].split("|")[2:4])
    assert float(plain) > 0
    if extension.missing_reason():
        assert compiled == "-" and "Compiled operators:" in output
    else:
        assert float(compiled) > 0


@pytest.mark.gpu
def test_runs_on_a_gpu() -> None:
    assert "nms, 2000 boxes" in run("--device", "cuda")
