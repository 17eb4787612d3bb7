"""A run of several processes ends at a file that cannot be imported, before any test has run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_broken_file_ends_a_run_of_several_processes_before_its_first_test(tmp_path: Path):
    (tmp_path / "test_broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "test_whole.py").write_text("def test_it(): open('ran', 'w')\n")
    options = ["-n", "1", "--dist", "loadgroup", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env={**{k: v for k, v in os.environ.items() if "XDIST" not in k}, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "test_broken.py cannot be collected" in done.stdout
    assert "nothing_of_this_name" in done.stdout
    assert not (tmp_path / "ran").exists()
