"""Drivers on one results folder, killed at random: each result is computed once, or again after its driver's death."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments import contents
from tests.several_drivers import Drivers, disturbed_run

pytestmark = pytest.mark.slow


def check(run: Drivers) -> None:
    """Check that all drivers ended well, that nothing was computed in vain, and that no claim is left."""
    ended = run.wait()
    assert [code for code, _ in ended] == [0] * len(ended), ended
    assert run.needless() == []
    assert not list(run.results.rglob(".*.claim-*")) or run.killed


def test_twins_without_luigid_share_the_work(tmp_path: Path):
    run = Drivers(tmp_path, light=True, config="jobs=1\n")  # of two trainings that are ready, each leaves the other one
    (tmp_path / "pace").write_text("0.4")  # so that both are there before all is done
    run.start()
    run.start()
    ended = run.wait()
    assert [code for code, _ in ended] == [0, 0], ended
    starts = run.executions()
    assert {task: len(of_task) for task, of_task in starts.items()} == dict.fromkeys(starts, 1)
    assert any("by another run) in" in out for _, out in ended)


@pytest.mark.parametrize("with_luigid", [False, True], ids=["no luigid", "luigid killed"])
def test_killed_drivers_of_overlapping_experiments(tmp_path: Path, with_luigid: bool):
    more = {"overlapping": True, "with_luigid": with_luigid, "light": with_luigid, "seed": 7 + with_luigid}
    run = disturbed_run(tmp_path, drivers=2, **more)
    check(run)
    assert len(run.killed) == 1
    assert contents(run.results)
