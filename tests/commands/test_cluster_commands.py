"""`status`, `cancel` and `gc` where SLURM jobs are on their way; SLURM itself is a file here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from luigi_prune.__main__ import main
from luigi_prune.execution import claims
from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm import heartbeat
from luigi_prune.identity.paths import checkpoint_path
from luigi_prune.workflow.job_task import JobTask, walk
from tests.experiments import reports, write_experiment
from tests.submissions import submitted, tells

SQUEUE = """#!/bin/sh
[ -e {folder}/down ] && { echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1; }
case "$*" in *%F*) sed 's/^\\([0-9]*\\)[_|].*|/\\1|/' {folder}/queue ;; *) cat {folder}/queue ;; esac
"""
SCANCEL = """#!/bin/sh
for id in "$@"; do
    echo $id >> {folder}/cancelled
    grep -v "^$id|" {folder}/queue > {folder}/left; mv {folder}/left {folder}/queue
done
[ -e {folder}/grumbles ] && { echo 'scancel: error: Kill job error: Invalid job id' >&2; rm {folder}/grumbles; exit 1; }
exit 0
"""
SACCT = """#!/bin/sh
echo 'Slurm accounting storage is disabled' >&2; exit 1
"""
SCONTROL = """#!/bin/sh
echo 'AccountingStorageType   = (null)'
"""


class Slurm:
    """A queue that is a file."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name, text in (("squeue", SQUEUE), ("scancel", SCANCEL), ("sacct", SACCT), ("scontrol", SCONTROL)):
            (folder / name).write_text(text.replace("{folder}", str(folder)))
            (folder / name).chmod(0o755)
        (folder / "queue").touch()

    def has(self, name: str, states: dict[str, str]) -> None:
        with open(self.folder / "queue", "a") as file:
            file.writelines(f"{slurm_id}|{state}|None|n1|N/A|1|{name}\n" for slurm_id, state in states.items())

    def cancelled(self) -> list[str]:
        path = self.folder / "cancelled"
        return sorted(path.read_text().split()) if path.exists() else []


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Slurm:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return Slurm(tmp_path / "bin")


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    """Return the jobs of an experiment: the training first, then the prunings."""
    file = write_experiment(tmp_path)
    tasks = [task for task in walk(*reports(file)) if isinstance(task, JobTask)]
    order = ("TrainBase", "Prune", "Retrain")
    return [task.job() for family in order for task in tasks if task.task_family == family]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_status_says_what_slurm_jobs_do(tmp_path, jobs, capsys):
    folder = submitted(tmp_path / "results", jobs[:3], "12")
    tells(folder, 0, fraction=0.4, message="epoch 4/10, validation TopK1 0.9")
    tells(folder, 1, outcome={"status": "failed", "message": "no"})
    checkpoint_path(jobs[0].output).touch()
    assert main(["status", str(tmp_path / "tiny.yaml"), "--once"]) == 0
    out = said(capsys)
    assert f"{jobs[0].name}: SLURM job 12_0 on n3: 40% epoch 4/10, validation TopK1 0.9" in out
    assert f"{jobs[1].name}: SLURM job 12_1 on n3: failed" in out
    assert f"{jobs[2].name}: SLURM job 12_2, not started" in out
    assert "1 of 3 SLURM jobs run" in out
    assert "in training" not in out  # it has been said already


def test_status_lists_no_claims_of_results_that_are_there(tmp_path, jobs, capsys):
    submitted(tmp_path / "results", jobs[:1])
    Path(jobs[0].output).touch()
    assert main(["status", str(tmp_path / "tiny.yaml"), "--once"]) == 0
    assert "SLURM" not in said(capsys)


def test_cancel_asks_then_cancels_what_lives_and_forgets_the_rest(tmp_path, jobs, slurm, capsys, monkeypatch):
    folder = submitted(tmp_path / "results", jobs[:4], "12")
    states = {"12_0": "RUNNING", "12_1": "PENDING", "12_2": "COMPLETED"}  # and 12_3 is forgotten
    slurm.has(folder.name, {**states, "12_7": "RUNNING"})  # an element of another experiment
    slurm.has("lp-other", {"99": "RUNNING"})
    questions: list[str] = []
    answers = iter(["n", "y"])
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or next(answers))
    assert main(["cancel", str(tmp_path / "tiny.yaml")]) == 0
    assert questions[0].startswith("Cancel 2 SLURM jobs (1 running, 1 waiting), and forget 2 that have ended")
    assert slurm.cancelled() == []
    assert claims.newest(jobs[0].output)
    assert main(["cancel", str(tmp_path / "tiny.yaml")]) == 0
    assert slurm.cancelled() == ["12_0", "12_1"]
    assert not any(claims.newest(job.output) for job in jobs)
    out = said(capsys)
    assert "2 SLURM jobs cancelled, 4 claims removed." in out
    assert f"process {os.getpid()}" in out  # the driver that claimed them, this process, goes on


def test_cancel_of_a_results_folder_finds_jobs_whose_results_lie_elsewhere(tmp_path, jobs, slurm, capsys):
    elsewhere = Job(**{**jobs[0].as_json(), "output": str(tmp_path / "networks" / "net0.h5")})
    folder = submitted(tmp_path / "results", [elsewhere, jobs[1]], "12")
    slurm.has(folder.name, {"12_0": "PENDING", "12_1": "PENDING"})
    assert main(["cancel", "--results", str(tmp_path / "results"), "--yes"]) == 0
    assert slurm.cancelled() == ["12_0", "12_1"]
    assert claims.newest(elsewhere.output) is None
    assert main(["cancel", "--results", str(tmp_path / "results"), "--yes"]) == 0
    assert "No job is on its way." in said(capsys)


def test_cancel_finds_a_job_whose_driver_died_before_it_wrote_the_id_down(tmp_path, jobs, slurm):
    folder = submitted(tmp_path / "results", jobs[:2], "12")
    (folder / "submitted.json").unlink()
    slurm.has(folder.name, {"12_0": "PENDING", "12_1": "PENDING"})
    assert main(["cancel", str(tmp_path / "tiny.yaml"), "--yes"]) == 0
    assert slurm.cancelled() == ["12_0", "12_1"]


def test_cancel_removes_nothing_where_slurm_does_not_answer(tmp_path, jobs, slurm, capsys):
    submitted(tmp_path / "results", jobs[:1])
    (slurm.folder / "down").touch()
    assert main(["cancel", str(tmp_path / "tiny.yaml"), "--yes"]) == 35
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Unable to contact" in error
    assert claims.newest(jobs[0].output)


def test_a_job_that_ends_while_it_is_cancelled_is_no_error(tmp_path, jobs, slurm):
    folder = submitted(tmp_path / "results", jobs[:1])
    slurm.has(folder.name, {"12": "RUNNING"})
    (slurm.folder / "grumbles").touch()
    assert main(["cancel", str(tmp_path / "tiny.yaml"), "--yes"]) == 0
    assert claims.newest(jobs[0].output) is None


def test_jobs_of_other_users_are_left_alone(tmp_path, jobs, slurm, capsys, monkeypatch):
    submitted(tmp_path / "results", jobs[:1])
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert main(["cancel", str(tmp_path / "tiny.yaml"), "--yes"]) == 0
    out = said(capsys)
    assert "1 jobs of other users are left alone" in out
    assert claims.newest(jobs[0].output)


def test_cancel_wants_one_experiment_or_one_folder(tmp_path, capsys):
    for arguments in ([], ["x.yaml", "--results", "y"], ["--results", str(tmp_path / "none")]):
        assert main(["cancel", *arguments]) == 35
        assert capsys.readouterr().err.count("\n") == 1


def aged(path: Path, hours: float) -> Path:
    """Let a file, or a folder and all that is in it, be old."""
    for each in (*path.rglob("*"), path) if path.is_dir() else (path,):
        os.utime(each, (time.time() - 3600 * hours,) * 2)
    return path


def test_gc_removes_what_no_job_on_its_way_needs(tmp_path, jobs, capsys):
    results = tmp_path / "results"
    living = submitted(results, jobs[:1], "12")  # has waited for days
    over, young = (submitted(results, [job], "13") for job in jobs[1:3])
    superseded = submitted(results, [jobs[3]], "14")
    again = submitted(results, [jobs[3]], "15", attempt=2)
    for folder in (living, over, young, superseded, again):
        tells(folder, 0)
    lost = submitted(results, [jobs[4]], "16")
    Path(jobs[1].output).touch()
    claims.release(jobs[2].output)
    half = claims.claim_path(jobs[0].output, 1).with_name(claims.claim_path(jobs[0].output, 1).name + ".0011aabb")
    half.touch()
    for folder in (living, over, superseded, again):
        aged(folder, 30)
    for folder in (living, over, superseded):
        aged(heartbeat.heartbeat_path(folder, 0), 2)
    for path in (half, claims.claim_path(jobs[4].output, 1)):
        aged(path, 30)
    for path in lost.iterdir():
        path.unlink()
    lost.rmdir()
    gone = [
        *(half, claims.claim_path(jobs[1].output, 1), claims.claim_path(jobs[4].output, 1)),
        *(over, superseded, heartbeat.heartbeat_path(over, 0), heartbeat.heartbeat_path(superseded, 0)),
    ]
    assert main(["gc", str(results), "--yes"]) == 0
    out = capsys.readouterr().out
    assert [path for path in gone if path.exists()] == []
    assert all(f"{path}  (" in out for path in gone)
    kept = [living, young, again, *(heartbeat.heartbeat_path(folder, 0) for folder in (living, young, again))]
    kept += [claims.claim_path(jobs[0].output, 1), claims.claim_path(jobs[3].output, 2)]
    assert [path for path in kept if not path.exists()] == []
