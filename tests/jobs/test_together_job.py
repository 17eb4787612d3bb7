"""Jobs that train together: an outcome and a result each, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.job_run import run
from luigi_prune.identity import paths
from luigi_prune.jobs import inputs, together_job
from luigi_prune.results.hdf5_file import read_result
from luigi_prune.workflow.job_task import JobTask, walk
from tests.experiments import reports, write_experiment


def trained_jobs(folder: Path) -> Iterator[Job]:
    """Run a cascade of two steps with weights, filters and low rank for two nets; yield its training jobs."""
    file = write_experiment(
        folder, experiments__methods=["ThresNet", "FilterThresNet", "ALDSNet"], experiments__numNets=2
    )
    for task in walk(*reports(file)):
        if isinstance(task, JobTask) and task.task_family in ("TrainBase", "Prune", "Retrain"):
            outcome = run(task.job(), Context())
            assert outcome.status == "done", outcome.message
            if task.task_family != "Prune":
                yield task.job()


def together(members: list[Job], contexts: list[Context] | None = None) -> list[str]:
    """Run jobs together; return how each ended, which is what was reported."""
    reported: dict[int, Outcome] = {}
    contexts = contexts or [Context() for _ in members]
    outcomes = together_job.run_together(members, contexts, reported.__setitem__)
    assert [reported[index] for index in range(len(members))] == outcomes
    return [outcome.status for outcome in outcomes]


def assert_close(job: Job, other: Job) -> None:
    """Assert that two results agree but for rounding."""
    first, second = read_result(job.output), read_result(other.output)
    assert first.arrays.keys() == second.arrays.keys()
    assert first.meta == second.meta
    for name, array in first.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(second.arrays[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
        else:
            np.testing.assert_array_equal(second.arrays[name], array, err_msg=name)
    assert not paths.checkpoint_path(other.output).exists()


@pytest.mark.slow
def test_members_write_what_they_write_alone_and_end_each_in_its_own_way(tmp_path, monkeypatch):
    alone: dict[str, list[Job]] = {"TrainBase": [], "Retrain": []}
    again: dict[str, list[Job]] = {"TrainBase": [], "Retrain": []}
    for job in trained_jobs(tmp_path):
        output = str(Path(job.output).with_name(f"again-{len(alone['Retrain'])}-{Path(job.output).name}"))
        alone[job.family].append(job)
        again[job.family].append(replace(job, output=output, request={**job.request, "output": output}))
    reads: list[int] = []
    read = inputs.read_splits
    monkeypatch.setattr(together_job, "read_splits", lambda base, *more: reads.append(base.net) or read(base, *more))

    assert together(again["TrainBase"]) == ["done"] * 2
    for job, other in zip(alone["TrainBase"], again["TrainBase"], strict=True):
        assert_close(job, other)

    members = again["Retrain"]
    assert len(members) == 12  # of both steps of the cascade
    members[1].request["inputs"] = {**members[1].request["inputs"], "network": str(tmp_path / "missing.h5")}
    lines: list[str] = []
    contexts = [Context(log_line=lines.append if index == 4 else lambda text: None) for index in range(12)]
    contexts[2].is_superseded = lambda: True
    contexts[3].should_stop = lambda: True
    reads.clear()
    assert together(members, contexts) == ["done", "damaged", "elsewhere", "interrupted", *["done"] * 8]
    assert sorted(reads) == [0, 1]
    assert [line.split(":")[0] for line in lines] == ["epoch 2/2"]
    assert paths.checkpoint_path(members[3].output).exists()
    assert together(members[2:4]) == ["done", "done"]
    for job, other in zip([alone["Retrain"][0], *alone["Retrain"][2:]], [members[0], *members[2:]], strict=True):
        assert_close(job, other)
