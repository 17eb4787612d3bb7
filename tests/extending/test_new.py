"""`new method NAME`: what it writes is a test that passes and a method that an experiment can name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from luigi_prune.commands.plan import reports_of, to_run
from tests.experiments import write_experiment

ROOT = Path(__file__).parents[2]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_method_plans_and_its_test_passes(tmp_path: Path) -> None:
    made = python(tmp_path, "-m", "luigi_prune", "new", "method", "SpreadL2Net")
    assert made.returncode == 0, made.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spread_l2_net.py", "test_spread_l2_net.py"]
    assert 'methods: ["spread_l2_net:SPREAD_L2_NET"]' in made.stdout
    tested = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_spread_l2_net.py")
    assert "1 passed" in tested.stdout, tested.stdout
    file = write_experiment(tmp_path, experiments__methods=["spread_l2_net:SPREAD_L2_NET"])
    titles = [task.title for task, _ in to_run(reports_of(str(file)))]
    assert sum("spread_l2_net:SPREAD_L2_NET" in title for title in titles) == 6


def test_it_overwrites_nothing_and_refuses_names_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("mine")
    for name, words in (
        ("Mine", "test_mine.py exists already and is not overwritten"),
        ("ThresNet", "the method 'ThresNet' exists already"),
        ("my-net", "method name: expected letters, digits and _, as in SpreadNet, got 'my-net'"),
    ):
        made = python(tmp_path, "-m", "luigi_prune", "new", "method", name)
        assert made.returncode == 35
        assert words in made.stderr
        assert made.stderr.count("\n") == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
