"""What holds for commands of every kind: no terminal, wrong places, numbers out of range, exit codes, quoting."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.__main__ import main
from luigi_prune.execution.failures import clear_failure, record_failure
from luigi_prune.execution.job import Outcome
from luigi_prune.execution.process_claims import ProcessClaims
from luigi_prune.execution.remote_jobs import Cancellation, RemoteJobs
from luigi_prune.workflow.job_task import walk
from tests.experiments import reports, run, write_experiment


@pytest.fixture
def store(tmp_path: Path, backend: Any) -> Path:
    """Return the folder of a finished experiment whose results hold nothing."""
    run(write_experiment(tmp_path))
    return tmp_path


def error_line(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the one line with which a command refuses its arguments."""
    assert main([str(argument) for argument in arguments]) == 35
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


class OneJob(RemoteJobs):
    def cancellation(self, outputs: Any) -> Cancellation:
        return Cancellation(running=1, carry_out=lambda: pytest.fail("cancelled without an answer"))


@pytest.mark.parametrize("command", ["gc", "cancel"])
@pytest.mark.parametrize(("given", "words"), [("", "--yes does it without a question"), ("n\n", ""), ("j\n", "")])
def test_a_question_without_a_terminal_needs_an_answer(
    tmp_path, capsys, monkeypatch, command: str, given: str, words: str
):
    (tmp_path / ".x.h5.failed").touch()
    (tmp_path / "x.h5").touch()
    monkeypatch.setattr("luigi_prune.commands.cancel.remote_jobs", lambda: [OneJob()])
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    arguments = ["gc", tmp_path] if command == "gc" else ["cancel", "--results", tmp_path]
    if words:
        assert words in error_line(capsys, *arguments)
    else:
        assert main([str(argument) for argument in arguments]) == 0
        assert "Nothing was" in capsys.readouterr().out
    assert (tmp_path / ".x.h5.failed").exists()


@pytest.mark.parametrize("text", ["-1", "0", "nan", "inf"])
def test_an_interval_out_of_range_is_one_line(tmp_path, capsys, text: str):
    assert "--interval: expected at least 0.1 seconds" in error_line(
        capsys, "status", write_experiment(tmp_path), f"--interval={text}"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "a folder"], "is a folder, expected a result file (.h5); `python -m luigi_prune verify 'a folder'`"),
        (["show", "none.h5"], "none.h5: no such file"),
        (["show", "an experiment.yaml"], "`python -m luigi_prune plan 'an experiment.yaml'`"),
        (["gc", "an experiment.yaml"], "is no folder"),
        (["gc", "none"], "no such folder"),
        (["cancel", "--results", "an experiment.yaml"], "is no folder"),
        (["plan", "mine.yml"], "did you mean 'mine.yaml'?"),
        (["status", "mien.yaml"], "did you mean 'mine.yaml'?"),
        (["plan", "sample/digist.yaml"], "did you mean 'sample/digits.yaml'?"),
        (["plan", "zzzzzzzz"], "; choose from an experiment.yaml, mine.yaml, sample/"),
    ],
)
def test_a_wrong_place_is_one_line_with_the_right_one(tmp_path, capsys, monkeypatch, arguments: list[str], words: str):
    monkeypatch.chdir(tmp_path)
    Path("a folder").mkdir()
    Path("an experiment.yaml").touch()
    Path("mine.yaml").touch()
    assert words in error_line(capsys, *arguments)


def remove(store: Path, pattern: str) -> None:
    next((store / "results").rglob(pattern)).unlink()


@pytest.mark.parametrize(
    ("where", "damage", "code"),
    [
        ("results", lambda store: None, 0),
        ("tiny.yaml", lambda store: None, 0),
        ("tiny.yaml", lambda store: remove(store, "*evaluate*.h5"), 1),
        ("none.h5", lambda store: None, 1),
    ],
)
def test_verify_fails_if_anything_is_missing(store, where: str, damage: Callable[[Path], None], code: int):
    damage(store)
    assert main(["verify", str(store / where)]) == code


def test_plan_counts_as_the_run_does(tmp_path, capsys, backend):
    file = write_experiment(tmp_path)
    assert main(["plan", str(file)]) == 0
    planned = capsys.readouterr().out
    run(file)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "tasks to do" in line]
    assert line.partition(";")[0] in " ".join(planned.split())


def test_printed_commands_can_be_pasted(tmp_path, capsys, monkeypatch, backend):
    folder = tmp_path / "it's here; $HOME"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    run(write_experiment(folder))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Curves: ")]
    words = shlex.split(line.removeprefix("Curves: "))
    assert words[:2] == ["tensorboard", "--logdir"]
    assert words[2:] == [str(path.relative_to(tmp_path).parent / "tensorboard") for path in folder.rglob("report.html")]


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("luigi_prune ")


def test_status_shows_jobs_of_this_machine_and_failures(tmp_path, capsys):
    file = write_experiment(tmp_path)
    tasks = {task.title: task for task in walk(*reports(file))}
    running, failed, retried = (task for title, task in tasks.items() if title.startswith(("TrainBase", "Prune")))
    driver = ProcessClaims()
    driver.take(running.path)
    for task in (failed, retried):
        record_failure(task.path, "Traceback (most recent call last):\n  File\nValueError: no\n", "/logs/x.log")
    driver.take(retried.path)
    assert main(["status", str(file), "--once"]) == 0
    out = capsys.readouterr().out
    assert f"{running.title}: computed by process {os.getpid()}" in out
    assert f"failed: {failed.title}: ValueError: no  (log: /logs/x.log)" in out
    assert f"failed: {retried.title}" not in out
    driver.close()
    clear_failure(failed.path)
    assert main(["status", str(file), "--once"]) == 0
    assert f"failed: {failed.title}" not in capsys.readouterr().out


def test_a_run_records_its_failures_and_forgets_them_when_they_are_mended(tmp_path, capsys, backend):
    file = write_experiment(tmp_path)
    backend.outcomes["TrainBase"] = [Outcome("failed", "out of luck", retry=False)]
    with pytest.raises(AssertionError):
        run(file)
    capsys.readouterr()
    main(["status", str(file), "--once"])
    assert "out of luck" in capsys.readouterr().out
    run(file)
    main(["status", str(file), "--once"])
    assert "out of luck" not in capsys.readouterr().out
    assert not list(tmp_path.rglob(".*.failed"))
