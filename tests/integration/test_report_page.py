"""The report's page in a browser: its script draws, sorts and filters; it fits a phone and twelve sheets of paper."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.analysis.aggregate import aggregate_results
from luigi_prune.report import write_report
from luigi_prune.report.html import page_script
from tests.blank_pictures import dots
from tests.integration.test_browser import browse
from tests.report.test_costs_and_shifts import read_more
from tests.synthetic import make_grid

METHODS = ("ReferenceNet", "FakeNet", "ThresNet", "FilterThresNet", "UniNet", "PFPNet", "ALDSNet")
SETS = ("Digits", "Digits_C_Blur_1")

# A user: everything that they did and saw becomes JSON in an element of its own.
USER = """
<iframe id="f" src="report.html" style="width:390px;height:800px;border:0"></iframe><pre id="seen"></pre>
<script>
onload = () => {
  const page = document.getElementById("f").contentDocument, all = (s) => [...page.querySelectorAll(s)];
  const lines = () => all("#chart [data-line]").length, text = () => page.querySelector("#chart").textContent;
  const change = (place, label, value) => {
    const select = all(place + " label").find((each) => each.textContent.startsWith(label)).querySelector("select");
    select.value = value; select.dispatchEvent(new Event("change"));
  };
  const seen = {width: page.documentElement.scrollWidth, lines: lines()};
  all("#legend button")[0].click(); seen.hidden = lines(); all("#legend button")[0].click();
  change("#controls", "metric", "loss"); seen.loss = text(); change("#controls", "metric", "TopK1");
  seen.parameters = text(); all("#controls .segments button")[1].click(); seen.flops = text();
  const results = page.querySelector("#t-results").classList; seen.short = [results.contains("short")];
  seen.axes = all("#controls .segments button").slice(2).map((button) => { button.click(); return text(); });
  const cell = () => page.querySelector("[data-key='2.0.TopK1']").textContent, before = cell();
  change("#filters", "test set", "Digits_C_Blur_1"); seen.cells = [before, cell()];
  const search = page.querySelector("#filters input[type=search]"); search.value = "pfp";
  search.dispatchEvent(new Event("input"));
  seen.rows = all("[data-name=results] tbody tr:not([hidden])").map((row) => row.cells[0].textContent);
  seen.short.push(results.contains("short"));
  const head = all("[data-name=results] thead th")[2]; head.click();
  seen.sorted = all("[data-name=results] tbody tr:not([hidden])").map((row) => Number(row.cells[2].dataset.order));
  document.getElementById("seen").textContent = JSON.stringify(seen);
};
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "report"
    tables = aggregate_results(make_grid(METHODS, nets=5, repetitions=1, test_sets=SETS), read_more)
    with dots():
        write_report(
            tables.arrays, tables.meta, {"network": {"outputSize": 10}}, place, provenance={}, labels={}, colors={},
            plotting={"min_val": 0.0, "max_val": 1.0}, measured=tables.measured,
        )  # fmt: skip
    return place / "report.html"


@pytest.fixture(scope="module")
def seen(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    user = page.with_name("user.html")
    user.write_text(USER)
    options = ("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom")
    dom = browse(user, tmp_path_factory.mktemp("browser"), *options).stdout
    found = re.search(r'<pre id="seen">(.+?)</pre>', dom)
    assert found, dom[-2000:]
    made: dict[str, Any] = json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    return made


def test_the_script_is_small() -> None:
    assert len(page_script().encode()) < 60_000


@pytest.mark.slow
def test_a_phone_needs_no_sideways_scrolling(seen: dict[str, Any]) -> None:
    assert seen["width"] <= 390


@pytest.mark.slow
def test_the_plot_has_a_line_per_method_and_switches(seen: dict[str, Any]) -> None:
    assert seen["lines"] == len(METHODS) - 1
    assert seen["hidden"] == seen["lines"] - 1
    assert "change of test loss" in seen["loss"]
    assert "compression of parameters" in seen["parameters"]
    assert "compression of FLOPs" in seen["flops"]
    latency, time = seen["axes"]
    assert "measured speed-up" in latency
    assert "2×" in latency
    assert "time behind a network (s)" in time
    assert "×" not in time


@pytest.mark.slow
def test_results_are_switched_filtered_and_sorted(seen: dict[str, Any]) -> None:
    first, second = seen["cells"]
    assert first != second
    assert {name.strip() for name in seen["rows"]} == {"PFPNet"}
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True)
    assert len(set(seen["sorted"])) == 5
    assert seen["short"] == [True, False]  # whoever filters sees all that fit


@pytest.mark.slow
def test_print_opens_everything_and_takes_few_sheets(page: Path, tmp_path: Path) -> None:
    browse(page, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    sheets = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes()))
    assert 3 <= sheets <= 12


def test_without_a_script_the_plot_is_a_picture_and_tables_are_there(page: Path) -> None:
    html = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    chart = re.search(r'id="chart" class="fallback">(.*?)</div>', html, re.DOTALL)
    assert chart
    assert "<svg" in chart[1]
    assert html.count('data-key="2.0.') == 4  # two metrics, the loss, the change
