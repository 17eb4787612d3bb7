"""The rare rows of the state table, and what a site can do to a driver, on a SLURM that a test commands."""

from __future__ import annotations

from pathlib import Path

from tests.slurm.fake_slurm import Driver, FakeSlurm, Voice, clock, driver, fake_slurm, make_driver

__all__ = ["clock", "driver", "fake_slurm", "make_driver"]


def test_a_job_goes_from_the_queue_to_its_result(driver: Driver, fake_slurm: FakeSlurm):
    first, second = driver.submit("a", "b")
    voices = [Voice(ear) for ear in (first, second)]
    assert [voice.slurm_id for voice in voices] == ["100_0", "100_1"]
    assert "pending (None)" in first.heard[-1] or "SLURM job 100_0" in first.heard[-1]
    driver.advance(25)
    assert first.heard[-1] == "SLURM job 100_0 pending (Priority)"
    assert not first.starts
    fake_slurm.put("100_0", "RUNNING")
    voices[0].say("epoch 1/3")
    driver.advance(2)
    assert first.starts == 1
    assert first.heard[-1] == "SLURM job 100_0 on n1: epoch 1/3"
    voices[0].finish()
    driver.advance(2)
    assert first.outcome().status == "done"
    assert not second.outcomes
    assert Path(first.job.output).exists()
