"""The report in a real browser: it renders, asks nothing of a network, and shows every method and plot."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.chromium import CHROMIUM, FLAGS
from tests.experiments import reports, run, write_experiment


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Return the report of a tiny experiment."""
    folder = tmp_path_factory.mktemp("browser")
    file = write_experiment(folder, experiments__methods=["ThresNet", "FilterThresNet"])
    run(file, pictures=True)
    (report,) = reports(file)
    return report.path


def browse(page: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium on this machine, and CI must have one")
        pytest.skip("no chromium on this machine")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *more, page.as_uri()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_browser_shows_the_report(page, tmp_path):
    text = re.sub(r"<[^>]+>", " ", browse(page, tmp_path, "--dump-dom").stdout)
    for words in ("to decide by", "lenet300_100", "WT", "FT", "Leaderboard", "Provenance"):
        assert words in text
    assert "PARTIAL" not in text


@pytest.mark.slow
def test_a_browser_draws_it(page, tmp_path):
    browse(page, tmp_path, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1200,3000")
    from PIL import Image

    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (1200, 3000)
        colors = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colors is not None
    assert len(colors) > 200  # plots, not a blank page


def test_the_page_is_self_contained(page):
    html = page.read_text()
    loaded = re.findall(r"""(?:src|href)=["'](?!#|data:)([^"']+)["']""", html)
    assert all(not address.startswith(("http:", "https:", "//")) for address in loaded)
    assert re.findall(r"""@import|url\(["']?http""", html) == []
    # what it links to (the plots' PDF and PNG) lies beside it
    assert [address for address in loaded if not (page.parent / address).exists()] == []
