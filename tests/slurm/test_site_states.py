"""Jobs that a site or an admin holds up or kills, on a real SLURM: what is shown, and what comes of it."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from luigi_prune.execution.job import Job
from tests.slurm.cluster import Cluster, eventually
from tests.slurm.recording_listener import submit
from tests.slurm.test_jobs import LIMITS, make_backend, make_job

__all__ = ["make_backend", "make_job"]


def test_suspended_and_requeued_jobs_are_shown_so_and_go_on(make_backend, make_job, cluster: Cluster, tmp_path: Path):
    backend = make_backend(gather_seconds=5.0)
    over = tmp_path / "over"
    listeners = [submit(backend, make_job("count", tag, steps=9000, until=str(over))) for tag in "ab"]
    for listener in listeners:
        listener.runs()
    suspended, held = listeners
    cluster.run("scontrol", "suspend", suspended.slurm_id)
    cluster.run("scontrol", "requeuehold", held.slurm_id)
    assert "(SUSPENDED) on n" in suspended.message_with("SUSPENDED")
    assert "requeued, pending" in held.message_with("HELD: it needs `scontrol release`")
    assert (suspended.requeues, held.requeues) == (1, 1)
    cluster.run("scontrol", "resume", suspended.slurm_id)
    cluster.run("scontrol", "release", held.slurm_id)
    assert eventually(lambda: (suspended.starts, held.starts) == (2, 2))
    over.touch()
    assert suspended.result()["starts"] == [0]
    assert len(held.result()["starts"]) == 2
    assert backend.client.calls["sbatch"] == 1


def test_a_job_over_its_memory_is_not_retried_and_shows_slurms_message(make_backend, make_job):
    backend = make_backend(dataclasses.replace(LIMITS, mem_gb=0.1))
    outcome = submit(backend, make_job("eat", megabytes=400)).outcome()
    assert "out of memory: smaller batches or a larger mem_gb help\nslurmstepd" in outcome.message
    assert "exceeded memory limit" in outcome.message
    assert not outcome.retry
    assert backend.client.calls["sbatch"] == 1


def test_drained_nodes_are_no_reason_not_to_begin(
    make_backend, make_job, cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    cluster.run("scontrol", "update", "nodename=n[1-4]", "state=drain", "reason=test")
    backend = make_backend()
    with caplog.at_level(logging.WARNING):
        backend.prepare([make_job("write")])
    assert "Requested node configuration is not available" in caplog.text
    assert "drained: n1, n2, n3, n4" in caplog.text
    listener = submit(backend, make_job("write"))
    job = listener.slurm_id
    assert cluster.squeue() == {job: "PENDING"}
    cluster.run("scontrol", "update", "nodename=n[1-4]", "state=resume")
    assert listener.result()["rank"] == 0


@pytest.fixture
def hidden_on_nodes(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """Return a folder that no node sees."""
    if os.geteuid() != 0 or shutil.which("nsenter") is None:
        pytest.skip("only root changes what a node sees")
    folder = tmp_path / "results"
    folder.mkdir()
    for command in (("mount", "-t", "tmpfs", "-o", "ro", "none"), ("umount",)):
        for path in sorted((cluster.folder / "pids").glob("slurmd-*")):
            enter = ("nsenter", "-t", path.read_text().split()[0], "-m")
            subprocess.run([*enter, *command, str(folder)], check=True)
        if command[0] == "mount":
            yield folder


def test_a_results_folder_that_a_node_does_not_see_is_named_as_the_likely_reason(
    make_backend, make_job: Callable[..., Job], hidden_on_nodes: Path
):
    job = dataclasses.replace(make_job("write"), folder=str(hidden_on_nodes / "slurm"))
    outcome = submit(make_backend(), job).outcome()
    assert "is the results folder visible there?" in outcome.message
    assert outcome.log == ""  # there is none
