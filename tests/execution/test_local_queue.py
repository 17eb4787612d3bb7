"""Several jobs: slots, order, jobs of several processes, cancelling and closing."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from listening import SLOW_SECONDS, Ear, running, submit, wait_until

from luigi_prune.errors import ConfigError
from luigi_prune.execution import devices, slots
from luigi_prune.execution.job import ComputeSettings
from luigi_prune.execution.slots import Slots

pytestmark = [pytest.mark.usefixtures("light_server"), pytest.mark.long]


def test_no_more_jobs_at_once_than_slots_and_in_order(make_backend, make_job, facts, tmp_path):
    backend = make_backend(jobs=2)
    ears = [submit(backend, make_job("hold", tag=str(number))) for number in range(5)]
    facts("0"), facts("1")
    assert not (tmp_path / "2-0.json").exists()
    backend.cancel(make_job("hold", tag="0"))
    facts("2")
    assert not (tmp_path / "3-0.json").exists()
    (tmp_path / "release").touch()
    assert [ear.outcome().status for ear in ears] == ["failed", "done", "done", "done", "done"]
    began = [facts(str(number))["began"] for number in range(5)]
    assert max(began[:2]) < began[2] < began[3]
    assert began[2] < began[4]


def test_a_wide_job_is_not_overtaken(make_backend, make_job, facts, tmp_path):
    backend = make_backend(jobs=2, processes={"TrainBase": 2})
    ears = [submit(backend, make_job("hold", tag="narrow"))]
    facts("narrow")
    ears.append(submit(backend, make_job("hold", tag="wide", family="TrainBase")))
    ears.append(submit(backend, make_job("hold", tag="late")))
    ears.append(submit(backend, make_job("facts", tag="last")))
    backend.cancel(make_job("hold", tag="narrow"))
    facts("wide", 0), facts("wide", 1)
    assert not (tmp_path / "late-0.json").exists()  # both slots are the wide job's
    (tmp_path / "release").touch()
    assert [ear.outcome().status for ear in ears] == ["failed", "done", "done", "done"]
    assert facts("late")["began"] > facts("wide", 1)["began"]


def test_a_job_wider_than_the_machine_still_starts(make_backend, make_job, facts):
    backend = make_backend(jobs=1, processes={"TrainBase": 3})
    assert submit(backend, make_job("facts", family="TrainBase")).outcome().status == "done"
    assert [facts(rank=rank)["rank"] for rank in range(3)] == [0, 1, 2]


def test_the_processes_of_a_job_find_each_other_and_each_attempt_anew(make_backend, make_job, facts):
    backend = make_backend(jobs=2, processes={"TrainBase": 2})
    meetings = set()
    for tag in ("one", "two"):
        ear = submit(backend, make_job("facts", tag=tag, family="TrainBase"))
        assert ear.outcome().status == "done"
        both = [facts(tag, rank) for rank in (0, 1)]
        assert [found["world_size"] for found in both] == [2, 2]
        assert both[0]["init_method"] == both[1]["init_method"]
        assert both[0]["pid"] != both[1]["pid"]
        assert ear.starts == 1
        meetings.add(both[0]["init_method"])
    assert len(meetings) == 2
    for meeting in meetings:
        assert not os.path.exists(os.path.dirname(meeting.removeprefix("file://")))


def test_a_process_that_fails_stops_the_others_of_its_job(make_backend, make_job, facts, tmp_path):
    backend = make_backend(jobs=2, processes={"TrainBase": 2})
    ear = submit(backend, make_job("hold_but_fail_rank", family="TrainBase"))
    message = ear.outcome().message
    assert message.startswith("process 1 of 2: ")
    assert "rank one has had enough" in message
    assert (tmp_path / "job-0.saved").exists()  # rank 0 was asked, not killed
    assert not running(facts()["pid"])
    assert len(ear.outcomes) == 1


def test_a_process_that_is_killed_stops_the_others_of_its_job(make_backend, make_job, facts):
    backend = make_backend(jobs=2, grace_seconds=0.3, processes={"TrainBase": 2})
    ear = submit(backend, make_job("hold", family="TrainBase", stubborn=True))
    pids = [facts(rank=rank)["pid"] for rank in (0, 1)]
    os.kill(pids[1], signal.SIGKILL)
    message = ear.outcome().message
    assert message.startswith("process 1 of 2: killed by signal 9")
    assert not any(running(pid) for pid in pids)


def test_a_waiting_job_is_cancelled_without_having_started(make_backend, make_job, facts, tmp_path):
    backend = make_backend(jobs=1)
    holding = submit(backend, make_job("hold", tag="held"))
    waiting = submit(backend, make_job("hold", tag="waiting"))
    facts("held")
    backend.cancel(make_job("hold", tag="waiting"))
    assert waiting.outcome().message == "cancelled"
    assert not waiting.outcome().retry
    assert waiting.starts == 0
    assert holding.outcomes == []
    (tmp_path / "release").touch()
    assert holding.outcome().status == "done"
    assert not (tmp_path / "waiting-0.json").exists()


def test_a_running_job_is_asked_to_save_when_it_is_cancelled(make_backend, make_job, facts, tmp_path):
    backend = make_backend(jobs=1)
    ear = submit(backend, make_job("hold"))
    pid = facts()["pid"]
    backend.cancel(make_job("hold"))
    assert (ear.outcome().status, ear.outcome().message) == ("failed", "cancelled")
    assert (tmp_path / "job-0.saved").exists()
    assert not running(pid)
    again = submit(backend, make_job("facts", tag="again"))
    assert again.outcome().status == "done"


def test_a_job_that_does_not_listen_is_killed_with_its_own_processes(make_backend, make_job, facts):
    backend = make_backend(jobs=1, grace_seconds=0.2)
    ear = submit(backend, make_job("hold_with_children", stubborn=True))
    group = facts()["pid"]
    members = _group(group)
    assert len(members) == 3
    backend.cancel(make_job("hold_with_children", stubborn=True))
    assert ear.outcome().message == "cancelled"
    wait_until(lambda: not any(running(pid) for pid in members))


@pytest.mark.usefixtures("slow_server")
def test_a_job_cancelled_before_the_server_is_warm_never_runs(make_backend, make_job, facts, tmp_path):
    backend = make_backend(jobs=1)
    ear = submit(backend, make_job("hold", tag="early"))
    backend.cancel(make_job("hold", tag="early"))
    assert ear.outcome().message == "cancelled"
    assert submit(backend, make_job("facts", tag="later")).outcome().status == "done"
    assert not (tmp_path / "early-0.json").exists()


def test_a_job_submitted_again_after_its_cancellation_runs(make_backend, make_job, tmp_path):
    backend = make_backend(jobs=1)
    first = submit(backend, make_job("hold"))
    backend.cancel(make_job("hold"))
    second = submit(backend, make_job("hold"))
    (tmp_path / "release").touch()
    assert first.outcome().message == "cancelled"
    assert second.outcome().status == "done"


def test_close_ends_everything_and_may_be_called_twice(make_backend, make_job, facts):
    backend = make_backend(jobs=2, grace_seconds=0.2)
    ears = [submit(backend, make_job("hold", tag=str(number), stubborn=number == 1)) for number in range(4)]
    pids = [facts(tag)["pid"] for tag in ("0", "1")]
    server = os.getpgid(pids[0]) and _parent(pids[0])
    backend.close()
    assert [len(ear.outcomes) for ear in ears] == [1, 1, 1, 1]
    assert {ear.outcomes[0].message for ear in ears} == {"cancelled"}
    assert not any(running(pid) for pid in [*pids, server])
    backend.close()
    backend.cancel(make_job("hold", tag="0"))
    with pytest.raises(RuntimeError, match="closed"):
        backend.submit(make_job("facts"), Ear())


def test_ctrl_c_while_closing_ends_the_grace_period(make_backend, make_job, facts):
    backend = make_backend(jobs=1, grace_seconds=1e6)
    ear = submit(backend, make_job("hold", stubborn=True))
    facts()

    def interrupt() -> None:
        wait_until(lambda: any(attempt.cancelled for attempt in backend._running))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        backend.close()
    assert ear.outcomes[0].message == "cancelled"
    assert not running(facts()["pid"])


@pytest.mark.usefixtures("slow_server")
def test_close_before_the_server_is_warm_does_not_wait_for_it(make_backend, make_job, tmp_path):
    began = time.monotonic()
    backend = make_backend(jobs=1)
    ear = submit(backend, make_job("hold"))
    backend.close()
    assert ear.outcome().message == "cancelled"
    assert time.monotonic() - began < SLOW_SECONDS
    time.sleep(SLOW_SECONDS)
    assert not (tmp_path / "job-0.json").exists()


def test_a_listener_may_submit_cancel_and_close(make_backend, make_job, tmp_path):
    backend = make_backend(jobs=1)

    class Chain(Ear):
        def ended(self, outcome) -> None:
            backend.submit(make_job("facts", tag="second"), last)
            super().ended(outcome)

    class Last(Ear):
        def ended(self, outcome) -> None:
            backend.cancel(make_job("facts", tag="second"))
            backend.close()
            super().ended(outcome)

    last = Last()
    backend.submit(make_job("facts", tag="first"), Chain())
    assert last.outcome().status == "done"
    backend.close()
    assert (tmp_path / "second-0.json").exists()


def test_slots_follow_cores_threads_and_gpus(monkeypatch):
    monkeypatch.setattr(slots, "available_cores", lambda: 8)
    assert Slots(ComputeSettings(device="cpu", threads=3)).total == 2
    assert Slots(ComputeSettings(device="cpu", threads=16)).total == 1
    assert Slots(ComputeSettings(device="cpu", threads=3, jobs=5)).total == 5
    monkeypatch.setattr(devices, "machine_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, 1")
    for device in ("cuda", "auto"):
        assert Slots(ComputeSettings(device=device, threads=3)).total == 2


def test_gpus_are_shared_out_evenly_and_each_process_sees_one(monkeypatch):
    monkeypatch.setattr(devices, "machine_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,1")
    four = Slots(ComputeSettings(device="cuda", jobs=4, processes={"TrainBase": 2}))
    first, second = four.take("Retrain"), four.take("Retrain")
    assert sorted(first + second) == ["1", "GPU-a"]
    four.free_slots("Retrain", first)
    assert four.take("Retrain") == first
    four.free_slots("Retrain", second)
    assert sorted(four.take("TrainBase")) == ["1", "GPU-a"]
    assert four.free == 1
    assert four.environment("1")["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_device_that_only_torch_can_see_is_left_alone(monkeypatch):
    monkeypatch.setattr(devices, "machine_gpus", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one = Slots(ComputeSettings(device="cuda"))
    assert (one.total, one.take("Retrain")) == (1, [""])
    assert "CUDA_VISIBLE_DEVICES" not in one.environment("")


def test_impossible_numbers_of_processes_are_refused(monkeypatch):
    monkeypatch.setattr(devices, "machine_gpus", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ConfigError, match=r"\[compute.Retrain\] processes = 3: only 2 GPU"):
        Slots(ComputeSettings(device="cuda", processes={"Retrain": 3}))
    with pytest.raises(ConfigError, match=r"processes = 0: expected at least 1"):
        Slots(ComputeSettings(device="cpu", processes={"Retrain": 0}))


def _group(leader: int) -> list[int]:
    members = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit():
            try:
                if os.getpgid(int(name)) == leader:
                    members.append(int(name))
            except ProcessLookupError:
                continue
    return members


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])
