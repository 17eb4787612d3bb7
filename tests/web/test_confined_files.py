"""Nothing outside the results folder is read, however it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luigi_prune.web.confined_files import SHOWN, ConfinedFiles, FolderListings


@pytest.fixture
def files(tmp_path: Path) -> ConfinedFiles:
    root = tmp_path / "results"
    (root / "report").mkdir(parents=True)
    (root / "report" / "report.html").write_text("inside")
    (root / "report" / "results.h5").write_text("inside")
    (root / ".hidden.html").write_text("hidden")
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "results-of-others").mkdir()
    (tmp_path / "results-of-others" / "page.html").write_text("secret")
    (root / "link.html").symlink_to(tmp_path / "secret.html")
    (root / "folder").symlink_to(tmp_path)
    (root / "own.html").symlink_to(root / "report" / "report.html")
    (root / "disguised.html").symlink_to(root / "report" / "results.h5")
    os.mkfifo(root / "pipe.html")
    return ConfinedFiles(root)


@pytest.mark.parametrize(
    "asked",
    [
        "../secret.html",
        "report/../../secret.html",
        "link.html",
        "folder/secret.html",
        "../results-of-others/page.html",
        "/etc/hosts.html",
        "{outside}/secret.html",
        ".hidden.html",
        "report/results.h5",
        "disguised.html",
        "report",
        "pipe.html",
        "report/report.html\0.png",
        "missing.html",
        "",
    ],
)
def test_what_is_not_shown(files, tmp_path, asked):
    with pytest.raises(FileNotFoundError):
        files.open(asked.replace("{outside}", str(tmp_path)), SHOWN)


@pytest.mark.parametrize("asked", ["report/report.html", "own.html", "report/./report.html"])
def test_what_is_shown(files, asked):
    with files.open(asked, SHOWN) as file:
        assert file.read() == b"inside"


def test_a_log_is_cut_at_a_line(files):
    (files.root / "a.log").write_text("".join(f"line {number}\n" for number in range(100)))
    assert files.tail("a.log", 20) == "line 98\nline 99\n"
    assert files.tail("missing.log", 20) == ""


def test_listings_notice_new_files_and_stay_inside(files):
    listings = FolderListings(files)
    assert listings.names("report") == {"report.html", "results.h5"}
    (files.root / "report" / "new.csv").touch()
    assert "new.csv" in listings.names("report")
    assert listings.names("folder") == listings.names("..") == listings.names("missing") == frozenset()
