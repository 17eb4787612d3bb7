"""The seam to Luigi, with a backend that computes nothing: what runs when, retries, repairs, what a user reads."""

from __future__ import annotations

import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import luigi
import luigi.interface
import luigi.worker
import pytest

import luigi_prune.workflow.job_process as job_process
import luigi_prune.workflow.luigi_integration as factory
import luigi_prune.workflow.worker as worker
from luigi_prune.execution.job import Outcome
from luigi_prune.results.hdf5_file import read_result
from luigi_prune.workflow.scheduler_status import Statuses
from luigi_prune.workflow.tasks import RunExperiment
from tests.experiments import recorded, write_experiment


@pytest.fixture
def luigi_option() -> Iterator[Callable[[str, str, str], None]]:
    """Set options of luigi.cfg for one test."""
    config = luigi.configuration.get_config()
    before: list[tuple[str, str, str]] = []

    def change(section: str, option: str, value: str) -> None:
        before.append((section, option, config.get(section, option)))
        config.set(section, option, value)

    yield change
    for section, option, value in reversed(before):
        config.set(section, option, value)


def build(file: Path, **more: Any) -> bool:
    return bool(luigi.build([RunExperiment(config=str(file))], local_scheduler=True, log_level="CRITICAL", **more))


def test_the_stock_command_line_finds_our_worker():
    assert luigi.interface._WorkerSchedulerFactory is factory.SchedulerWorkerFactory
    for private in ("_create_task_process", "_add_task", "_purge_children", "_handle_next_task", "_get_work"):
        assert callable(getattr(luigi.worker.Worker, private))


def test_every_task_of_the_graph_is_a_job(tmp_path, backend):
    assert build(write_experiment(tmp_path, experiments__numNets=2))
    counts = {family: backend.submitted.count(family) for family in dict.fromkeys(backend.submitted)}
    assert counts == {"TrainBase": 2, "Prune": 4, "Retrain": 4, "Evaluate": 6, "Aggregate": 1, "Report": 1}
    assert backend.closed


def test_results_come_from_another_thread_and_slots_are_used(tmp_path, backend):
    backend.late = True
    backend.slots = 3
    assert build(write_experiment(tmp_path, experiments__numNets=4))
    assert backend.most_at_once == 3


def test_workers_given_on_the_command_line_limit_tasks_at_once(tmp_path, backend):
    backend.late = True
    backend.slots = 8
    assert build(write_experiment(tmp_path, experiments__numNets=4), workers=2)
    assert backend.most_at_once == 2


def test_a_finished_job_wakes_the_worker_instead_of_being_found_by_it(tmp_path, backend, monkeypatch, luigi_option):
    in_vain: list[int] = []

    class Watched(worker.ResultQueue):
        def get(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().get(*args, **kwargs)
            except queue.Empty:
                in_vain.append(1)
                raise

    luigi_option("worker", "wait_interval", "20")
    monkeypatch.setattr(worker, "ResultQueue", Watched)
    backend.late = True
    assert build(write_experiment(tmp_path))
    assert in_vain == []


def test_a_failure_that_no_retry_can_mend_is_tried_once(tmp_path, backend, capsys):
    backend.outcomes["Prune"] = [Outcome("failed", "ValueError: no", retry=False)]
    with recorded() as started:
        assert not build(write_experiment(tmp_path))
    assert [task.task_family for task in started].count("Prune") == 1
    out = capsys.readouterr().out
    assert "ValueError: no" in out
    assert "1 failed" in out


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_a_failed_run_ends_with_a_partial_report_if_luigi_cfg_says_so(
    tmp_path, backend, luigi_option, monkeypatch, allowed
):
    reported: list[RunExperiment] = []
    monkeypatch.setattr(worker, "write_partial_reports", lambda experiments, note: reported.extend(experiments))
    luigi_option("report", "allow_partial", allowed)
    backend.outcomes["Prune"] = [Outcome("failed", "ValueError: no", retry=False)]
    file = write_experiment(tmp_path)
    assert not build(file)
    assert [experiment.config for experiment in reported] == ([str(file)] if allowed == "true" else [])


def test_a_failure_of_the_machine_is_tried_again(tmp_path, backend, luigi_option):
    luigi_option("scheduler", "retry_delay", "0.1")
    backend.outcomes["Prune"] = [Outcome("failed", "killed by signal 9", retry=True)]
    build(write_experiment(tmp_path))
    assert backend.submitted.count("Prune") == 3
    assert backend.submitted[-1] == "Report"


def test_a_job_that_writes_nothing_has_failed(tmp_path, backend, capsys, luigi_option):
    luigi_option("scheduler", "retry_delay", "0.1")
    backend.outcomes["TrainBase"] = [Outcome("done")]
    build(write_experiment(tmp_path))
    assert "ended without writing" in capsys.readouterr().out


def test_a_run_whose_output_nobody_reads_goes_on(tmp_path, backend, monkeypatch):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("rich.console.Console.print", broken)
    monkeypatch.setattr("luigi_prune.workflow.progress_display._LINE_EVERY", 0.0)
    assert build(write_experiment(tmp_path))
    assert backend.submitted[-1] == "Report"


def test_an_error_while_a_result_is_judged_is_a_failure_and_no_hang(tmp_path, backend, monkeypatch, luigi_option):
    luigi_option("scheduler", "retry_delay", "0.1")

    def broken(*args: Any) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(job_process, "set_aside", broken)
    build(write_experiment(tmp_path))
    base = next((tmp_path / "results").rglob("TrainBase/*.h5"))
    base.write_bytes(b"x")
    assert not build(write_experiment(tmp_path, experiments__methods=["UniNet"]))


def test_a_damaged_input_is_computed_again_and_its_reader_retried(tmp_path, backend, capsys):
    build(write_experiment(tmp_path))
    base = next((tmp_path / "results").rglob("TrainBase/*.h5"))
    base.write_bytes(base.read_bytes()[:-5])
    backend.submitted.clear()
    assert build(write_experiment(tmp_path, experiments__methods=["ThresNet", "UniNet"]))
    assert backend.submitted[:3] == ["Prune", "TrainBase", "Prune"]
    assert backend.submitted.count("TrainBase") == 1
    assert read_result(base).family == "TrainBase"
    assert "set aside as" in capsys.readouterr().out


def test_an_input_that_never_stays_whole_ends_in_a_failure(tmp_path, backend, monkeypatch, capsys):
    monkeypatch.setattr(job_process, "_REPAIRS", 3)
    monkeypatch.setattr(job_process, "_REPAIR_DELAY", 0.01)
    file = write_experiment(tmp_path)
    (task,) = [task for task in worker_tasks(file) if task.task_family == "TrainBase"]
    backend.outcomes["Prune"] = [Outcome("damaged", "rotten", damaged=str(task.path)) for _ in range(50)]
    assert not build(file)
    assert backend.submitted.count("Prune") == 4
    assert "was lost 4 times" in capsys.readouterr().out


def worker_tasks(file: Path) -> list[Any]:
    from luigi_prune.workflow.job_task import walk

    return list(walk(RunExperiment(config=str(file))))


def test_the_terminal_says_how_far_it_is_and_where_the_report_is(tmp_path, backend, capsys, monkeypatch):
    monkeypatch.setattr("luigi_prune.workflow.progress_display._LINE_EVERY", 0.0)
    build(write_experiment(tmp_path))
    out = capsys.readouterr().out
    assert "10 tasks to do" in out
    assert "1/10 tasks done, 0 running, 9 remain" in out
    assert "10 of 10 tasks done" in out
    assert "report.html" in out


class DeafScheduler:
    """A scheduler that is gone."""

    def __init__(self) -> None:
        self.calls = 0

    def set_task_status_message(self, **message: Any) -> None:
        self.calls += 1
        raise ConnectionError

    set_task_progress_percentage = set_task_status_message


def test_statuses_reach_the_scheduler_escaped_and_only_the_newest():
    heard: list[Any] = []

    class Scheduler:
        def set_task_status_message(self, task_id: str, status_message: str) -> None:
            heard.append(status_message)

        def set_task_progress_percentage(self, task_id: str, progress_percentage: int) -> None:
            heard.append(progress_percentage)

    statuses = Statuses(Scheduler(), interval=0.05)
    statuses.update("t", 0.25, "epoch <1>")
    deadline = time.monotonic() + 5
    while len(heard) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    statuses.close()
    assert heard == ["epoch &lt;1&gt;", 25]


def test_a_scheduler_that_is_gone_does_not_disturb_anyone():
    scheduler = DeafScheduler()
    statuses = Statuses(scheduler, interval=0.01)
    for _ in range(20):
        statuses.update("t", 0.5, "x")
        time.sleep(0.01)
    statuses.close()
    assert scheduler.calls == 1  # then it leaves the scheduler alone for a while


def luigi_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "luigi", "--module", "luigi_prune", "RunExperiment", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "config", ["[core]\ndefault_scheduler_url=http://127.0.0.1:9/\n", "[core]\ndefault_scheduler_port=9\n"]
)
def test_a_configured_scheduler_that_does_not_answer_ends_the_run_with_one_line(tmp_path, config):
    (tmp_path / "luigi.cfg").write_text(config)
    ended = luigi_command(tmp_path, "--config", str(write_experiment(tmp_path)))
    assert ended.returncode == 35
    assert ended.stderr.startswith("error: no Luigi scheduler responds at http://")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[compute]\nbackend=lokal\n", "did you mean 'local'?"),
        ("[compute]\nthread=2\n", "did you mean 'threads'?"),
        ("[compute]\nthreads=none\n", "'none' is not a whole number"),
        ("[compute]\nthreads=0\n", "at least 1"),
        ("[compute]\ndevice=gpu\n", "expected auto, cpu or cuda, got 'gpu'"),
        ("[compute.Prune]\nprocesses=2\n", "only processes and together of TrainBase and Retrain"),
        ("[compute]\nbackend=inline\nprocesses=2\n", "use 'local' for several"),
        ("[directories]\nresult=/tmp\n", "did you mean 'results'?"),
    ],
)
def test_a_mistake_in_luigi_cfg_is_one_line(tmp_path, config, words):
    (tmp_path / "luigi.cfg").write_text(config)
    ended = luigi_command(tmp_path, "--local-scheduler", "--config", str(write_experiment(tmp_path)))
    assert ended.returncode == 35
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_mistake_in_the_experiment_file_is_one_line(tmp_path):
    ended = luigi_command(
        tmp_path, "--local-scheduler", "--config", str(write_experiment(tmp_path, network__name="resnet2"))
    )
    assert ended.returncode == 35
    assert "network.name" in ended.stderr
    assert "did you mean" in ended.stderr
    assert ended.stderr.count("\n") == 1
