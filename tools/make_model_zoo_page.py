#!/usr/bin/env python
"""Write the tables of MODEL_ZOO.md anew, from the shipped configs and the numbers published for them.

    tools/make_model_zoo_page.py

Only what stands between `<!-- table: NAME -->` and `<!-- end of table -->` changes; NAME is a folder of
`configs/`, or Res2Net, which collects the Res2Net configs of all folders.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import get_cfg
from detectron2.utils.file_io import Detectron2Handler, atomic_write
from detectron2.utils.user_errors import UserValueError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
RES2NET = "Res2Net"
METRICS = (
    "box AP",
    "box AP50",
    "mask AP",
    "keypoint AP",
    "proposal AR",
    "PQ",
    "PQ of things",
    "PQ of stuff",
    "SQ",
    "RQ",
    "mIoU",
    "train s/iter",
    "train s/image",
    "inference s/image",
    "train GB",
)

# A column's title and the text of its cell for a config, by the config's name without the suffix.
Column = tuple[str, Callable[[str], str]]


class Zoo:
    """The configs of a checkout and what was published for them."""

    def __init__(self, root: Path) -> None:
        self.configs = root / "configs"
        data = (root / "detectron2" / "model_zoo" / "published.json").read_text(encoding="utf-8")
        self.published: dict[str, dict[str, Any]] = json.loads(data)
        self.suffixes = self._find_configs()

    def _find_configs(self) -> dict[str, list[str]]:
        """Name without the suffix -> suffixes that exist, YAML first."""
        found: dict[str, list[str]] = defaultdict(list)
        for suffix in (".yaml", ".py"):
            for path in sorted(self.configs.rglob(f"*{suffix}")):
                name = path.relative_to(self.configs).with_suffix("").as_posix()
                if not path.name.startswith(("Base-", "_")) and not name.startswith("common/"):
                    found[name].append(suffix)
        return dict(found)

    def names_by_table(self) -> dict[str, list[str]]:
        tables: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.suffixes, key=_natural_order):
            tables[RES2NET if "_R2" in name else name.partition("/")[0]].append(name)
        return dict(tables)

    def yaml(self, name: str) -> Any:
        cfg = get_cfg()
        cfg.merge_from_file(str(self.configs / f"{name}.yaml"))
        return cfg

    def link(self, name: str) -> str:
        first, *others = self.suffixes[name]
        title = name.rpartition("/")[2]
        links = [f"[{title}](configs/{name}{first})"]
        return ", ".join(links + [f"[{suffix[1:]}](configs/{name}{suffix})" for suffix in others])

    def metric(self, name: str, metric: str) -> str:
        record = self.published.get(name, {})
        plain, augmented = (record.get(kind, {}).get(metric) for kind in ("results", "augmented"))
        return "" if plain is None else str(plain) if augmented is None else f"{plain} ({augmented})"

    def weights(self, name: str) -> str:
        checkpoint = self.published.get(name, {}).get("checkpoint")
        return f"[model]({Detectron2Handler.S3_DETECTRON2_PREFIX}{name}/{checkpoint})" if checkpoint else ""


def _natural_order(name: str) -> list[str]:
    """Sort numbers inside names by value: R_50 before R_101."""
    return [part.zfill(6) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def res2net_columns(zoo: Zoo) -> list[Column]:
    """What decides which weights fit; Python configs are not looked into, as that would run them."""

    def stride(name: str) -> str:
        return "1x1" if zoo.yaml(name).MODEL.RESNETS.STRIDE_IN_1X1 else "3x3"

    def start(name: str) -> str:
        return f"`{Path(zoo.yaml(name).MODEL.WEIGHTS).name}`"

    def of_yaml(cell: Callable[[str], str]) -> Callable[[str], str]:
        return lambda name: cell(name) if ".yaml" in zoo.suffixes[name] else ""

    return [("stride in", of_yaml(stride)), ("starts from", of_yaml(start))]


def expectation_columns(zoo: Zoo) -> list[Column]:
    def expected(name: str) -> str:
        entries = zoo.yaml(name).TEST.EXPECTED_RESULTS
        return ", ".join(f"{task} {metric} {value} ± {delta}" for task, metric, value, delta in entries)

    return [("expected", expected)]


def make_table(zoo: Zoo, table: str, names: Sequence[str]) -> str:
    columns: list[Column] = [("config", zoo.link)]
    if table == RES2NET:
        columns += res2net_columns(zoo)
    if table == "quick_schedules":
        columns += expectation_columns(zoo)
    for metric in METRICS:
        if any(zoo.metric(name, metric) for name in names):
            columns.append((metric, lambda name, metric=metric: zoo.metric(name, metric)))  # type: ignore[misc]
    if any(zoo.weights(name) for name in names):
        columns.append(("weights", zoo.weights))
    rows = [[title for title, _ in columns], ["---"] * len(columns)]
    rows += [[cell(name) for _, cell in columns] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def make_page(page: str, root: Path = ROOT) -> str:
    """Return the page with its tables made anew.

    Raises:
        ValueError: a folder of configs has no table in the page, or a table has no configs.
    """
    zoo = Zoo(root)
    tables = zoo.names_by_table()
    written = []

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name not in tables:
            raise UserValueError(f"the page has a table {name!r}, but there are no such configs")
        written.append(name)
        return f"<!-- table: {name} -->\n{make_table(zoo, name, tables[name])}\n<!-- end of table -->"

    new = re.sub(r"<!-- table: (\S+) -->\n.*?<!-- end of table -->", replace, page, flags=re.DOTALL)
    if missing := sorted(set(tables) - set(written)):
        raise UserValueError(f"the page has no table for {', '.join(missing)}: write `<!-- table: NAME -->`")
    return new


def main() -> int:
    path = ROOT / "MODEL_ZOO.md"
    page = path.read_text(encoding="utf-8")
    with atomic_write(path, "w") as file:
        file.write(make_page(page))
    return 0


if __name__ == "__main__":
    with exit_on_user_error():
        sys.exit(main())
