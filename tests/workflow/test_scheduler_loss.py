"""Whatever luigid forgets or suffers, a run computes each result once and ends complete, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import luigi
import luigi.scheduler
import pytest
from luigi.rpc import RPCError

from luigi_prune.execution.job import Outcome
from luigi_prune.workflow import scheduler_link
from luigi_prune.workflow.job_task import JobTask
from luigi_prune.workflow.luigi_integration import SchedulerWorkerFactory
from luigi_prune.workflow.registering_worker import readers_in_line
from luigi_prune.workflow.scheduler_link import SchedulerLink
from luigi_prune.workflow.tasks import RunExperiment
from tests.experiments import write_experiment


class Luigid:
    """A scheduler as a worker reaches it, with Luigi's own settings; `disturb` is called before every request."""

    _url = "http://pretended"

    def __init__(self) -> None:
        self.disturb: Callable[[str], None] = lambda method: None
        self.is_gone = False
        self.sent: list[dict[str, Any]] = []
        self.restart()

    def restart(self) -> None:
        self.scheduler = luigi.scheduler.Scheduler(
            retry_delay=900, retry_count=999999999, stable_done_cooldown_secs=600, prune_on_get_work=False
        )

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.disturb(name)
            if self.is_gone:
                raise RPCError("no answer")
            if name == "add_task":
                self.sent.append(arguments)
            return getattr(self.scheduler, name)(**arguments)

        return lambda *positional, **named: (
            call(**named) if not positional else getattr(self.scheduler, name)(*positional, **named)
        )


@pytest.fixture
def luigid() -> Luigid:
    return Luigid()


@pytest.fixture
def build(luigid: Luigid, backend: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], bool]:
    """Run an experiment with the pretended luigid."""
    config = luigi.configuration.get_config()
    monkeypatch.setattr(scheduler_link, "LOOK_SECONDS", 0.0)
    for key, value in (("wait_interval", "0.05"), ("wait_jitter", "0.0")):
        monkeypatch.setitem(config._sections["worker"], key, value)
    monkeypatch.setitem(config._sections["scheduler"], "retry_delay", "0.05")

    class Factory(SchedulerWorkerFactory):
        def create_remote_scheduler(self, url: str) -> Any:
            return SchedulerLink(luigid, luigi.scheduler.Scheduler, lambda: not luigid.is_gone, print)

    def run(file: Path) -> bool:
        factory = Factory()
        return bool(luigi.build([RunExperiment(config=str(file))], factory, log_level="CRITICAL"))

    return run


def at(number: int, method: str, act: Callable[[], None]) -> Callable[[str], None]:
    """Return a disturbance: `act` before the given call of a method."""
    count = 0

    def disturb(called: str) -> None:
        nonlocal count
        count += called == method
        if called == method and count == number:
            act()

    return disturb


TASKS = ["TrainBase", "Prune", "Prune", "Retrain", "Retrain", "Evaluate", "Evaluate", "Evaluate", "Aggregate", "Report"]


@pytest.mark.parametrize("late", [False, True], ids=["jobs end at once", "jobs run meanwhile"])
@pytest.mark.parametrize("moment", [1, 2, 4, 9])
@pytest.mark.parametrize("event", ["restarted", "gone", "gone for a while"])
def test_luigid_forgets_or_goes_and_all_is_computed_once(
    tmp_path, luigid, build, backend, capsys, event: str, moment: int, late: bool
):
    def act() -> None:
        luigid.restart()
        luigid.is_gone = event != "restarted"

    def come_back() -> None:
        luigid.is_gone = False

    backend.late = late
    luigid.disturb = at(moment, "get_work", act)
    if event == "gone for a while":
        backend.on_submit = at(7, "job", come_back)
    assert build(write_experiment(tmp_path))
    assert sorted(backend.submitted) == sorted(TASKS)
    out = capsys.readouterr().out
    assert ("does not respond" in out) == (event != "restarted")
    assert "10 of 10 tasks done in" in out


def test_a_worker_taken_as_dead_goes_on(tmp_path, luigid, build, backend):
    """As after a suspension: luigid has dropped the worker, and failed what it ran."""

    def forget_worker() -> None:
        for worker in list(luigid.scheduler._state._active_workers.values()):
            worker.last_active -= 10_000
        luigid.scheduler.prune()

    backend.late = True
    luigid.disturb = at(5, "get_work", forget_worker)
    assert build(write_experiment(tmp_path))
    assert sorted(backend.submitted) == sorted(TASKS)


def test_a_state_from_before_the_graph_was_sent_is_no_dead_end(tmp_path, luigid, build, backend, monkeypatch):
    """Luigid waits for tasks that it has never been told of; nothing runs, and something is pending."""
    monkeypatch.setattr("luigi_prune.workflow.registering_worker._IDLE_SECONDS", 0.05)

    def lose_all_but_the_root() -> None:
        state = luigid.scheduler._state
        state.inactivate_tasks([task_id for task_id in state._tasks if not task_id.startswith("RunExperiment")])

    luigid.disturb = at(1, "get_work", lose_all_but_the_root)
    assert build(write_experiment(tmp_path))
    assert sorted(backend.submitted) == sorted(TASKS)


@pytest.mark.parametrize("away", [0.0, 60.0], ids=["comes back", "ends without it"])
@pytest.mark.parametrize("family", ["TrainBase", "Retrain", "Report"])
def test_nobody_waits_for_a_task_that_luigid_takes_as_running_in_a_dead_run(
    tmp_path, luigid, build, backend, monkeypatch, capsys, family: str, away: float
):
    monkeypatch.setattr("luigi_prune.workflow.registering_worker._IDLE_SECONDS", 0.05)
    monkeypatch.setattr("luigi_prune.workflow.registering_worker._AWAY_SECONDS", away)

    def give_to_a_dead_worker() -> None:
        scheduler = luigid.scheduler
        scheduler.add_worker("dead", [])
        (task,) = [task for task in scheduler._state.get_active_tasks() if task.family == family][:1]
        scheduler._state.set_status(task, "RUNNING", scheduler._config)
        task.worker_running = "dead"

    luigid.disturb = at(1, "get_work", give_to_a_dead_worker)
    assert build(write_experiment(tmp_path))
    assert sorted(backend.submitted) == sorted(TASKS)
    assert "waits for a run that has died" in capsys.readouterr().out


def test_failed_jobs_are_retried_by_the_run_whatever_luigid_is_set_to(tmp_path, luigid, build, backend):
    backend.outcomes["Prune"] = [Outcome("failed", "killed by signal 9") for _ in range(2)]
    assert build(write_experiment(tmp_path))
    assert backend.submitted.count("Prune") == 4


def test_a_job_that_has_failed_for_good_is_not_tried_again_after_a_restart(tmp_path, luigid, build, backend, capsys):
    backend.outcomes["Prune"] = [Outcome("failed", "ValueError: no", retry=False)]
    luigid.disturb = at(4, "get_work", luigid.restart)
    assert not build(write_experiment(tmp_path))
    assert backend.submitted.count("Prune") == 1
    assert "Incomplete" not in capsys.readouterr().out  # the failure says why


def test_a_result_that_is_deleted_right_after_a_run_is_computed_at_once(tmp_path, luigid, build, backend):
    """Luigid, which takes it as done, ignores for a while that it is not."""
    file = write_experiment(tmp_path)
    assert build(file)
    backend.submitted.clear()
    for path in [*tmp_path.rglob("report.html"), *tmp_path.rglob("results.h5")]:
        path.unlink()
    assert build(file)
    assert backend.submitted == ["Aggregate", "Report"]


def test_a_run_that_luigid_stops_says_so(tmp_path, luigid, build, backend, capsys):
    def stop() -> None:
        for worker in luigid.scheduler._state.get_active_workers():
            luigid.scheduler.disable_worker(worker.id)

    luigid.disturb = at(4, "get_work", stop)
    build(write_experiment(tmp_path))
    assert "tasks were not run: this run was stopped" in capsys.readouterr().out


def test_a_full_disk_ends_the_run_with_one_line_and_no_retry(tmp_path, luigid, build, backend, capsys):
    line = f"cannot write to {tmp_path}: No space left on device (0.0 MiB are free)"
    backend.outcomes["Prune"] = [Outcome("failed", line, retry=False, ends_run=True)]
    with pytest.raises(SystemExit) as ended:
        build(write_experiment(tmp_path))
    shown = capsys.readouterr()
    assert ended.value.code == 35
    assert shown.err == f"error: {line}\n"
    assert "No space" not in shown.out
    assert backend.submitted.count("Prune") == 1


def test_the_longest_chains_come_first(tmp_path, luigid, build, backend):
    assert build(write_experiment(tmp_path, experiments__methods=["ThresNet", "UniNet"]))
    priority = {sent["family"]: 0 for sent in luigid.sent}
    for sent in luigid.sent:
        priority[sent["family"]] = max(priority[sent["family"]], sent.get("priority", 0))
    families = sorted(priority, key=priority.__getitem__)
    assert families == ["RunExperiment", "Report", "Aggregate", "Evaluate", "Retrain", "Prune", "TrainBase"]
    assert all(JobTask.priority == 0 for _ in families)


def test_a_chain_is_as_long_as_its_longest_branch():
    needs = {"end": ["a", "b"], "a": ["base"], "b": ["c"], "c": ["base"], "base": [], "other": ["end"]}
    assert readers_in_line("end", needs) == {"end": 0, "a": 1, "b": 1, "c": 2, "base": 3}
