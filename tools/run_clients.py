#!/usr/bin/env python
"""Run public projects as they are on this package, and write which of them work to docs/clients.md.

    tools/run_clients.py CLIENTS_ROOT        every folder of CLIENTS_ROOT is the checkout of a project

A project is trained for one step on a small data set that has the names and folders of COCO 2017, then
evaluated from the checkpoint that it wrote. Nothing in the checkout is changed. Which script and config are
run is looked for (a train_net.py, the first config that is no base); PROJECT.client.json beside the checkout
says it instead, and what else the project needs:

    {"script": "tools/train_net.py", "config": "configs/a.yaml", "overrides": ["MODEL.X", "1"]}

Without CLIENTS_ROOT the page is written with the packages of `make test-clients` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from client_data import write_small_coco

import detectron2

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("train_net.py", "plain_train_net.py", "lazyconfig_train_net.py", "train.py")
PACKAGES = (
    ("sahi", "slices an image, detects in each slice, puts the results together"),
    ("supervision", "reads predictions and key points, draws them"),
    ("layoutparser", "detects the blocks of a page"),
    ("deepdoctection", "builds a detector from its own YAML, detects, copies the detector"),
    ("neptune-detectron2", "follows a training by its hook, without its server"),
    ("slowfast", "pools features of clips with ROIAlign, forward and backward"),
    ("transformers", "LayoutLMv2 with random weights: forward, a training step, save and load"),
)
YAML_OVERRIDES = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "SOLVER.MAX_ITER": "1",
    "SOLVER.IMS_PER_BATCH": "1",
    "DATALOADER.NUM_WORKERS": "0",
    "INPUT.MIN_SIZE_TRAIN": "(96,)",
    "INPUT.MIN_SIZE_TEST": "96",
}
LAZY_OVERRIDES = {
    "train.device": "cpu",
    "train.init_checkpoint": "''",
    "train.max_iter": "1",
    "dataloader.train.total_batch_size": "1",
    "dataloader.train.num_workers": "0",
    "dataloader.test.num_workers": "0",
}
STEPS = ("starts", "trains", "infers", "evaluates")


@dataclass
class Result:
    """What a project did.

    Attributes:
        project: name of its folder.
        revision: its commit; "" where the folder is no checkout of git.
        command: script, config and overrides, for the page.
        steps: those of STEPS that worked, in their order.
        remark: what stopped it; "" where nothing did.
    """

    project: str
    revision: str
    command: str
    steps: list[str] = field(default_factory=list)
    remark: str = ""


class Project:
    """A checkout and how it is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        options = folder.parent / f"{folder.name}.client.json"
        told: dict[str, Any] = json.loads(options.read_text()) if options.is_file() else {}
        self.script = self._path(told.get("script")) or _first(folder, SCRIPTS)
        self.config = self._path(told.get("config")) or self._find_config()
        self.overrides = [str(text) for text in told.get("overrides", [])]

    def _path(self, name: str | None) -> Path | None:
        return self.folder / name if name else None

    def _find_config(self) -> Path | None:
        """The first YAML with a model that no other is built on, nearest to the top and by name."""
        found = []
        for path in self.folder.rglob("*.yaml"):
            text = path.read_text(encoding="utf-8", errors="replace")
            is_config = re.search(r"^(_BASE_|MODEL):", text, re.MULTILINE)
            if is_config and not path.name.lower().startswith(("base", "_")):
                found.append(path)
        return min(found, key=lambda path: (len(path.parts), str(path)), default=None)

    def command(self, output: Path, *, weights: str = "") -> list[str]:
        """Train for a step into `output`, or evaluate `weights`."""
        assert self.script is not None
        assert self.config is not None
        start = [sys.executable, str(self.script), "--config-file", str(self.config), "--num-gpus", "1"]
        if self.config.suffix == ".py":
            settings = {**LAZY_OVERRIDES, "train.output_dir": str(output)}
            settings |= {"train.init_checkpoint": weights} if weights else {}
            options = [f"{key}={value}" for key, value in settings.items()]
        else:
            values = {**YAML_OVERRIDES, "OUTPUT_DIR": str(output), "MODEL.WEIGHTS": weights}
            options = [text for pair in values.items() for text in pair]
        return [*start, *(["--eval-only"] if weights else []), *options, *self.overrides]

    def run(self, data_root: Path, work: Path, timeout: float) -> Result:
        """Train, infer and evaluate, as far as it goes."""
        result = Result(self.folder.name, _revision(self.folder), self._describe())
        if self.script is None or self.config is None:
            missing = "script" if self.script is None else "config"
            result.remark = f"no {missing} found: name it in {self.folder.name}.client.json"
            return result
        folders = dict.fromkeys([str(self.script.parent), str(self.folder), str(ROOT)])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "DETECTRON2_DATASETS": str(data_root)}
        output = work / self.folder.name

        def step(names: Sequence[str], command: Sequence[str]) -> str | None:
            """What the command printed; None where it failed."""
            text, error = _execute(command, self.folder, env, timeout)
            if error:
                result.remark = error
                return None
            result.steps += names
            return text

        if step(["starts"], [sys.executable, str(self.script), "--help"]) is None:
            return result
        if step(["trains"], self.command(output)) is None:
            return result
        weights = max(output.rglob("model_final*"), key=os.path.getmtime, default=None)
        if weights is None:
            result.remark = "trained, and left no model_final"
            return result
        text = step(["infers"], self.command(work / f"{self.folder.name}-eval", weights=str(weights)))
        if text is not None:
            if "copypaste" in text:
                result.steps.append("evaluates")
            else:
                result.remark = "evaluated, and printed no scores"
        return result

    def _describe(self) -> str:
        parts = [path.relative_to(self.folder) for path in (self.script, self.config) if path is not None]
        return " ".join([*map(str, parts), *self.overrides])


def _first(folder: Path, names: Iterable[str]) -> Path | None:
    """The file nearest to the top that has the first of these names."""
    for name in names:
        found = min(folder.rglob(name), key=lambda path: (len(path.parts), str(path)), default=None)
        if found is not None:
            return found
    return None


def _execute(command: Sequence[str], folder: Path, env: dict[str, str], timeout: float) -> tuple[str, str]:
    """Return what was printed, and what went wrong: "" where nothing did."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"took longer than {timeout:g} s"
    text = done.stdout + done.stderr
    if done.returncode == 0:
        return text, ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|error)\b", line)]
    return text, (errors or lines or [f"exit status {done.returncode}"])[-1][:200]


def _revision(folder: Path) -> str:
    """Commit of the checkout, "" where it is none."""
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def page(results: Sequence[Result] | None) -> str:
    """The whole page; None says that no projects were run."""
    lines = [
        "# Packages and projects that run on this one",
        "",
        "Written by `tools/run_clients.py`; [CONTRIBUTING.md](../CONTRIBUTING.md) says how it is called.",
        "",
        "## Packages",
        "",
        "`make test-clients` installs these beside this package and runs `tests/clients/packages`:",
        "",
        "| package | version | what it does there |",
        "| --- | --- | --- |",
    ]
    constraints = (ROOT / "constraints-clients.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", constraints, re.MULTILINE))
    lines += [f"| {name} | {pinned[name]} | {what} |" for name, what in PACKAGES]
    lines += ["", "## Projects", ""]
    if results is None:
        nothing = "No checkouts were given (`CLIENTS_ROOT`): nothing is known of projects."
        return "\n".join([*lines, nothing, ""])
    whole = sum(len(result.steps) == len(STEPS) for result in results)
    lines += [
        f"{whole} of {len(results)} train a step, infer and evaluate, as they are, on version"
        f" {detectron2.__version__}; {date.today():%Y-%m-%d}.",
        "",
        "| project | revision | what was run | " + " | ".join(STEPS) + " | what stopped it |",
        "| --- | --- | --- | " + "--- | " * (len(STEPS) + 1),
    ]
    for r in results:
        marks = " | ".join("yes" if step in r.steps else "no" for step in STEPS)
        remark = r.remark.replace("|", r"\|")
        lines.append(f"| {r.project} | {r.revision} | {r.command} | {marks} | {remark} |".replace("  ", " "))
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", help="folder with checkouts of projects")
    parser.add_argument("--output", default=str(ROOT / "docs" / "clients.md"), help="the page to write")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one command")
    args = parser.parse_args(argv)
    results = None
    if args.root:
        if not os.path.isdir(args.root):
            parser.error(f"{args.root!r} is no folder; give the one that holds the checkouts")
        results = []
        with tempfile.TemporaryDirectory() as work:
            data_root = Path(work, "datasets")
            write_small_coco(data_root)
            for folder in sorted(path for path in Path(args.root).resolve().iterdir() if path.is_dir()):
                result = Project(folder).run(data_root, Path(work), args.timeout)
                print(f"{result.project}: {', '.join(result.steps) or 'nothing'} {result.remark}".rstrip())
                results.append(result)
    Path(args.output).write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
