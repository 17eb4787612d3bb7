"""What users of Luigi rely on, of its own scheduler and of ours: priorities, resources, retries, batches, death."""

from __future__ import annotations

import cProfile
import pickle
from typing import Any

import luigi.scheduler
import pytest
from luigi.scheduler import DISABLED, DONE, FAILED, PENDING, RUNNING

from luigi_prune.scheduling import indexed_scheduler
from luigi_prune.scheduling.indexed_scheduler import IndexedScheduler


class Clock:
    """Stands for `time` in the schedulers' modules; every look takes a moment."""

    now = 1e6

    def time(self) -> float:
        self.now += 1e-4
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(luigi.scheduler, "time", fake)
    monkeypatch.setattr(indexed_scheduler, "time", fake)
    return fake


@pytest.fixture(params=[luigi.scheduler.Scheduler, IndexedScheduler])
def scheduler(request: Any, clock: Clock, tmp_path: Any) -> Any:
    return request.param(
        resources={"gpu": 1},
        state_path=str(tmp_path / "state"),
        retry_delay=60,
        retry_count=2,
        worker_disconnect_delay=100,
        remove_delay=1000,
        prune_on_get_work=True,
    )


def next_of(scheduler: Any, worker: str = "w", **more: Any) -> Any:
    return scheduler.get_work(worker=worker, host="h", **more)["task_id"]


def end(scheduler: Any, task: str, status: str, worker: str = "w") -> None:
    scheduler.add_task(worker=worker, task_id=task, status=status, runnable=None)


def statuses(scheduler: Any) -> dict[str, str]:
    return {task_id: task["status"] for task_id, task in scheduler.task_list("", "").items()}


def test_the_highest_priority_comes_first_and_inputs_inherit_it(scheduler):
    for task, priority, deps in (("early", 0, []), ("low", 1, []), ("high", 5, ["input"]), ("input", 0, [])):
        scheduler.add_task(worker="w", task_id=task, priority=priority, deps=deps)
    order = []
    while task := next_of(scheduler):
        order.append(task)
        end(scheduler, task, DONE)
    assert order == ["input", "high", "low", "early"]


def test_an_input_that_waits_already_inherits_the_priority_of_a_later_reader(scheduler):
    for task, priority, deps in (
        ("input", 0, []),
        ("other", 1, []),
        ("between", 0, ["input"]),
        ("high", 5, ["between"]),
    ):
        scheduler.add_task(worker="w", task_id=task, priority=priority, deps=deps)
    assert [next_of(scheduler) for _ in range(3)] == ["input", "other", None]


def test_a_resource_is_used_by_one_at_a_time_until_it_grows(scheduler):
    for number in range(3):
        scheduler.add_task(worker="w", task_id=f"t{number}", resources={"gpu": 1})
    scheduler.add_task(worker="w", task_id="free")
    assert [next_of(scheduler) for _ in range(3)] == ["t0", "free", None]
    scheduler.update_resource("gpu", 2)
    assert [next_of(scheduler) for _ in range(2)] == ["t1", None]
    end(scheduler, "t0", DONE)
    assert next_of(scheduler) == "t2"


def test_free_processes_of_another_worker_keep_the_resource_for_its_more_urgent_tasks(scheduler):
    scheduler.update_resource("gpu", 3)
    for worker, processes in (("urgent", 2), ("w", 1)):
        scheduler.add_worker(worker, {"workers": processes})
        scheduler.get_work(worker=worker, host="h")
    for number in range(3):
        scheduler.add_task(worker="urgent", task_id=f"u{number}", priority=9, resources={"gpu": 1})
        scheduler.add_task(worker="w", task_id=f"w{number}", resources={"gpu": 2})
    assert next_of(scheduler) is None  # two of the three are kept, as `urgent` has two processes
    assert [next_of(scheduler, "urgent") for _ in range(2)] == ["u0", "u1"]
    scheduler.update_resource("gpu", 4)
    assert next_of(scheduler) == "w0"


def test_a_failure_is_tried_again_after_the_delay_and_then_disabled_with_all_that_needs_it(scheduler, clock):
    scheduler.add_task(worker="w", task_id="reader", deps=["t"])
    scheduler.add_task(worker="w", task_id="t")
    assert next_of(scheduler) == "t"
    end(scheduler, "t", FAILED)
    assert next_of(scheduler) is None
    assert scheduler.count_pending("w")["n_pending_tasks"] == 2
    clock.now += 61
    assert next_of(scheduler) == "t"
    end(scheduler, "t", FAILED)
    assert statuses(scheduler) == {"t": DISABLED, "reader": PENDING}
    assert scheduler.count_pending("w")["n_pending_tasks"] == 0
    scheduler.re_enable_task("t")
    clock.now += 61
    assert next_of(scheduler) == "t"


def test_a_task_that_is_added_behind_a_disabled_one_is_not_waited_for(scheduler, clock):
    scheduler.add_task(worker="w", task_id="t")
    for _ in range(2):
        end(scheduler, "t", FAILED)
    scheduler.add_task(worker="w", task_id="reader", deps=["t", "other"])
    scheduler.add_task(worker="w", task_id="other")
    assert scheduler.count_pending("w")["n_pending_tasks"] == 1
    scheduler.add_task(worker="w", task_id="reader", deps=["other"])
    assert scheduler.count_pending("w")["n_pending_tasks"] == 2


def test_a_dead_workers_task_is_run_by_another(scheduler, clock):
    for worker in ("w", "other"):
        scheduler.add_task(worker=worker, task_id="t")
    assert next_of(scheduler) == "t"
    assert scheduler.get_work(worker="other", host="h")["running_tasks"][0]["worker"] == "w"
    clock.now += 90
    scheduler.ping(worker="other")
    clock.now += 20
    assert next_of(scheduler, "other") is None
    assert statuses(scheduler) == {"t": FAILED}
    clock.now += 61
    assert next_of(scheduler, "other") == "t"


def test_tasks_of_a_dead_worker_are_forgotten(scheduler, clock):
    scheduler.add_task(worker="w", task_id="t")
    clock.now += 200
    scheduler.prune()
    assert statuses(scheduler) == {"t": PENDING}
    clock.now += 2000
    scheduler.prune()
    assert statuses(scheduler) == {}


def test_a_task_whose_input_is_to_be_done_again_hides_no_other(scheduler, clock):
    for task, priority, deps in (("t", 0, []), ("reader", 5, ["t"]), ("other", 0, [])):
        scheduler.add_task(worker="w", task_id=task, priority=priority, deps=deps)
    assert next_of(scheduler) == "t"
    end(scheduler, "t", DONE)
    clock.now += 20
    scheduler.add_task(worker="w", task_id="t")
    assert [next_of(scheduler) for _ in range(3)] == ["t", "other", None]
    end(scheduler, "t", DONE)
    assert next_of(scheduler) == "reader"


def forget_the_input(scheduler: Any, clock: Clock, status: str) -> None:
    """Let a worker end an input and die; another one keeps the task that reads it, and the input is forgotten."""
    for task, deps in (("t", []), ("reader", ["t"])):
        scheduler.add_task(worker="dead", task_id=task, deps=deps)
    assert next_of(scheduler, "dead") == "t"
    for _ in range(1 if status == DONE else 2):  # the second failure disables it
        end(scheduler, "t", status, "dead")
    clock.now += 200
    scheduler.prune()
    scheduler.add_task(worker="w", task_id="reader")
    assert scheduler.count_pending("w")["n_pending_tasks"] == (status == DONE)
    clock.now += 2000
    scheduler.ping(worker="w")
    scheduler.prune()
    assert statuses(scheduler) == {"reader": PENDING}
    assert scheduler.count_pending("w")["n_pending_tasks"] == 1


@pytest.mark.parametrize("status", [DONE, FAILED])
def test_a_task_whose_input_is_forgotten_waits_until_the_input_is_done_again(scheduler, clock, status):
    forget_the_input(scheduler, clock, status)
    assert next_of(scheduler) is None
    scheduler.add_task(worker="w", task_id="t")
    assert next_of(scheduler) == "t"
    assert next_of(scheduler) is None
    end(scheduler, "t", DONE)
    assert next_of(scheduler) == "reader"


def test_a_task_that_was_given_out_but_never_started_is_given_again(scheduler):
    scheduler.add_task(worker="w", task_id="t")
    scheduler.add_task(worker="w", task_id="u")
    assert next_of(scheduler, current_tasks=[]) == "t"
    assert next_of(scheduler, current_tasks=[]) == "t"
    assert next_of(scheduler, current_tasks=["t"]) == "u"


def test_tasks_of_a_batch_run_as_one_and_share_its_fate(scheduler):
    scheduler.add_task_batcher("w", "Family", ["day"], max_batch_size=2)
    for day in ("1", "2", "3"):
        scheduler.add_task(worker="w", task_id=f"t{day}", family="Family", params={"day": day}, batchable=True)
    work = scheduler.get_work(worker="w", host="h")
    assert (work["task_id"], work["task_params"]) == (None, {"day": ["1", "2"]})
    scheduler.add_task(worker="w", task_id="both", family="Family", status=RUNNING, batch_id=work["batch_id"])
    end(scheduler, "both", DONE)
    assert statuses(scheduler) == {"t1": DONE, "t2": DONE, "t3": PENDING, "both": DONE}


def test_an_assistant_runs_the_tasks_of_others(scheduler):
    scheduler.add_task(worker="w", task_id="t", runnable=True)
    scheduler.add_task(worker="w", task_id="external", runnable=False)
    assert [next_of(scheduler, "helper", assistant=True) for _ in range(2)] == ["t", None]


def test_a_state_file_can_be_loaded_by_luigi_s_own_scheduler(scheduler, tmp_path):
    scheduler.add_task(worker="w", task_id="reader", deps=["t"])
    scheduler.add_task(worker="w", task_id="t")
    scheduler.dump()
    assert "luigi_prune" not in (tmp_path / "state").read_bytes().decode("latin1")
    for kind in (luigi.scheduler.Scheduler, IndexedScheduler):
        other = kind(state_path=str(tmp_path / "state"))
        other.load()
        assert next_of(other) == "t"
        end(other, "t", DONE)
        assert next_of(other) == "reader"
    with open(tmp_path / "state", "rb") as file:
        assert set(pickle.load(file)[0]) == {"t", "reader"}


def calls_of_a_run(kind: Any, tasks: int) -> int:
    """Return the number of function calls of a run of `tasks` chains of two tasks, and a task that needs them all."""
    scheduler = kind(prune_on_get_work=True, retry_delay=60, remove_delay=1000, worker_disconnect_delay=100)
    profile = cProfile.Profile()
    profile.enable()
    scheduler.add_task(worker="w", task_id="all", deps=[f"reader{number}" for number in range(tasks)])
    for number in range(tasks):
        scheduler.add_task(worker="w", task_id=f"reader{number}", deps=[f"t{number}"])
        scheduler.add_task(worker="w", task_id=f"t{number}")
    done = 0
    while task := next_of(scheduler, current_tasks=[]):
        end(scheduler, task, FAILED if done % 7 == 3 else DONE)
        done += 1
    profile.disable()
    profile.create_stats()
    return sum(entry[1] for entry in profile.stats.values())  # type: ignore[attr-defined]


def test_the_cost_of_a_run_grows_with_its_tasks_not_with_their_square():
    ours, theirs = (
        calls_of_a_run(kind, 120) / calls_of_a_run(kind, 60) for kind in (IndexedScheduler, luigi.scheduler.Scheduler)
    )
    assert ours < 2.2
    assert theirs > 3
