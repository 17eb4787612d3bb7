"""Drivers on one results folder, killed at random: each result is computed once, or again after its driver's death."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments import contents
from tests.several_drivers import Drivers, disturbed_run
from tests.slurm.recording_listener import until

pytestmark = pytest.mark.slow


def check(run: Drivers) -> None:
    """Check that all drivers ended well, that nothing was computed in vain, and that no claim is left."""
    ended = run.wait()
    assert [code for code, _ in ended] == [0] * len(ended), ended
    assert run.needless() == []
    assert not list(run.results.rglob(".*.claim-*")) or run.killed


def test_twins_without_luigid_share_the_work(tmp_path: Path):
    run = Drivers(tmp_path, light=True, nets=2, config="jobs=1\n")
    (tmp_path / "hold").touch()  # the two first trainings end after both have begun, one in each driver
    run.start()
    run.start()
    until(lambda: len(run.executions()) == 2)
    (tmp_path / "hold").unlink()
    ended = run.wait()
    assert [code for code, _ in ended] == [0, 0], ended
    starts = run.executions()
    assert {task: len(of_task) for task, of_task in starts.items()} == dict.fromkeys(starts, 1)
    assert all("by another run) in" in out for _, out in ended)
    assert len({execution.driver for of_task in starts.values() for execution in of_task}) == 2


@pytest.mark.parametrize("with_luigid", [False, True], ids=["no luigid", "luigid killed"])
def test_killed_drivers_of_overlapping_experiments(tmp_path: Path, with_luigid: bool):
    more = {"overlapping": True, "with_luigid": with_luigid, "light": with_luigid, "seed": 7 + with_luigid}
    run = disturbed_run(tmp_path, drivers=2, **more)
    check(run)
    assert len(run.killed) == 1
    assert contents(run.results)
