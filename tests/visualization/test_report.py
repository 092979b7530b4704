"""The report page stands alone and says what it was given."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from detectron2.visualization.report import Chart, Report, Table, read_metrics

_VOID_TAGS = {"meta", "img", "br", "line", "polyline"}


class _BalanceChecker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open_tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in _VOID_TAGS:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID_TAGS:
            assert self.open_tags.pop() == tag


@pytest.fixture
def report(tmp_path: Path) -> Report:
    picture = tmp_path / "scene.png"
    Image.new("RGB", (4, 3), "red").save(picture)
    return Report(
        title="A <run>",
        lead="lead text",
        figures={"PQ": 51.26},
        tables=[Table("boxes", ["metric", "value"], [("AP", 40.125), ("AP-disc", "-")])],
        charts=[Chart("loss", {"total": [(0, 4.0), (100, 1.0)], "mask": [(0, float("nan")), (100, 0.5)]})],
        pictures=[(picture, "one & only")],
        notes={"Config": "A: 1 < 2"},
    )


def test_page_loads_nothing_from_elsewhere(report: Report) -> None:
    page = report.to_html()
    assert "http" not in page and "<script" not in page and "<link" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert sources and all(source.startswith("data:") for source in sources)


def test_page_is_balanced_and_escaped(report: Report) -> None:
    checker = _BalanceChecker()
    checker.feed(report.to_html())
    assert checker.open_tags == []
    assert "A &lt;run&gt;" in report.to_html() and "one &amp; only" in report.to_html()


def test_page_holds_numbers_and_curves(report: Report) -> None:
    page = report.to_html()
    assert "51.3" in page and "40.12" in page and page.count("<polyline") == 2
    assert "nan" not in page


def test_empty_report_and_flat_or_empty_curves() -> None:
    assert "<h1>empty</h1>" in Report("empty").to_html()
    charts = [
        Chart("none", {}),
        Chart("one point", {"a": [(5, 2.0)]}),
        Chart("zeros", {"a": [(0, 0.0), (1, 0.0)]}),
    ]
    assert Report("charts", charts=charts).to_html().count("<svg") == 2


def test_report_is_written(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "sub" / "report.html")
    assert (tmp_path / "sub" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_metrics_of_a_resumed_run_are_read_once(tmp_path: Path) -> None:
    lines = [
        {"iteration": 0, "lr": 1.0},
        {"iteration": 20, "lr": 2.0, "note": "x"},
        {"iteration": 20, "lr": 3.0},
    ]
    path = tmp_path / "metrics.json"
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"iteration": 4')
    assert read_metrics(path) == {"lr": [(0, 1.0), (20, 3.0)]}
