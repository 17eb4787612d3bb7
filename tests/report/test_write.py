"""A complete report: its files and text, self-contained and replaced atomically."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from luigi_prune.analysis.aggregate import Aggregated, aggregate_results
from luigi_prune.analysis.costs import Measured, family_costs
from luigi_prune.report import write, write_report
from tests.blank_pictures import dots
from tests.synthetic import FakeResult, make_grid, read

SETTINGS = {"network": {"name": "cnn5"}, "experiments": {"methods": ["ThresNet"], "note": "<b>ü & é</b>"}}


def report(tables: Aggregated, folder: Path, **changes: Any) -> list[Path]:
    arguments: dict[str, Any] = {
        "provenance": {"commit": "abc123", "versions": {"torch": "2.9"}},
        "plotting": {"min_val": 0.02, "max_val": 0.9},
        "labels": {"ThresNet": "WT", "FilterThresNet": "FT"},
        "colors": {"ThresNet": "red"},
        "measured": {**tables.measured, "seconds": np.float64(3.0)},  # the tables' own task adds a scalar
        "key": "k1",
    }
    return write_report(tables.arrays, tables.meta, SETTINGS, folder, **{**arguments, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reports") / "report"
    report(aggregate_results(make_grid(), read), place)
    return place


@pytest.fixture
def without_pictures() -> Iterator[None]:
    """Draw nothing: for what a report says."""
    with dots():
        yield


class _Page(HTMLParser):
    """Collects what a page would fetch, its ids, the targets of its links, and unbalanced tags."""

    void = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data") or (
                tag in ("link", "use", "image") and name in ("href", "xlink:href")
            ):
                self.fetched.append(str(value))
            if name == "id":
                self.ids.append(str(value))
            if tag == "a" and name == "href":
                self.links.append(str(value))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert not page.open
    return page


def test_the_page_is_self_contained_and_its_links_lead_somewhere(folder: Path) -> None:
    page = parsed(folder / "report.html")
    assert page.fetched
    assert all(target.startswith(("#", "data:")) for target in page.fetched)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (folder / link).is_file(), link
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text


def test_the_page_says_what_matters(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert re.search(r"WT has the largest mean compression, (at least |less than |about )?[\d.]+×", text)
    assert "No method clearly leads" in text
    assert "3 of 5 independent networks" in text
    for phrase in (
        "Pruned parameters",
        "chosen on validation",
        "abc123",
        "PDF",
        "Retraining budget stated",
        "api.load",
    ):
        assert phrase in text
    assert "&lt;b&gt;ü &amp; é&lt;/b&gt;" in text
    assert "PARTIAL" not in text


def test_every_plot_is_there_twice_and_in_the_markdown(folder: Path) -> None:
    names = [f"Digits/{label}_{cost}" for label in ("TopK1", "TopK5", "loss") for cost in ("parameters", "flops")]
    names = [name for name in names if not re.search("(TopK5|loss)_flops", name)]
    names += ["Digits/compression_at_levels", "budget_per_layer", "prune_ratio_per_layer"]
    names += [f"training_curves_{label}" for label in ("loss", "TopK1", "TopK5")]
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    for name in names:
        assert (folder / "plots" / f"{name}.pdf").stat().st_size > 1000
        assert f"(plots/{name}.svg)" in markdown
    assert len(list((folder / "plots").rglob("*.svg"))) == len(names)
    assert markdown.count("#### Level") == 2 * 13


def test_markdown_tables_are_rectangular(folder: Path) -> None:
    widths = []
    for line in (folder / "report.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        elif widths:
            assert len(set(widths)) == 1
            assert len(widths) >= 3
            widths = []


def test_the_data_of_other_programs(folder: Path) -> None:
    with np.load(folder / "data" / "synthetic_Digits.npz", allow_pickle=False) as archive:
        assert str(archive["time_tag"]) == "k1"
        error = archive["error"]
    with (folder / "data" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    typed = parquet.read_table(folder / "data" / "results.parquet").to_pydict()
    assert typed["method"] == [row["method"] for row in rows]
    assert typed["TopK1"] == [float(row["TopK1"]) for row in rows]
    pruned = error[..., 1:].size
    assert len(rows) == pruned + 3  # an unpruned network once, however many ratios and repetitions it stands beside
    unpruned = [r for r in rows if r["method"] == "ReferenceNet"]
    assert [(r["net"], r["step"], r["keep_ratio"], r["size"]) for r in unpruned] == [
        (net, "0", "1.0", "1.0") for net in "012"
    ]
    assert [1 - float(r["TopK1"]) for r in unpruned] == error[:, 0, 0, 0].tolist()
    row = next(
        r
        for r in rows
        if (r["method"], r["net"], r["keep_ratio"], r["repetition"]) == ("FilterThresNet", "2", "0.12", "1")
    )
    assert 1 - float(row["TopK1"]) == error[2, 3, 1, 2]


@pytest.mark.slow
def test_the_same_input_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    again = report(aggregate_results(make_grid(), read), tmp_path / "again")
    assert len(again) > 30
    for path in again:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "again")).read_bytes(), path.name


def test_missing_results_are_announced_and_say_how_many(tmp_path: Path, without_pictures: None) -> None:
    grid = make_grid(nets=2, repetitions=1, test_sets=("Digits", "Digits_noisy"))
    grid["cells"]["Digits"][1][3][0][1] = None
    report(aggregate_results(grid, read), tmp_path / "report")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text(encoding="utf-8")
        assert "PARTIAL: 1 of 64 evaluations are missing: 1 of 32 on Digits (WT); " in text
        assert "Robustness over test sets" in text


def test_an_empty_experiment_still_has_a_report(tmp_path: Path) -> None:
    grid = make_grid(nets=1, repetitions=1)
    grid["cells"] = {"Digits": [[[[None] * 4] for _ in range(5)]]}
    report(aggregate_results(grid, read), tmp_path / "report")
    assert "No results yet." in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_mode_train_has_curves_and_no_pruning(tmp_path: Path, without_pictures: None) -> None:
    report(aggregate_results(make_grid(mode="train"), read), tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "The unpruned cnn5 has a TopK1 of" in text
    assert "Training curves: TopK1" in text
    assert "leads" not in text
    parsed(tmp_path / "report" / "report.html")


def test_without_validation_the_choice_is_said_to_be_on_the_test_set(tmp_path: Path, without_pictures: None) -> None:
    def without_history(path: str) -> FakeResult:
        result = read(path)
        return FakeResult({name: values for name, values in result.arrays.items() if "history" not in name}, {})

    report(aggregate_results(make_grid(nets=1, repetitions=1), without_history), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "nothing measured on validation: chosen on the test set" in text
    assert "chosen on validation" not in text.replace("Ratio chosen on validation, reported on test | no", "")
    assert "validation TopK1" not in text
    assert "Training curves" not in text


def test_a_report_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_pictures: None
) -> None:
    place = tmp_path / "report"
    train = aggregate_results(make_grid(mode="train"), read)
    report(train, place)
    (place / "stale.txt").write_text("old")
    report(train, place)
    assert not (place / "stale.txt").exists()
    before = (place / "report.html").read_bytes()

    def failing(*arguments: Any, **keywords: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(write, "write_tensorboard", failing)
    with pytest.raises(OSError, match="disk full"):
        report(train, place)
    assert (place / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_training_jobs_do_not_load_matplotlib_for_their_logs() -> None:
    code = "import sys, luigi_prune.report.tensorboard\n"
    code += "print([m for m in ('matplotlib', 'torch', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_analysis_is_light() -> None:
    modules = ("aggregate", "commensurate", "comparison", "reference_format", "statistics")
    code = "import sys\n" + "".join(f"import luigi_prune.analysis.{name}\n" for name in modules)
    code += "print([m for m in ('matplotlib', 'torch', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_summary_says_when_nothing_stays_within_the_drop(tmp_path: Path, without_pictures: None) -> None:
    tables = aggregate_results(
        make_grid(nets=1, repetitions=1, methods=("ReferenceNet", "UniNet"), ratios=(0.1, 0.05)), read
    )
    report(tables, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "No method stays within 0.5 points" in text
    assert "leads" not in text


def test_measured_numbers_have_units(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "| method | evaluate (s) | peak (MB) |" in text


def test_the_cost_of_families_stands_in_both_reports(tmp_path: Path, without_pictures: None) -> None:
    tables = aggregate_results(make_grid(nets=1, repetitions=1), read)
    numbers = {"prune_seconds": 7200.0, "prune_gpu_seconds": 14400.0, "prune_peak_bytes": 3e8}
    costs = family_costs(["p"], {"p": Measured("Prune", "k", numbers, {})}.get)
    report(tables, tmp_path / "report", measured={**tables.measured, **costs})
    row = ("Prune", "1", "7200.00", "7200.0", "4.00", "300")
    assert "| " + " | ".join(row) + " |" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert '<span class="name">Prune</span></th>' in page
    assert '<td data-label="GPU-hours">4.00</td>' in page
    assert "GPU-hours" in page


def test_a_report_of_old_tables_has_no_cost_of_families(folder: Path) -> None:
    assert "GPU-hours" not in (folder / "report.html").read_text(encoding="utf-8")


def test_what_some_results_have_is_shown_if_it_is_there(tmp_path: Path, without_pictures: None) -> None:
    tables = aggregate_results(make_grid(nets=2, repetitions=1), read)
    arrays, shape = dict(tables.arrays), tables.arrays["cost/size"].shape
    arrays["before/Digits/TopK1"] = arrays["test/Digits/TopK1"] - 0.123
    arrays["calibration_error/Digits"] = np.broadcast_to(np.array([0.01, 0.03, 0.03, 0.03]), shape)
    classes = np.full((*shape, 10), 0.9)
    classes[..., 1:, 7] = 0.7
    arrays["class_accuracy/Digits"] = classes
    report(tables._replace(arrays=arrays), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")

    def section(title: str) -> list[str]:
        return text.split(f"### {title}")[1].split("###")[0].splitlines()

    (row,) = (line for line in section("What else changes") if line.startswith("| WT"))
    assert row == "| WT | +2.00 [+2.00 to +2.00] | class 7: -20.00 |"
    (row,) = (line for line in section("Before and after retraining") if line.startswith("| WT"))
    change = 100 * (arrays["test/Digits/TopK1"][..., 1] - arrays["test/Digits/TopK1"][..., 0]).mean(axis=(0, 2))
    assert row.split("|")[2].strip() == f"{change[0] - 12.3:+.1f} → {change[0]:+.1f}"
    (latex,) = (tmp_path / "report" / "tables").glob("side-effects.tex")
    assert r"\midrule" in latex.read_text(encoding="utf-8")
