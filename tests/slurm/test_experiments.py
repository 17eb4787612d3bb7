"""Whole experiments on a real SLURM: the same arrays as in one process, whatever happens to the driver.

Jobs compute as ever if arrays are compared; if only their fate matters, they train nothing (tests/light_jobs.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from luigi_prune.execution import claims
from luigi_prune.results.hdf5_file import read_result
from tests.experiments import command, contents, reports, write_experiment
from tests.slurm.cluster import Cluster
from tests.slurm.recording_listener import follow, until

ONE_RATIO = [{"type": "manual", "values": [0.5]}]
QUICK = """device=cpu
[slurm]
poll_seconds=1
poll_seconds_max=2
timeout_min=10
"""


@pytest.fixture(autouse=True)
def _in_the_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])


def run(file: Path, *more: str, backend: str = "slurm", config: str = QUICK, light: bool = False) -> str:
    """Run an experiment to its end and return what it said."""
    process = command(file, *more, backend=backend, config=config, light=light)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def jobs_of(folder: Path) -> Counter[str]:
    """Return how many jobs each task had, by what their logs say."""
    started: Counter[str] = Counter()
    for log in (folder / "results" / "logs").glob("*.log"):
        started[log.name] = log.read_text().count("process 1 of")
    return started


def test_slurm_computes_what_one_process_computes(tmp_path: Path, cluster: Cluster):
    (tmp_path / "inline").mkdir()
    (tmp_path / "slurm").mkdir()
    changes = {"experiments__spacing": ONE_RATIO}
    run(write_experiment(tmp_path / "inline", **changes), backend="inline", config="")
    said = run(write_experiment(tmp_path / "slurm", **changes))
    expected = contents(tmp_path / "inline" / "results")
    assert contents(tmp_path / "slurm" / "results") == expected
    assert "SLURM commands: " in said
    assert "squeue" in said
    assert set(jobs_of(tmp_path / "slurm").values()) == {1}
    results = tmp_path / "slurm" / "results"
    assert [path for path in results.rglob("*") if "claim" in path.name or path.parent.name == "news"] == []
    about = read_result(next(results.rglob("TrainBase/*.h5"))).provenance
    assert about["job"].split("_")[0].isdigit()
    assert "Nothing to compute" in run(tmp_path / "slurm" / "tiny.yaml")


def test_a_killed_driver_adopts_its_jobs(tmp_path: Path, cluster: Cluster):
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()
    changes = {"experiments__spacing": ONE_RATIO}
    run(write_experiment(tmp_path / "calm", **changes), backend="inline", config="", light=True)
    file = write_experiment(tmp_path / "killed", **changes)
    (tmp_path / "killed" / "pace").write_text("0.05")  # so that a training can be seen while it runs
    for moment in ("TrainBase", "Prune", "Evaluate"):
        process = command(file, backend="slurm", config=QUICK, light=True)
        until(lambda: process.poll() is not None or running(file, moment))  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    run(file, light=True)
    assert contents(tmp_path / "killed" / "results") == contents(tmp_path / "calm" / "results")
    assert set(jobs_of(tmp_path / "killed").values()) == {1}  # each job began once, and once only
    states = states_in_accounting(cluster, tmp_path / "killed")
    assert states == ["COMPLETED"] * (len(jobs_of(tmp_path / "killed")) - 2)  # tables and report are made here


def test_a_driver_killed_before_it_knows_the_job_id_adopts_its_job(tmp_path: Path, cluster: Cluster):
    file = write_experiment(tmp_path, experiments__mode="train")
    (tmp_path / "bin").mkdir()
    deadly = tmp_path / "bin" / "sbatch"
    deadly.write_text(
        f"""#!/bin/sh
case "$*" in *--test-only*) exec {shutil.which("sbatch")} "$@";; esac
{shutil.which("sbatch")} "$@" > {tmp_path}/answer && kill -9 $PPID
"""
    )
    deadly.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{deadly.parent}:{os.environ['PATH']}")
        process = command(file, backend="slurm", config=QUICK, light=True)
        process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "answer").read_text().strip().isdigit()
    assert list((tmp_path / "results" / "slurm").glob("lp-*/submitted.json")) == []
    run(file, light=True)
    assert set(jobs_of(tmp_path).values()) == {1}
    assert set(states_in_accounting(cluster, tmp_path)) == {"COMPLETED"}


def states_in_accounting(cluster: Cluster, folder: Path) -> list[str]:
    """Return how each job that was submitted from `folder` ended, by SLURM's accounting.

    A job tells its driver that it is done a moment before its process ends, and accounting hears of it later still.
    """

    def records(*command: str) -> dict[str, str]:
        lines = (line.split("|") for line in cluster.run(*command).stdout.splitlines())
        return {job: state for job, where, state in lines if where == str(folder)}

    def in_accounting() -> dict[str, str]:
        return records("sacct", "--starttime", "now-1hours", "-X", "-n", "-P", "-o", "JobID,WorkDir,State")

    def settled() -> bool:
        known, recorded = records("squeue", "-t", "all", "-h", "-r", "-o", "%i|%Z|%T"), in_accounting()
        return known.keys() <= recorded.keys() and not {"PENDING", "RUNNING", "COMPLETING"} & {*recorded.values()}

    until(settled)
    return [*in_accounting().values()]


def running(file: Path, family: str) -> bool:
    """Tell whether a task of this family is in SLURM's hands."""
    from luigi_prune.workflow.job_task import JobTask, walk

    tasks = [task for task in walk(*reports(file)) if isinstance(task, JobTask) and task.task_family == family]
    return any(claims.newest(task.path) is not None for task in tasks)


def test_ctrl_c_lets_the_jobs_go_on_and_twice_cancels_them(tmp_path: Path, cluster: Cluster):
    file = write_experiment(tmp_path)
    (tmp_path / "pace").write_text("0.2")
    (tmp_path / "epochs").write_text("4000")
    for presses in (1, 2):
        process = command(file, backend="slurm", config=QUICK, light=True)
        lines = follow(process)
        until(lambda: "tasks to do" in "".join(lines) and "RUNNING" in cluster.squeue().values())  # noqa: B023
        for _ in range(presses):
            time.sleep(2)
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
        until(lambda: "SLURM jobs are" in "".join(lines))  # noqa: B023
        said = "".join(lines)
        assert f"1 SLURM jobs are {'left running' if presses == 1 else 'cancelled'}" in said
        assert "Traceback" not in said
        until(lambda: bool(cluster.squeue()) is (presses == 1))  # noqa: B023


def test_several_processes_on_several_nodes_train_the_same_weights_though_they_are_preempted(
    tmp_path: Path, cluster: Cluster
):
    weights = {}
    changes = {"training__batchSize": 63, "training__numEpochs": 25, "experiments__methods": []}
    two = QUICK + "[slurm.TrainBase]\nnodes=2\n"
    for tag, backend, config in (("one", "inline", ""), ("two", "slurm", two)):
        (tmp_path / tag).mkdir()
        file = write_experiment(tmp_path / tag, **changes)
        process = command(file, backend=backend, config=config)
        lines = follow(process)
        if tag == "two":
            until(lambda: "epoch 4/25" in log_of(tmp_path / "two", "TrainBase"))
            (job,) = cluster.squeue()
            cluster.run("scancel", "--signal=USR2", job)
        assert process.wait(timeout=300) == 0, "".join(lines)
        (trained,) = (tmp_path / tag / "results").rglob("TrainBase/*.h5")
        result = read_result(trained)
        weights[tag] = result.group("weights")
        assert result.provenance["processes"] == (2 if tag == "two" else 1)
    for name, expected in weights["one"].items():
        # Rounding may switch a ReLU at one sample, after which that unit's weights differ; a lost step would move all.
        difference = np.abs(weights["two"][name] - expected)
        assert np.quantile(difference, 0.8) < 1e-5
        assert difference.max() < 1e-3
    said = log_of(tmp_path / "two", "TrainBase")
    assert said.count("process 1 of 2") == 2
    assert said.count("INFO epoch 1/25") == 1  # it went on where it was


def log_of(folder: Path, family: str) -> str:
    """Return what the one job of a family has printed so far."""
    return "".join(log.read_text() for log in (folder / "results" / "logs").glob(f"{family}*.log"))


def test_luigis_resources_limit_the_jobs_at_once(tmp_path: Path):
    file = write_experiment(tmp_path, experiments__numNets=2, experiments__methods=[])
    run(file, config=QUICK + "[resources]\nslurm_jobs=1\n", light=True)
    jobs = [read_result(path).provenance["job"] for path in (tmp_path / "results").rglob("net*.h5")]
    assert len(jobs) == 4
    assert all("_" not in job for job in jobs)  # one at a time, so that there never was an array


def test_what_the_site_would_refuse_ends_the_run_with_one_line(tmp_path: Path):
    process = command(write_experiment(tmp_path), backend="slurm", config=QUICK + "partition=nope\n")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 35
    assert [line for line in said.splitlines() if line.startswith("error:")] == [
        next(line for line in said.splitlines() if "invalid partition specified: nope" in line)
    ]


def test_the_log_of_a_failing_job_is_shown(tmp_path: Path):
    file = write_experiment(tmp_path)
    config = QUICK + "setup=echo the module is missing here\n  exit 3\n"
    process = command(file, backend="slurm", config=config + "[scheduler]\nretry_count=1\n")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 30
    assert "the module is missing here" in said
