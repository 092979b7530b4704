"""What `import detectron2.engine` costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, sys, time
start = time.process_time()
import torch
with_torch = time.process_time()
import detectron2.engine
with_engine = time.process_time()
print(json.dumps({"ratio": (with_engine - start) / (with_torch - start), "modules": list(sys.modules)}))
"""
SLOW = {"cv2", "fvcore.nn", "matplotlib", "omegaconf", "scipy", "torchvision"}


def test_import_is_light_next_to_torch(repo_root: Path) -> None:
    reports = []
    for _ in range(3):  # the first one may compile and read from a cold disk
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=repo_root, capture_output=True, text=True, check=True
        )
        reports.append(json.loads(done.stdout))
        if reports[-1]["ratio"] <= 1.5:
            break
    assert SLOW.isdisjoint(reports[-1]["modules"])
    assert min(report["ratio"] for report in reports) <= 1.5
