"""What a driver leaves in its results folder for pages, by the real worker and a backend that computes nothing."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import luigi
import pytest

from luigi_prune.execution.job import Job, Listener, Outcome
from luigi_prune.results.run_records import (
    DriverNews,
    RecordedExperiment,
    parse_experiment,
    parse_news,
    request_retry,
    runs_folder,
)
from luigi_prune.workflow import run_news
from luigi_prune.workflow.tasks import RunExperiment
from luigi_prune.workflow.worker import PruneWorker
from tests.experiments import reports, write_experiment


def build(file: Path) -> bool:
    return bool(luigi.build([RunExperiment(config=str(file))], local_scheduler=True, log_level="CRITICAL"))


def records(results: Path) -> tuple[RecordedExperiment, DriverNews]:
    (tasks,), (news,) = ([*runs_folder(results).glob(ending)] for ending in ("*.tasks.json", "*.news.json"))
    experiment, driver = parse_experiment(tasks.read_bytes()), parse_news(news.read_bytes())
    assert experiment
    assert driver
    return experiment, driver


def test_a_run_records_its_tasks_and_its_end(tmp_path, backend):
    file = write_experiment(tmp_path, experiments__numNets=2)
    assert build(file)
    experiment, news = records(tmp_path / "results")
    assert {task.family for task in experiment.tasks} == {*backend.submitted}
    assert len(experiment.tasks) == len(backend.submitted)
    assert experiment.tasks[-1].family == "Report"
    for task in experiment.tasks:
        assert (tmp_path / "results" / task.path).exists()
        assert bool(task.curves) == (task.family in ("TrainBase", "Retrain"))
    readers = [task for task in experiment.tasks if task.family == "Retrain"]
    assert {experiment.tasks[task.inputs[0]].family for task in readers} == {"Prune"}
    assert (experiment.config, experiment.folder, experiment.smoke) == (str(file), str(Path.cwd()), False)
    assert experiment.command == f"cd {Path.cwd()} && luigi --module luigi_prune RunExperiment --config {file}"
    assert news.ended is not None
    assert (news.backend, news.to_do, news.done, news.failed) == ("pretend", len(experiment.tasks), news.to_do, {})


def test_results_from_before_are_recorded_by_a_run_that_has_nothing_to_do(tmp_path, backend):
    file = write_experiment(tmp_path)
    build(file)
    (path,) = runs_folder(tmp_path / "results").glob("*.tasks.json")
    path.unlink()
    assert build(file)
    assert path.exists()


def test_failures_stay_in_the_news_with_their_messages(tmp_path, backend):
    backend.outcomes = {"Prune": [Outcome("failed", "no <b>", retry=False)]}
    build(write_experiment(tmp_path, experiments__mode="retrain"))
    experiment, news = records(tmp_path / "results")
    (key,) = news.failed
    assert next(task.family for task in experiment.tasks if task.key == key) == "Prune"
    assert news.failed[key].message.startswith("no <b>")


def test_a_task_that_failed_for_good_runs_again_on_request(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(run_news, "_EVERY", 0.05)
    retried = threading.Event()
    results = tmp_path / "results"

    def slow(job: Job, listener: Listener) -> None:
        """Let the second pruning run until the first one, which fails, has been asked for again and is done."""
        if job.family == "Prune" and backend.outcomes.get("Prune") == []:
            backend.outcomes["Prune"] = None
            backend.submitted.append(job.family)
            threading.Thread(target=wait_for_retry, args=[job, listener]).start()
        else:
            quick(job, listener)
            if job.family == "Prune" and backend.submitted.count("Prune") == 3:
                retried.set()

    def wait_for_retry(job: Job, listener: Listener) -> None:
        listener.started()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not retried.is_set():
            for path in runs_folder(results).glob("*.news.json"):
                news = parse_news(path.read_bytes())
                for key in news.failed if news else ():
                    request_retry(results, key)
            time.sleep(0.05)
        listener.ended(backend._write(job))

    quick = backend.submit
    monkeypatch.setattr(backend, "submit", slow)
    backend.outcomes = {"Prune": [Outcome("failed", "no", retry=False)]}
    build(write_experiment(tmp_path, experiments__mode="retrain"))
    assert retried.is_set()
    _, news = records(results)
    assert news.failed == {}


def test_a_run_removes_records_that_nobody_needs(tmp_path, backend):
    folder = runs_folder(tmp_path / "results")
    folder.mkdir(parents=True)
    for name, days in (
        ("a-1-2.news.json", 31),
        ("b-1-2.news.json", 1),
        ("0" * 64 + ".retry", 1),
        ("1" * 64 + ".retry", 0),
    ):
        (folder / name).write_text("{}")
        os.utime(folder / name, (time.time() - days * 86400,) * 2)
    build(write_experiment(tmp_path))
    kept = {path.name for path in folder.iterdir() if path.read_text() == "{}"}
    assert kept == {"b-1-2.news.json", "1" * 64 + ".retry"}


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tmp_path, backend):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "runs").touch()
    assert build(write_experiment(tmp_path))


def test_luigis_page_shows_first_what_tells_tasks_apart(tmp_path, backend, monkeypatch):
    sent: dict[str, dict[str, Any]] = {}

    def add_task(self: Any, task_id: str, *args: Any, **kwargs: Any) -> None:
        sent.setdefault(task_id.partition("_")[0], kwargs)
        original(self, task_id, *args, **kwargs)

    from luigi.scheduler import Scheduler

    original = Scheduler.add_task
    monkeypatch.setattr(Scheduler, "add_task", add_task)
    file = write_experiment(tmp_path)
    build(file)
    (report,) = reports(file)
    params, hidden = sent["Retrain"]["params"], sent["Retrain"]["param_visibilities"]
    shown = [name for name in params if int(hidden.get(name, 0)) == 0]
    assert shown == ["id", "method", "keep_ratio", "net", "repetition", "network", "dataset"]
    assert len(params["id"]) == 12
    assert sent["Report"]["params"]["key"] == report.key  # what other workers need to load the task


@pytest.mark.parametrize(("has_pages", "expected"), [(True, "/experiments/t/"), (False, None)])
def test_a_task_links_to_its_page_if_luigid_has_one(tmp_path, has_pages, expected):
    (report,) = reports(write_experiment(tmp_path))
    worker = object.__new__(PruneWorker)
    worker._has_pages = has_pages
    assert worker.page_of(report) == (expected and expected + report.key[:12])
