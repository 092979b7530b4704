"""Scripts can be run as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.mark.skipif(os.name == "nt", reason="Windows has no run bit")
def test_scripts_have_the_run_bit_and_say_what_runs_them(repo_root: Path) -> None:
    files = [p for name in ("demo", "tools", "datasets") for p in (repo_root / name).rglob("*.py")]
    scripts = {path for path in files if "__main__" in path.read_text(encoding="utf-8")}
    assert repo_root / "demo" / "demo.py" in scripts and len(scripts) > 10
    for path in files:
        is_marked = path.read_text(encoding="utf-8").startswith("#!/usr/bin/env python")
        assert (path in scripts) == is_marked == os.access(path, os.X_OK), path
