"""The indexed scheduler against Luigi's own: equal answers and equal states after any sequence of requests."""

from __future__ import annotations

import copy
from typing import Any

import luigi.scheduler
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from luigi.scheduler import DISABLED, DONE, FAILED, PENDING, RUNNING, SUSPENDED, UNKNOWN

from luigi_prune.scheduling import indexed_scheduler
from luigi_prune.scheduling.indexed_scheduler import IndexedScheduler

WORKERS = ["w0", "w1", "w2"]
TASKS = [f"t{number}" for number in range(8)]
RETRY, DISCONNECT, REMOVE, PERSIST = 30.0, 100.0, 300.0, 1000.0

Request = tuple[str, dict[str, Any]]


class Clock:
    """Stands for `time` in the schedulers' modules; no two tasks of one scheduler are added at the same time."""

    def __init__(self) -> None:
        self.now = 1e6
        self.scheduler: Any = None

    def time(self) -> float:
        return self.now + 1e-4 * (len(self.scheduler._state._tasks) if self.scheduler else 0)


class ForgettingState(luigi.scheduler.SimpleTaskState):
    """Luigi's state without one fault: a task that was removed stays among the tasks of its workers, with its last
    status, and may be counted as pending for ever."""

    def inactivate_tasks(self, delete_tasks: Any) -> None:
        for worker in self._active_workers.values():
            worker.tasks -= {self._tasks[task_id] for task_id in delete_tasks}
        super().inactivate_tasks(delete_tasks)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(luigi.scheduler, "time", fake)
    monkeypatch.setattr(indexed_scheduler, "time", fake)
    return fake


def schedulers(clock: Clock, folder: Any, **changes: Any) -> list[Any]:
    """Return Luigi's scheduler and ours."""
    config = {"retry_delay": RETRY, "worker_disconnect_delay": DISCONNECT, "remove_delay": REMOVE, "retry_count": 3,
              "disable_window": 500, "disable_persist": PERSIST, "stable_done_cooldown_secs": 5,
              "disable_hard_timeout": 5000, **changes}  # fmt: skip
    clock.scheduler = None
    pair = []
    for number, kind in enumerate((luigi.scheduler.Scheduler, IndexedScheduler)):
        scheduler = kind(resources={"gpu": 2, "slot": 3}, state_path=str(folder / f"state{number}"), **config)
        pair.append(scheduler)
    state = ForgettingState(pair[0]._config.state_path)
    state._metrics_collector = pair[0]._state._metrics_collector
    pair[0]._state = state
    return pair


def ask(clock: Clock, scheduler: Any, request: Request) -> Any:
    """Return the answer to a request, or the exception that it raises."""
    clock.scheduler = scheduler
    method, arguments = request
    arguments = dict(copy.deepcopy(arguments))
    if method == "get_work" and arguments["current_tasks"] is not None:
        arguments["current_tasks"] = [
            task.id
            for task in scheduler._state._status_tasks[RUNNING].values()
            if task.worker_running == arguments["worker"] and task.id not in arguments["current_tasks"]
        ]
    if method == "end":  # a worker reports the end of a task that it runs
        running = sorted(scheduler._state._status_tasks[RUNNING])
        if not running:
            return None
        task = scheduler._state.get_task(running[arguments["which"] % len(running)])
        method = "add_task"
        arguments = {"task_id": task.id, "status": arguments["status"], "worker": task.worker_running,
                     "runnable": None, "family": task.family, "params": task.params, "expl": "[]",
                     "resources": task.resources, "new_deps": [dep for dep in arguments["new_deps"] if dep < task.id],
                     }  # fmt: skip
    try:
        answer = getattr(scheduler, method)(**arguments)
    except Exception as error:
        return repr(error)
    if isinstance(answer, dict) and "running_tasks" in answer:
        answer["running_tasks"].sort(key=lambda running: str(running["task_id"]))
    return answer


def shown(scheduler: Any) -> dict[str, Any]:
    """Return all that a scheduler keeps of tasks."""
    tasks = {}
    for task_id, task in scheduler._state._tasks.items():
        kept = dict(vars(task))
        kept["workers"] = list(task.workers)
        kept["failures"] = list(task.failures)
        tasks[task_id] = kept
    by_status = {status: list(found) for status, found in scheduler._state._status_tasks.items() if found}
    return {"tasks": tasks, "statuses": {status: sorted(found) for status, found in by_status.items()}}


def pages(clock: Clock, scheduler: Any) -> list[Any]:
    """Return what the web page shows."""
    requests = [("task_list", {"status": status, "upstream_status": upstream}) for status, upstream in (
        (PENDING, "UPSTREAM_DISABLED"), (PENDING, ""), (RUNNING, ""), (DISABLED, ""))]  # fmt: skip
    requests += [("worker_list", {}), ("resource_list", {}), ("graph", {})]
    return [ask(clock, scheduler, request) for request in requests]


def some(values: list[str], most: int = 3) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), max_size=most, unique=True)


WORKER = st.sampled_from([*WORKERS, "w0", "w0"])


@st.composite
def additions(draw: st.DrawFn, plain: bool = False) -> Request:
    number = draw(st.integers(0, len(TASKS) - 1))
    odd = not plain and draw(st.integers(0, 2)) == 0
    arguments: dict[str, Any] = {
        "task_id": TASKS[number], "worker": draw(WORKER), "status": PENDING,
        "deps": draw(some(TASKS[:number], 2)) if number else None,
        "priority": draw(st.sampled_from([0, 0, 1, 2.5])),
        "resources": draw(st.sampled_from([{}, {}, {}, {"gpu": 1}, {"gpu": 2}, {"slot": 1}, {"unknown": 1}])),
        "family": f"Family{number % 2}", "params": {"a": str(number), "b": str(number % 4 // 2)},
        "batchable": number % 2 == 0,
    }  # fmt: skip
    if odd:
        arguments |= {
            "status": draw(st.sampled_from([DONE, FAILED, RUNNING, DISABLED, SUSPENDED, UNKNOWN])),
            "runnable": draw(st.booleans()),
            "assistant": draw(st.booleans()),
            "retry_policy_dict": draw(st.sampled_from([{}, {"retry_count": 1}, {"retry_count": None}])),
        }
        arguments["deps"] = draw(st.sampled_from([None, arguments["deps"]]))
    return "add_task", arguments


TASK = st.sampled_from(TASKS)
WORK: st.SearchStrategy[Request] = st.builds(
    lambda worker, current, assistant: (
        "get_work",
        {"worker": worker, "host": "h", "current_tasks": current, "assistant": assistant},
    ),
    WORKER,
    st.sampled_from([None, [], [], [], TASKS[:4]]),  # all running ones but these
    st.sampled_from([False] * 6 + [True]),
)
END: st.SearchStrategy[Request] = st.builds(
    lambda which, status, new: ("end", {"which": which, "status": status, "new_deps": new}),
    st.integers(0, 7),
    st.sampled_from([DONE, DONE, DONE, FAILED, PENDING]),
    st.one_of(st.just([]), some(TASKS, 2)),
)
WAIT: st.SearchStrategy[Request] = st.builds(
    lambda seconds: ("wait", {"seconds": seconds}), st.sampled_from([1.0, RETRY, DISCONNECT / 2, REMOVE, PERSIST])
)
BATCHER: st.SearchStrategy[Request] = st.builds(
    lambda worker, size: (
        "add_task_batcher",
        {"worker": worker, "task_family": "Family0", "batched_args": ["a"], "max_batch_size": size},
    ),
    WORKER,
    st.sampled_from([2, 3, float("inf")]),
)
RARE: list[st.SearchStrategy[Request]] = [
    st.builds(lambda worker: ("ping", {"worker": worker}), WORKER),
    st.just(("prune", {})),
    st.builds(lambda worker, n: ("add_worker", {"worker": worker, "info": {"workers": n}}), WORKER, st.integers(0, 3)),
    st.builds(lambda worker: ("disable_worker", {"worker": worker}), WORKER),
    st.builds(lambda worker: ("count_pending", {"worker": worker}), WORKER),
    st.sampled_from([("pause", {}), ("unpause", {}), ("unpause", {})]),
    st.builds(lambda name, task: (name, {"task_id": task}),
              st.sampled_from(["forgive_failures", "mark_as_done", "re_enable_task"]), TASK),
    st.builds(lambda name, amount: ("update_resource", {"resource": name, "amount": amount}),
              st.sampled_from(["gpu", "slot", "unknown"]), st.integers(0, 3)),
    st.builds(lambda task: ("decrease_running_task_resources",
                            {"task_id": task, "decrease_resources": {"gpu": 1}}), TASK),
    st.just(("restart", {})),
    st.builds(lambda gpu, slot: ("update_resources", {"gpu": gpu, "slot": slot}), st.integers(0, 3), st.integers(0, 3)),
    st.builds(lambda worker, n: ("set_worker_processes", {"worker": worker, "n": n}), WORKER, st.integers(0, 3)),
    st.builds(lambda worker: ("announce_scheduling_failure", {
        "task_name": "t", "family": "Family0", "params": {}, "expl": "x", "owners": [], "worker": worker}), WORKER),
    st.builds(lambda worker, assistant: ("add_worker", {"worker": worker, "info": {"assistant": assistant}}),
              WORKER, st.booleans()),
    # fails when a part of the task is changed
    st.builds(lambda worker, task: ("add_task", {"worker": worker, "task_id": task, "deps": [], "new_deps": [[]]}),
              WORKER, TASK),
]  # fmt: skip
USUAL = [WORK] * 8 + [END] * 6 + [additions()] * 2 + [WAIT, st.one_of(*RARE)]
REQUESTS = st.builds(
    lambda batcher, graph, work: batcher + graph + work,
    st.lists(BATCHER, max_size=1),
    st.lists(additions(plain=True), min_size=6, max_size=14),
    # not one_of, which would choose among the rare ones as often as among the usual
    st.lists(st.integers(0, len(USUAL) - 1).flatmap(lambda kind: USUAL[kind]), min_size=25, max_size=40),
)


def play(clock: Clock, pair: list[Any], requests: list[Request]) -> None:
    """Put the requests to both schedulers, and compare after each."""
    for request in requests:
        clock.now += 1
        if request[0] == "wait":
            clock.now += request[1]["seconds"]
        elif request[0] == "restart":  # the state of each is a file of the other
            clock.scheduler = None
            for scheduler in pair:
                scheduler.dump()
            pair[0]._state._state_path, pair[1]._state._state_path = (
                pair[1]._state._state_path,
                pair[0]._state._state_path,
            )
            for scheduler in pair:
                scheduler.load()
        else:
            theirs, ours = (ask(clock, scheduler, request) for scheduler in pair)
            assert ours == theirs, request
        assert shown(pair[1]) == shown(pair[0]), request
    assert pages(clock, pair[1]) == pages(clock, pair[0])


ROOMY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(ROOMY, max_examples=100)
@given(requests=REQUESTS, pruning=st.booleans(), retry=st.sampled_from([RETRY, 0.0, -1.0]))
def test_any_requests_get_the_same_answers(clock, tmp_path, requests, pruning, retry):
    clock.now = 1e6
    play(clock, schedulers(clock, tmp_path, prune_on_get_work=pruning, retry_delay=retry), requests)


def test_a_removed_task_is_gone_from_its_workers_and_from_the_state_file(clock, tmp_path):
    ours = schedulers(clock, tmp_path)[1]
    clock.scheduler = ours
    ours.add_task(worker="w0", task_id="t0", assistant=True)  # nobody's, and so removed after a while
    ours.prune()
    clock.now += REMOVE + 1
    ours.add_task(worker="w0", task_id="t1")
    ours.prune()
    assert [task.id for task in ours._state.get_worker("w0").tasks] == ["t1"]
    ours.dump()
    assert b"t0" not in (tmp_path / "state1").read_bytes()


def test_the_failed_whole_of_a_batch_does_not_count_once_it_is_forgotten(clock, tmp_path):
    pair = schedulers(clock, tmp_path, retry_count=9)
    batch = {"family": "Family0", "worker": "w0"}
    parts = [
        ("add_task", {**batch, "task_id": task, "params": {"a": task}, "batchable": True}) for task in ("t0", "t2")
    ]
    work = {"worker": "w0", "host": "h", "current_tasks": []}
    batcher = {"worker": "w0", "task_family": "Family0", "batched_args": ["a"], "max_batch_size": 2}
    play(clock, pair, [("add_task_batcher", batcher), *parts])
    answers = [ask(clock, scheduler, ("get_work", work)) for scheduler in pair]
    whole = {**batch, "task_id": "both", "batch_id": answers[0]["batch_id"]}
    play(
        clock,
        pair,
        [
            ("add_task", {**whole, "status": RUNNING}),
            ("add_task", {**whole, "status": FAILED, "expl": "[]"}),
            ("count_pending", {"worker": "w0"}),
            ("prune", {}),
            ("count_pending", {"worker": "w0"}),
        ],
    )
    assert [scheduler.count_pending("w0")["n_pending_tasks"] for scheduler in pair] == [2, 2]
