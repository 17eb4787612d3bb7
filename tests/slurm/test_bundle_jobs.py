"""Several jobs in one element of an array, on a real SLURM: requeued, cancelled and adopted one by one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.slurm_backend import SlurmBackend
from luigi_prune.execution.slurm.slurm_jobs import SlurmJobs
from luigi_prune.identity.paths import checkpoint_path
from tests.slurm.cluster import Cluster
from tests.slurm.recording_listener import RecordingListener, backends_of, maker, site, submit, until

TRAINING: dict[str, Any] = {"metrics_test": [], "num_epochs": 3}
SPEC = json.dumps({"base": {"network": {"name": "n"}, "training": TRAINING}, "retraining": TRAINING})


@pytest.fixture
def make_backend(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SlurmBackend]]:
    """Return a function that makes backends with up to three trainings per SLURM job."""
    with backends_of(cluster, monkeypatch) as open_backend:

        def make(jobs: int = 0) -> SlurmBackend:
            own = site(Resources(timeout_min=10, signal_delay_s=15))
            return open_backend(own=own, together={"Retrain": 3}, jobs=jobs)

        yield make


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """Return a function that makes jobs of an equal schedule."""

    def make(act: str, tag: str, **request: Any) -> Job:
        return maker(tmp_path)("act", tag, act=act, family="Retrain", spec=SPEC, key=tag * 64, **request)

    return make


def test_a_requeued_bundle_continues_each_job_and_one_that_has_failed_stays_out(make_backend, make_job):
    backend = make_backend(jobs=2)
    jobs = [make_job("count", "a", steps=40), make_job("fail", "b"), make_job("count", "c", steps=10)]
    others = [make_job("write", tag) for tag in "de"]
    first, failing, last, *written = [submit(backend, job) for job in (*jobs, *others)]
    first.runs(4)
    assert len({listener.slurm_id for listener in (first, failing, last)}) == 1
    subprocess.run(["scancel", "--signal=USR2", first.slurm_id], check=True)
    assert "ValueError: the seventh layer is missing" in failing.outcome().message
    starts = [listener.result()["starts"] for listener in (first, last)]
    assert [len(each) for each in starts] == [2, 2]
    assert starts[0][1] >= 4
    assert [listener.result()["together"] for listener in written] == [["d" * 12, "e" * 12]] * 2
    assert backend.client.calls["sbatch"] == 1
    assert len(failing.outcomes) == 1


def test_another_driver_adopts_the_jobs_of_a_bundle_and_cancels_one_of_them(
    make_backend, make_job, cluster: Cluster, tmp_path: Path
):
    jobs = [make_job("count", tag, steps=3000, pause=0.05, until=str(tmp_path / "until")) for tag in "abc"]
    first = make_backend()
    listener, *_ = [submit(first, job) for job in jobs]
    listener.runs(3)
    first._detached = True  # as after Ctrl-C, or with the driver killed
    first.close()
    second = make_backend()
    a, b, c = [submit(second, job) for job in jobs]
    until(lambda: a.starts and a.messages)
    second.cancel(jobs[0])
    assert a.outcome().message == "cancelled"
    b.runs(3)  # in the same process, after the cancelled one has stopped
    assert checkpoint_path(jobs[0].output).exists()
    cancellation = SlurmJobs().cancellation([Path(jobs[1].output)])
    assert (cancellation.running, cancellation.waiting) == (1, 0)
    cancellation.carry_out()
    c.runs(3)
    assert len(cluster.squeue()) == 1
    (tmp_path / "until").touch()
    assert c.result()["starts"] == [0]
    assert "sbatch" not in second.client.calls or second.client.calls["sbatch"] == 1
    _end(second, b)
    until(lambda: not cluster.squeue())


def _end(backend: SlurmBackend, listener: RecordingListener) -> None:
    """Cancel a job whose claim somebody has removed, which this driver may have submitted again."""
    backend.cancel(listener.job)
    listener.outcome()
