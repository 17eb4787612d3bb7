"""How jobs go and end on a real SLURM: the state table where a cluster can be made to show its rows."""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.errors import ConfigError
from luigi_prune.execution import claims
from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.slurm_backend import SlurmBackend
from tests.slurm.cluster import Cluster
from tests.slurm.recording_listener import backends_of, maker, site, submit, until

LIMITS = Resources(timeout_min=10, signal_delay_s=15)


@pytest.fixture
def make_backend(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SlurmBackend]]:
    with backends_of(cluster, monkeypatch) as open_backend:

        def make(resources: Resources = LIMITS, **changes: Any) -> SlurmBackend:
            return open_backend(own=site(resources, **changes))

        yield make


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    return maker(tmp_path)


def left_over(folder: Path) -> list[str]:
    """Return the files of the SLURM backend that are still there."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts
    )


def test_ready_jobs_share_an_array_and_end_each_in_its_own_way(
    make_backend, make_job, cluster: Cluster, tmp_path: Path
):
    backend = make_backend()
    written = [submit(backend, make_job("write", f"job{number}")) for number in range(3)]
    failing, killed = submit(backend, make_job("fail", "failing")), submit(backend, make_job("vanish", "killed"))
    silent = submit(backend, make_job("leave", "silent"))
    ids = [listener.result()["job_id"] for listener in written]
    assert [job_id.partition("_")[2] for job_id in ids] == ["0", "1", "2"]
    assert len({job_id.partition("_")[0] for job_id in ids}) == 1
    assert all(listener.starts == 1 and listener.outcome().seconds > 0 for listener in written)
    assert "ValueError: the seventh layer is missing" in failing.outcome().message
    assert not failing.outcome().retry
    assert "Killed" in killed.outcome().message
    assert killed.outcome().retry
    assert "without an error and without a result" in silent.outcome().message
    assert backend.client.calls["sbatch"] == 1
    assert {state for _, state in cluster.sacct(ids[0].partition("_")[0])} == {"COMPLETED", "FAILED"}
    assert [name for name in left_over(tmp_path) if "claim" in name or "news" in name] == []


def test_nothing_is_left_of_jobs_that_are_done_but_results_and_logs(make_backend, make_job, tmp_path: Path):
    backend = make_backend()
    listeners = [submit(backend, make_job("write", f"job{number}")) for number in range(2)]
    for listener in listeners:
        listener.result()
    until(lambda: left_over(tmp_path) == ["job0.json", "job1.json"])
    assert "process 1 of 1" in Path(listeners[0].job.log).read_text()


def test_others_may_read_a_submission_and_only_this_user_may_write_to_it(make_backend, make_job, tmp_path: Path):
    backend = make_backend(dataclasses.replace(LIMITS, sbatch=(("hold", "true"),)))
    listener = submit(backend, make_job("write"))
    assert "HELD: it needs `scontrol release`" in listener.message_with("HELD")
    (folder,) = (tmp_path / "slurm").glob("lp-*")
    assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0
    assert sorted(path.name for path in folder.iterdir()) == ["0.json", "script.sh", "submitted.json"]
    subprocess.run(["scontrol", "release", listener.slurm_id], check=True)
    listener.result()


def test_usr2_saves_and_requeues_and_an_admins_requeue_resumes_from_the_last_checkpoint(make_backend, make_job):
    backend = make_backend()
    # the last element has the array's number as its own job id, by which scontrol would requeue all of them
    tags = ("bystander", "requeued", "signalled")
    bystander, requeued, signalled = (submit(backend, make_job("count", tag, steps=60)) for tag in tags)
    signalled.runs(4)
    requeued.runs(7)
    subprocess.run(["scancel", "--signal=USR2", signalled.slurm_id], check=True)
    subprocess.run(["scontrol", "requeue", requeued.slurm_id], check=True)
    first, second = signalled.result()["starts"]
    assert (first, second >= 4) == (0, True)
    assert requeued.result()["starts"][0] == 0
    assert len(requeued.result()["starts"]) == 2
    assert requeued.result()["starts"][1] >= 5
    assert bystander.result()["starts"] == [0]
    assert backend.client.calls["sbatch"] == 1


def test_a_line_of_setup_that_fails_ends_the_job_and_is_shown(make_backend, make_job):
    backend = make_backend(dataclasses.replace(LIMITS, setup=("true", "ls /nowhere/to/be/found", "echo $HOME")))
    listener = submit(backend, make_job("write"))
    message = listener.outcome().message
    assert "setup failed (exit code 2): ls /nowhere/to/be/found" in message


def test_a_line_of_setup_may_fail(make_backend, make_job):
    backend = make_backend(dataclasses.replace(LIMITS, setup=("ls /nowhere/to/be/found",), setup_may_fail=True))
    assert submit(backend, make_job("write")).result()["rank"] == 0


def test_a_training_resumes_where_the_site_forbids_to_requeue(make_backend, make_job):
    backend = make_backend(dataclasses.replace(LIMITS, sbatch=(("no-requeue", "true"),)))
    listener = submit(backend, make_job("count", steps=40))
    listener.runs()
    subprocess.run(["scancel", "--signal=USR2", listener.slurm_id], check=True)
    assert len(listener.result()["starts"]) == 2
    assert backend.client.calls["sbatch"] == 2


def test_a_job_that_is_cancelled_stays_cancelled(make_backend, make_job, tmp_path: Path):
    backend = make_backend()
    training, pruning = (
        submit(backend, make_job("count", "a", steps=3000)),
        submit(backend, make_job("doze", "b", seconds=600)),
    )
    training.runs()
    until(lambda: pruning.starts)
    subprocess.run(["scancel", training.slurm_id, pruning.slurm_id], check=True)
    for listener in (training, pruning):
        assert "was cancelled" in listener.outcome().message
        assert not listener.outcome().retry
    assert (tmp_path / ".a.json.checkpoint").exists()  # it saved before it ended
    assert backend.client.calls["sbatch"] == 1


def test_a_pending_element_that_is_cancelled_alone_leaves_no_record_and_is_noticed(
    make_backend, make_job, cluster: Cluster
):
    backend = make_backend(dataclasses.replace(LIMITS, sbatch=(("begin", "now+1hour"),)))
    listeners = [submit(backend, make_job("write", f"job{number}")) for number in range(3)]
    listeners[1].message_with("BeginTime")
    cluster.run("scancel", listeners[1].slurm_id)
    assert "left the queue before it started" in listeners[1].outcome().message
    assert not listeners[1].outcome().retry
    assert not listeners[0].outcomes
    for listener in (listeners[0], listeners[2]):
        backend.cancel(listener.job)
        assert listener.outcome().message == "cancelled"
    until(lambda: not cluster.squeue())


def test_a_job_over_its_time_limit_fails_unless_it_has_saved(make_backend, make_job):
    backend = make_backend(Resources(timeout_min=1, signal_delay_s=30))
    saving, sleeping = (
        submit(backend, make_job("count", "a", steps=400)),
        submit(backend, make_job("doze", "b", seconds=900)),
    )
    starts = saving.result()["starts"]
    assert len(starts) > 1
    assert starts == sorted(set(starts))  # each start goes on behind the one before
    assert "needs a larger timeout_min" in sleeping.outcome().message
    assert not sleeping.outcome().retry


def test_a_training_that_is_pushed_aside_saves_and_goes_on_afterwards(make_backend, make_job, cluster: Cluster):
    whole_node = (("exclusive", "true"), ("nodelist", "n1"))
    backend = make_backend(dataclasses.replace(LIMITS, sbatch=(("partition", "low"), *whole_node)))
    listener = submit(backend, make_job("count", steps=60, every=1000))  # no checkpoint unless it is asked for
    listener.runs(4)
    cluster.sbatch("--partition=high", "--exclusive", "--nodelist=n1", wrap="sleep 3")
    starts = listener.result()["starts"]
    assert len(starts) == 2
    assert starts[1] >= 4
    assert backend.client.calls["sbatch"] == 1


def test_a_node_that_dies_costs_the_steps_since_the_last_checkpoint(make_backend, make_job, cluster: Cluster):
    backend = make_backend()
    listener = submit(backend, make_job("count", steps=150))
    listener.runs(12)
    node = next(message for message in reversed(listener.messages) if "on n" in message).split(" on ")[1][:2]
    cluster.kill_node(node)
    starts = listener.result()["starts"]
    assert len(starts) == 2
    assert starts[1] >= 10


def test_a_controller_that_restarts_and_an_accounting_that_stops_change_nothing(
    make_backend, make_job, cluster: Cluster
):
    backend = make_backend()
    listener = submit(backend, make_job("count", "a", steps=80))
    listener.runs()
    cluster.stop_accounting()
    cluster.stop_controller()
    killed = submit(backend, make_job("vanish", "b"))  # sbatch fails, and is tried again
    calls = backend.client.calls["sbatch"]
    until(lambda: backend.client.calls["sbatch"] > calls)
    cluster.start_controller()
    assert listener.result()["starts"] == [0]
    assert "Killed" in killed.outcome().message
    cluster.start_accounting()


@pytest.fixture(scope="session")
def bare_cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    """A cluster without accounting, with short arrays."""
    return start_cluster("--no-accounting", "--nodes", 2, "--max-array-size", 3)


def test_without_accounting_jobs_end_all_the_same_and_arrays_are_split(
    bare_cluster: Cluster, make_backend, make_job, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_CONF", bare_cluster.environment["SLURM_CONF"])
    backend = make_backend()
    written = [submit(backend, make_job("write", f"job{number}")) for number in range(4)]
    killed, cancelled = (
        submit(backend, make_job("vanish", "killed")),
        submit(backend, make_job("doze", "c", seconds=900)),
    )
    until(lambda: cancelled.starts)
    bare_cluster.run("scancel", cancelled.slurm_id)
    assert len({listener.result()["job_id"].partition("_")[0] for listener in written}) == 2
    assert "Killed" in killed.outcome().message
    assert "was cancelled" in cancelled.outcome().message
    assert backend.client.calls["sbatch"] == 3


def test_processes_on_several_nodes_find_each_other_and_one_that_dies_ends_the_job(make_backend, make_job):
    backend = make_backend(dataclasses.replace(LIMITS, nodes=2, processes_per_node=2, gpus_per_node=2))
    adding, dying = submit(backend, make_job("add_ranks", "a")), submit(backend, make_job("vanish", "b"))
    placed = submit(backend, make_job("write", "c"))
    assert adding.result() == {"total": 10.0}
    assert "task 3: Killed" in dying.outcome().message
    assert dying.outcome().retry
    facts = placed.result()
    assert (facts["world_size"], facts["gpus"], len(facts["visible"].split(","))) == (4, 4, 2)


def test_a_driver_adopts_what_another_one_has_submitted(make_backend, make_job, cluster: Cluster, tmp_path: Path):
    first = make_backend()
    jobs = [make_job("count", tag, steps=80) for tag in ("a", "b")]
    for listener in [submit(first, job) for job in jobs]:
        listener.runs()
    first._detached = True  # as after Ctrl-C: the jobs live on
    first.close()
    second = make_backend()
    listeners = [submit(second, job) for job in jobs]
    assert [listener.result()["starts"] for listener in listeners] == [[0], [0]]
    assert second.client.calls["sbatch"] == 0
    assert left_over(tmp_path) == ["a.json", "b.json"]


def test_a_job_whose_driver_died_before_it_wrote_the_id_down_is_found_by_its_name(
    make_backend, make_job, tmp_path: Path
):
    first = make_backend()
    job = make_job("count", steps=80)
    listener = submit(first, job)
    listener.runs()
    claim = claims.newest(job.output)
    assert claim is not None
    first._detached = True
    first.close()
    (Path(claim.folder) / "submitted.json").unlink()
    second = make_backend()
    assert submit(second, job).result()["starts"] == [0]
    assert second.client.calls["sbatch"] == 0


def test_a_claim_of_a_dead_driver_that_never_submitted_is_taken_over(make_backend, make_job, tmp_path: Path):
    job = make_job("write")
    abandoned = tmp_path / "slurm" / "lp-abandoned"
    abandoned.mkdir(parents=True)
    finished = subprocess.Popen(["true"])
    finished.wait()
    claim = claims.make_claim(job.output, abandoned, 0, 1)
    assert claim is not None
    path = claims.claim_path(job.output, 1)
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {finished.pid}'))
    backend = make_backend()
    submit(backend, job).result()
    assert backend.client.calls["sbatch"] == 1


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (Resources(gpus_per_node=9), "Requested node configuration is not available"),
        (Resources(sbatch=(("partition", "nope"),)), "invalid partition specified: nope"),
        (Resources(sbatch=(("partiton", "main"),)), "unrecognized option '--partiton=main'.*did you mean 'partition'"),
    ],
)
def test_what_sbatch_would_refuse_is_refused_at_the_start_with_its_words(
    make_backend, make_job, resources: Resources, words: str
):
    with pytest.raises(ConfigError, match=words):
        make_backend(resources).prepare([make_job("write")])
