"""`python -m luigi_prune logs`: which job is meant, and that following loses no line and ends."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.__main__ import main
from luigi_prune.commands import logs
from luigi_prune.commands.logs import Tail
from luigi_prune.execution import claims
from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm import heartbeat
from luigi_prune.identity.paths import log_path
from luigi_prune.workflow.job_task import walk
from tests.experiments import reports as experiment_reports
from tests.experiments import write_experiment
from tests.submissions import submitted, tells

TITLES = {
    "TrainBase Digits resnet8 net0": "00aa11bb22cc",
    "TrainBase Digits resnet8 net1": "00ab11bb22cc",
    "TrainBase Digits resnet8 net10": "deadbeef0000",
    "Prune resnet8 ThresNet keep 0.25 net0 rep0": "0123456789ab",
}


def make_job(results: Path, title: str, key: str) -> Job:
    output = results / "Digits" / "resnet8" / "TrainBase" / f"net-{key}.h5"
    return Job("f", title, "TrainBase", {}, str(output), str(log_path(results, title, key)), str(results / "slurm"))


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> dict[str, Job]:
    """Return jobs that have printed their title, by title."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "_PAUSE", 0.02)
    made = {title: make_job(tmp_path / "results", title, key) for title, key in TITLES.items()}
    (tmp_path / "results" / "logs").mkdir(parents=True)
    for job in made.values():
        Path(job.log).write_text(f"this is {job.name}\n")
    return made


def ask(*words: str) -> int:
    return main(["logs", *words, "--results", "results"])


@pytest.mark.parametrize(
    ("what", "title"),
    [
        ("00aa", "TrainBase Digits resnet8 net0"),
        ("deadbeef0000" + 52 * "1", "TrainBase Digits resnet8 net10"),
        ("TrainBase Digits resnet8 net1", "TrainBase Digits resnet8 net1"),  # all of net10's beginning, but a title
        ("trainbase digits", ""),
        ("resnet8 net1", "TrainBase Digits resnet8 net1"),  # whole words before parts of words
        ("0.25", "Prune resnet8 ThresNet keep 0.25 net0 rep0"),
        ("TrainBase net0", "TrainBase Digits resnet8 net0"),  # words that stand apart
        ("thres", "Prune resnet8 ThresNet keep 0.25 net0 rep0"),
        ("results/Digits/resnet8/TrainBase/net-00ab11bb22cc.h5", "TrainBase Digits resnet8 net1"),
        ("12_1", "TrainBase Digits resnet8 net1"),
        ("13", "Prune resnet8 ThresNet keep 0.25 net0 rep0"),
        ("77_4", "TrainBase Digits resnet8 net10"),  # its submission is gone, its log remembers
        ("12", ""),
        ("net0", ""),
    ],
)
def test_a_job_has_many_names(jobs, tmp_path, capsys, what, title):
    named = list(jobs.values())
    submitted(tmp_path / "results", named[:2], "12")
    submitted(tmp_path / "results", named[3:], "13")
    with open(named[2].log, "a") as file:
        file.write("INFO net10: process 1 of 1, SLURM job 77_4\n")
    code = ask(what)
    out, error = capsys.readouterr()
    if title:
        assert (code, out.splitlines()[0], error) == (0, f"this is {title}", "")
    else:
        assert (code, out) == (35, "")
        assert error.count("\n") == 1
        assert "jobs: " in error
        assert "net0 (00aa11bb22cc)" in error or "net0 rep0 (0123456789ab)" in error


def test_an_unknown_name_lists_the_nearest(jobs, capsys):
    assert ask("TrainBase Digits resnet9 net0") == 35
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean 'TrainBase Digits resnet8 net0'?" in error
    assert main(["logs", "x", "--results", "nowhere"]) == 35
    assert "--results" in capsys.readouterr().err


def test_titles_need_no_quotes_and_lines_begin_near_the_end(jobs, capsys):
    job = jobs["TrainBase Digits resnet8 net0"]
    Path(job.log).write_text("".join(f"line {number}\n" for number in range(5)) + "unfinished")
    assert ask(*job.name.split(), "--lines", "2") == 0
    assert capsys.readouterr().out == "line 4\nunfinished"
    assert ask("00aa", "-n", "-1") == 35


def test_a_job_that_has_not_started_says_where_it_is(jobs, tmp_path, capsys):
    job = jobs["TrainBase Digits resnet8 net0"]
    Path(job.log).unlink()
    folder = submitted(tmp_path / "results", [job], "12")
    assert ask("12") == 0
    assert "SLURM job 12, not started" in capsys.readouterr().err
    (folder / "12_0_log.out").write_text("ImportError: no torch here\n")
    assert ask("12") == 0
    assert capsys.readouterr().out == "ImportError: no torch here\n"


class Following:
    """A `logs --follow` in a thread, and what it has printed."""

    def __init__(self, what: str, monkeypatch: pytest.MonkeyPatch):
        self.text = ""
        monkeypatch.setattr(logs, "_print", self.hear)
        self.thread = threading.Thread(target=ask, args=[what, "--follow"], daemon=True)
        self.thread.start()

    def hear(self, text: str) -> None:
        self.text += text

    def until(self, condition: Any) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)

    def hears(self, words: str) -> None:
        self.until(lambda: words in self.text)


def append(path: str | Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def test_following_goes_over_attempts_and_requeues_and_ends_with_the_result(jobs, tmp_path, monkeypatch):
    job = jobs["TrainBase Digits resnet8 net0"]
    Path(job.log).unlink()
    first = submitted(tmp_path / "results", [job], "12")
    following = Following("12", monkeypatch)
    append(job.log, "epoch 1\nepo")
    following.hears("epoch 1\n")
    append(job.log, "ch 2\n")
    following.hears("epoch 2\n")
    (first / "12_0_log.out").write_text("srun: error: n3: task 0: Killed\n")
    following.hears("Killed")
    second = submitted(tmp_path / "results", [job], "13", attempt=2)  # the driver has submitted it again
    append(job.log, "epoch 3\n")
    following.hears("epoch 3\n")
    (second / "13_0_log.out").write_text("slurmstepd: error: preempted\n")
    following.hears("preempted")
    append(job.log, "the end")
    Path(job.output).write_bytes(b"")
    claims.release(job.output)
    following.thread.join(60)
    assert not following.thread.is_alive()
    assert following.text == (
        "epoch 1\nepoch 2\nsrun: error: n3: task 0: Killed\nepoch 3\nslurmstepd: error: preempted\nthe end"
    )


def test_following_finds_the_result_of_a_job_without_a_submission(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_SEARCH_EVERY", 0.02)
    job = jobs["TrainBase Digits resnet8 net1"]
    tensorboard = tmp_path / "results" / "Digits" / "tensorboard" / "TrainBase-net-00ab11bb22cc"
    tensorboard.mkdir(parents=True)  # it is called alike, and no result
    (tensorboard / "results.h5").touch()
    following = Following("00ab", monkeypatch)
    following.hears("this is")
    append(job.log, "epoch 1\n")
    following.hears("epoch 1")
    time.sleep(0.2)
    assert following.thread.is_alive()
    Path(job.output).parent.mkdir(parents=True)
    Path(job.output).write_bytes(b"")
    following.thread.join(60)
    assert not following.thread.is_alive()


def test_following_a_finished_job_ends_at_once_and_failures_are_said(jobs, tmp_path, capsys, monkeypatch):
    job = jobs["TrainBase Digits resnet8 net1"]
    folder = submitted(tmp_path / "results", [job], "12")
    tells(folder, 0, outcome={"status": "failed", "message": "no"})
    following = Following("12", monkeypatch)
    following.until(lambda: "SLURM job 12 on n3: failed" in capsys.readouterr().err)
    Path(job.output).write_bytes(b"")
    following.thread.join(60)
    assert not following.thread.is_alive()
    assert ask("12", "-f") == 0
    assert heartbeat.heartbeat_path(folder, 0).exists()  # nothing is cleared away by looking


def test_a_file_that_is_replaced_or_cut_short_is_read_from_its_start(tmp_path):
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == ""
    path.write_text("one\ntwo\n")
    assert tail.read() == "one\ntwo\n"
    other = tmp_path / "other"
    other.write_text("a new file, longer than before\n")
    os.replace(other, path)
    assert tail.read() == "a new file, longer than before\n"
    path.write_text("short\n")
    assert tail.read() == "short\n"
    path.write_bytes(b"short\nhalf a letter \xc3")
    assert tail.read() == ""
    path.write_bytes(b"short\nhalf a letter \xc3\xa9\n")
    assert tail.read() == "half a letter é\n"


def test_an_experiment_names_its_jobs_and_its_results_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write_experiment(tmp_path, experiments__methods=[])
    (base, *_) = [task for task in walk(*experiment_reports(file)) if task.task_family == "TrainBase"]
    logs_folder = tmp_path / "results" / "logs"
    logs_folder.mkdir(parents=True)
    Path(base.job().log).write_text("of this experiment\n")
    (logs_folder / "TrainBase-Digits-other-net0-0123456789ab.log").write_text("of another one\n")
    assert main(["logs", "tiny.yaml", "TrainBase"]) == 0
    assert capsys.readouterr().out == "of this experiment\n"
    assert main(["logs", "tiny.yaml"]) == 0
    assert capsys.readouterr().out == f"{base.key[:12]}  {base.title}: not done\n"
    assert main(["logs", "TrainBase"]) == 35  # ./data/results
    (tmp_path / "empty").mkdir()
    assert main(["logs", "tiny.yaml", "--results", "empty"]) == 35
