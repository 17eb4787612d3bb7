"""Jobs that share a process, in every backend: each has one outcome, log and result, whatever happens to the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from listening import Ear, wait_until
from test_backend_contract import PACKAGE, Nodes

from luigi_prune.errors import ConfigError
from luigi_prune.execution import claims, devices, slots
from luigi_prune.execution.backends import BUILT_IN, choose
from luigi_prune.execution.bundles import bundle_size
from luigi_prune.execution.inline import InlineBackend
from luigi_prune.execution.job import Backend, ComputeSettings, Job
from luigi_prune.execution.slots import Slots
from luigi_prune.execution.slurm import member as slurm_member
from luigi_prune.execution.slurm import slurm_backend
from luigi_prune.identity.paths import checkpoint_path, jobs_folder
from tests.slurm.fake_slurm import fake_slurm
from tests.slurm.recording_listener import site

__all__ = ["fake_slurm"]
TRAINING = {"metrics_test": [], "num_epochs": 3}
SPEC = json.dumps({"base": {"network": {"name": "n"}, "training": TRAINING}, "retraining": TRAINING})


@pytest.fixture(params=BUILT_IN)
def backend(request, light_server, monkeypatch) -> Iterator[Backend]:
    """Return each backend with one slot for up to six jobs."""
    own = nodes = None
    if request.param == "slurm":
        monkeypatch.setattr(slurm_backend, "_TICK_SECONDS", 0.05)
        monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent), prepend=":")
        nodes = Nodes(request.getfixturevalue("fake_slurm"))
        own = site(poll_seconds=0.2, poll_seconds_max=0.4, gather_seconds=0.1, grace_seconds=1.0)
    made = choose(ComputeSettings(backend=request.param, device="cpu", jobs=1, together={"Retrain": 6}, own=own))
    yield made
    made.close()
    if nodes:
        nodes.close()


@pytest.fixture
def make(tmp_path: Path, backend: Backend) -> Callable[..., Job]:
    """Return a function that makes jobs of an equal schedule, claimed as the backend needs it."""

    def job(act: str, tag: str, **request: object) -> Job:
        output = str(tmp_path / "results" / f"{tag}.json")
        made = Job(
            function="tests.slurm.slurm_functions:act",
            name=f"{act} {tag}",
            family="Retrain",
            request={"family": "Retrain", "spec": SPEC, "key": tag * 64, "output": output, "act": act, **request},
            output=output,
            log=str(tmp_path / "logs" / f"{tag}.log"),
            folder=str(jobs_folder(tmp_path / "results", backend.name)),
        )
        if backend.makes_claims(made.family):
            return made
        attempt = claims.last_attempt(output) + 1
        claims.make_claim(output, "", 0, attempt)
        return replace(made, attempt=attempt)

    return job


def submit_all(backend: Backend, jobs: list[Job]) -> list[Ear]:
    ears = [Ear() for _ in jobs]
    for job, ear in zip(jobs, ears, strict=True):
        backend.submit(job, ear)
    backend.all_submitted()
    return ears


def test_each_job_of_a_bundle_ends_in_its_own_way(backend, make, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_member, "_CLAIM_SECONDS", 0.0)
    acts = {"a": "write", "b": "fail", "c": "be_superseded", "0": "read_damage", "1": "fill_the_disk", "d": "write"}
    jobs = [make(act, tag) for tag, act in acts.items()]
    alone = replace(make("write", "e"), alone=True)
    ears = submit_all(backend, [*jobs, alone])
    first, failed, superseded, damaged, full, last, single = [ear.outcome() for ear in ears]
    assert (first.status, last.status, single.status) == ("done", "done", "done")
    assert "ValueError: the seventh layer is missing" in failed.message
    assert (damaged.status, damaged.damaged) == ("damaged", jobs[3].output + ".input")
    assert "No space left on device" in full.message
    assert superseded.status == ("failed" if backend.makes_claims("Retrain") else "elsewhere")
    facts = {tag: json.loads((tmp_path / "results" / f"{tag}.json").read_text()) for tag in "ade"}
    assert facts["a"]["together"] == facts["d"]["together"] == [tag * 12 for tag in acts]
    assert facts["a"]["job_id"] == facts["d"]["job_id"]
    assert facts["e"]["together"] == []
    assert sorted(path.stem for path in (tmp_path / "results").glob("*.json")) == ["a", "d", "e"]
    assert [ear.starts for ear in ears] == [1] * 7
    assert [len(ear.outcomes) for ear in ears] == [1] * 7
    if not isinstance(backend, InlineBackend):  # which has no logs
        for job in jobs:
            assert f"{job.request['act']} in the company of 6" in Path(job.log).read_text()
        assert "the seventh layer" in Path(jobs[1].log).read_text()
        assert "the seventh layer" not in Path(jobs[5].log).read_text()


def test_one_job_of_a_bundle_is_cancelled_and_continues_in_another_bundle(backend, make, tmp_path, monkeypatch):
    if isinstance(backend, InlineBackend):
        ears = [Ear(), Ear()]
        jobs = [make("write", "a"), make("write", "b")]
        for job, ear in zip(jobs, ears, strict=True):
            backend.submit(job, ear)
        backend.cancel(jobs[0])
        backend.all_submitted()
        assert [ear.outcome().status for ear in ears] == ["failed", "done"]
        return
    until = tmp_path / "until"
    counting = {"steps": 10**6, "pause": 0.01, "until": str(until)}
    jobs = [make("count", tag, **counting) for tag in "abc"]
    first, second, third = submit_all(backend, jobs)
    wait_until(lambda: first.progress and "step" in first.progress[-1][1])
    backend.cancel(jobs[0])
    assert (first.outcome().message, first.outcome().retry) == ("cancelled", False)
    wait_until(lambda: second.progress and "step" in second.progress[-1][1])  # in the same process, afterwards
    assert checkpoint_path(jobs[0].output).exists()
    claims.release(jobs[0].output)
    again, fourth = submit_all(backend, [make("count", tag, **counting) for tag in "ad"])
    until.touch()
    assert [ear.outcome().status for ear in (second, third, again, fourth)] == ["done"] * 4
    starts = [json.loads((tmp_path / "results" / f"{tag}.json").read_text())["starts"] for tag in "abcd"]
    assert starts == [[0, starts[0][1]], [0], [0], [0]]
    assert starts[0][1] > 0


def test_a_crash_ends_all_jobs_of_its_process_and_each_can_be_tried_alone(backend, make):
    if isinstance(backend, InlineBackend):
        return  # a crash would end this process
    jobs = [make("write", "a"), make("lack_memory", "b"), make("vanish", "c"), make("write", "d")]
    ears = submit_all(backend, jobs)
    first, large, crashed, late = [ear.outcome() for ear in ears]
    assert first.status == "done"
    assert "too little memory" in large.message
    for outcome in (large, crashed, late):
        assert (outcome.status, outcome.retry) == ("failed", True)


def test_slots_share_the_jobs_in_hand():
    assert [bundle_size(16, ready, free=2) for ready in (1, 2, 5, 40)] == [1, 1, 3, 16]


def test_a_backend_of_another_package_runs_one_training_per_job(monkeypatch):
    monkeypatch.setattr(InlineBackend, "bundles", False)
    with pytest.raises(ConfigError, match=r"\[compute\] together: 3: backend 'inline' runs one training per job"):
        choose(ComputeSettings(backend="inline", device="cpu", together={"Retrain": 3, "TrainBase": 1}))


def test_jobs_per_gpu_are_slots_of_the_local_backend(monkeypatch):
    monkeypatch.setattr(slots, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0", "1"])
    made = Slots(ComputeSettings(jobs_per_gpu=3, together={"Retrain": 4}))
    assert made.total == 6
    assert sorted(gpu for _ in range(6) for gpu in made.take("Retrain")) == ["0", "0", "0", "1", "1", "1"]
    assert Slots(ComputeSettings(jobs_per_gpu=3, jobs=4)).total == 4
    with pytest.raises(ConfigError, match="'inline' runs one job at a time"):
        choose(ComputeSettings(backend="inline", jobs_per_gpu=3))
