"""A results folder in the middle of a run, made by the writers of real runs, and a server of its pages."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from luigi_prune.identity.paths import log_path
from luigi_prune.results.hdf5_file import write_result
from luigi_prune.results.run_records import (
    DriverNews,
    RecordedExperiment,
    RecordedTask,
    TaskNews,
    experiment_path,
    news_path,
    write_record,
)
from luigi_prune.scheduling.failed_tasks import FailureScheduler
from luigi_prune.scheduling.server import application
from luigi_prune.web.access import Gate
from luigi_prune.web.pages import add_pages
from luigi_prune.workflow.recorded_graph import recorded_experiment
from luigi_prune.workflow.tasks import RunExperiment
from tests import synthetic
from tests.experiments import write_experiment

HTML = "<script>document.title = 'owned'</script><b onclick=x>&amp;"


class Sample:
    """An experiment of 12 tasks with one network, of which a test chooses the state of each."""

    def __init__(self, folder: Path, **changes: Any):
        run = RunExperiment(config=str(write_experiment(folder, **changes)))
        (report,) = run.reports
        self.results = Path(report.results)
        self.experiment: RecordedExperiment = recorded_experiment(report, run).model_copy(
            update={"command": f"luigi --config {HTML}"}
        )
        write_record(experiment_path(self.results, report.experiment, report.key), self.experiment)
        self.news = DriverNews(
            host="here",
            pid=1,
            backend="local",
            slots=2,
            command="luigi",
            started=time.time(),
            reports=(report.key,),
            estimate=600.0,
        )

    @property
    def id(self) -> str:
        """The experiment's id on the page of one folder."""
        return f"0-{self.experiment.key[:12]}"

    def task(self, family: str, **more: Any) -> RecordedTask:
        """Return the first task of a family with these settings."""
        return next(
            task
            for task in self.experiment.tasks
            if task.family == family and all(getattr(task, name) == value for name, value in more.items())
        )

    def finish(self, *tasks: RecordedTask) -> None:
        """Write the results of tasks."""
        for task in tasks:
            write_result(
                self.results / task.path,
                family=task.family,
                key=task.key,
                spec={"training": {"num_epochs": 2}},
                provenance={"host": "n7", "job": "12_3"},
                arrays={
                    "history/epoch": np.arange(2),
                    "history/train_loss": np.array([2.0, 1.0]),
                    "history/validation/TopK1": np.array([0.5, np.nan]),
                },
                measured={f"{task.family.lower()}_seconds": 1.5},
            )

    def evaluate(self, *tasks: RecordedTask) -> None:
        """Write made-up results of evaluations."""
        for task in tasks:
            (base,) = (self.experiment.tasks[place] for place in task.inputs)
            cell = [task.test_set, task.net, *([task.method] if base.family == "TrainBase" else
                    [task.keep_ratio, task.repetition, task.method])]  # fmt: skip
            made = synthetic.read("/".join(map(str, cell)))
            more: dict[str, Any] = {"spec": {}, "provenance": {}, "arrays": made.arrays, "measured": made.measured}
            write_result(self.results / task.path, family=task.family, key=task.key, **more)

    def log(self, task: RecordedTask, text: str) -> Path:
        """Write a task's log."""
        path = log_path(self.results, task.title, task.key)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def tell(self, age: float = 0.0, **news: Any) -> Path:
        """Write the driver's news, `age` seconds ago."""
        self.news = self.news.model_copy(update=news)
        path = news_path(self.results, self.news)
        write_record(path, self.news)
        if age:
            os.utime(path, (time.time() - age,) * 2)
        return path

    def in_the_middle(self) -> None:
        """Train the network, let one task run, one wait in a queue, and one fail."""
        self.finish(self.task("TrainBase"))
        prune = [task for task in self.experiment.tasks if task.family == "Prune" and task.keep_ratio == 0.5]
        self.log(prune[0], f"INFO {HTML}\n")
        self.tell(
            running={prune[0].key: TaskNews(message=f"scores {HTML}", fraction=0.25, since=time.time() - 60)},
            queue={prune[1].key: TaskNews(message="SLURM job 12_3 pending (Priority, expected to start 12:00)")},
            failed={prune[2].key: TaskNews(message=f"Traceback ...\nValueError: {HTML}", since=time.time() - 9)},
        )


def in_the_middle(folder: Path) -> Sample:
    """Return a sample with tasks in all states."""
    sample = Sample(folder, experiments__methods=["ThresNet", "UniNet", "SnipNet"], experiments__mode="retrain")
    sample.in_the_middle()
    return sample


@contextmanager
def served(*results: Path, token: str = "", read_only: bool = False) -> Iterator[int]:
    """Serve the pages of results folders from a thread; yields the port."""
    loop = asyncio.new_event_loop()
    found: list[int] = []
    ready = threading.Event()

    async def serve() -> None:
        socket, port = bind_unused_port()
        app = application(FailureScheduler())
        add_pages(app, results, read_only=read_only)
        server = HTTPServer(Gate(app, port, "127.0.0.1", token, read_only))
        server.add_sockets([socket])
        found.append(port)
        ready.set()

    starting = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert ready.wait(30), starting
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers of the answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}


def ask_json(port: int, what: str) -> Any:
    """Return the page's JSON."""
    status, body, _ = ask(port, f"/experiments/api/{what}")
    assert status == 200, body
    return json.loads(body)
