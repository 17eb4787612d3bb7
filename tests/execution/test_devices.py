"""Which GPUs are seen, by whom, and how many jobs run at once: with a pretended /dev, as no GPU is at hand."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from listening import Ear, submit

from luigi_prune.errors import ConfigError
from luigi_prune.execution import devices
from luigi_prune.execution.backends import choose
from luigi_prune.execution.devices import process_count, uses_gpu, visible_gpus
from luigi_prune.execution.inline import InlineBackend
from luigi_prune.execution.job import ComputeSettings
from luigi_prune.execution.local.local_backend import LocalBackend
from luigi_prune.execution.slots import Slots

EVERYTHING_ELSE = ["null", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "nvidia-caps"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that pretends GPUs in /dev, and a CUDA_VISIBLE_DEVICES (None: not set)."""
    listdir = os.listdir

    def pretend(gpus: int, visible: str | None = None) -> None:
        names = [*EVERYTHING_ELSE, *(f"nvidia{index}" for index in range(gpus))]
        monkeypatch.setattr(devices.os, "listdir", lambda path=".": names if path == "/dev" else listdir(path))
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (0, None, []),
        (4, None, ["0", "1", "2", "3"]),
        (4, "", []),
        (4, "-1", []),
        (4, "2", ["2"]),
        (4, " 3 , 1", ["3", "1"]),  # in its order
        (4, "0,-1,1", ["0"]),  # CUDA reads no further
        (4, "1,7,2", ["1"]),
        (4, "none", []),
        (4, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-1"]),
        (1, "MIG-a,MIG-b", ["MIG-a", "MIG-b"]),  # parts of one GPU
        (0, "0,1", []),  # a variable makes no GPU
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(machine, gpus, visible, expected):
    machine(gpus, visible)
    assert visible_gpus() == expected
    assert uses_gpu(ComputeSettings()) is bool(expected)
    assert not uses_gpu(ComputeSettings(device="cpu"))
    slots = Slots(ComputeSettings())
    assert slots.cuda is bool(expected)
    if expected:
        assert slots.total == len(expected)  # one job per GPU
        taken = [slots.take("Prune") for _ in expected]
        assert sorted(gpu for gpus in taken for gpu in gpus) == sorted(expected)
        assert [slots.environment(gpus[0])["CUDA_VISIBLE_DEVICES"] for gpus in taken] == [gpus[0] for gpus in taken]
    else:
        assert slots.environment(slots.take("Prune")[0])["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("visible", ["0,0", "1,01", "GPU-a,0,GPU-a"])
def test_a_gpu_that_stands_twice_is_refused(machine, visible):
    machine(2, visible)
    with pytest.raises(ConfigError, match="twice") as caught:
        Slots(ComputeSettings())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("visible", ["", "-1", " "])
def test_cuda_on_a_machine_whose_gpus_are_hidden_is_refused(machine, visible):
    machine(2, visible)
    for backend in (InlineBackend, LocalBackend):
        with pytest.raises(ConfigError, match=r"\[compute\] device: cuda, but no GPU is visible .*use cpu or auto"):
            backend(ComputeSettings(device="cuda", processes={"TrainBase": 1}))


@pytest.mark.parametrize(("visible", "expected"), [(None, ["0", "1", "2"]), ("2,GPU-b", ["2", "GPU-b"]), ("1", ["1"])])
def test_a_training_over_all_gpus_has_a_process_on_each_and_the_machine_to_itself(machine, visible, expected):
    machine(3, visible)
    settings = ComputeSettings(processes={"TrainBase": "gpus", "Retrain": 1})
    assert process_count(settings, "TrainBase") == len(expected)
    slots = Slots(settings)
    assert slots.needed("TrainBase") == slots.total == len(expected)
    assert slots.take("TrainBase") == expected  # rank by rank
    assert slots.free == 0
    slots.free_slots("TrainBase", expected)
    assert slots.needed("Retrain") == slots.needed("Prune") == 1


@pytest.mark.parametrize(
    ("gpus", "visible", "device", "why"),
    [
        (0, None, "auto", "no GPU is visible; use a number"),
        (0, None, "cuda", "no GPU is visible; use a number"),
        (2, "", "auto", "no GPU is visible (CUDA_VISIBLE_DEVICES=''); use a number"),
        (2, None, "cpu", "device=cpu uses none; use a number"),
    ],
)
def test_a_process_per_gpu_without_a_gpu_is_refused_in_one_line(machine, gpus, visible, device, why):
    machine(gpus, visible)
    for backend in ("auto", "inline", "local"):
        with pytest.raises(ConfigError) as caught:
            choose(ComputeSettings(backend=backend, device=device, processes={"TrainBase": "gpus"}))
        assert str(caught.value) == f"luigi.cfg: [compute.TrainBase] processes = gpus: one process per GPU, but {why}"


def test_more_processes_than_visible_gpus_are_refused(machine):
    machine(4, "3,1")
    with pytest.raises(ConfigError, match=r"processes = 3: only 2 GPU\(s\) visible \(CUDA_VISIBLE_DEVICES='3,1'"):
        Slots(ComputeSettings(processes={"Retrain": 3}))


@pytest.mark.usefixtures("light_server")
def test_each_process_of_a_local_job_sees_its_own_gpu(machine, make_backend, make_job, facts):
    machine(4, "2,0,GPU-c")
    backend = make_backend(device="auto", processes={"TrainBase": "gpus"})
    assert backend.slots == 3
    ears = [submit(backend, make_job("facts", tag="wide", family="TrainBase"))]
    ears += [submit(backend, make_job("facts", tag=tag)) for tag in ("a", "b", "c")]
    assert [ear.outcome().status for ear in ears] == ["done"] * 4
    wide = [facts("wide", rank) for rank in range(3)]
    assert [found["environment"]["CUDA_VISIBLE_DEVICES"] for found in wide] == ["2", "0", "GPU-c"]
    assert {found["world_size"] for found in wide} == {3}
    assert {found["device"] for found in (*wide, facts("a"))} == {"cuda:0"}
    assert facts("a")["environment"]["CUDA_VISIBLE_DEVICES"] in ("2", "0", "GPU-c")


@pytest.mark.parametrize(
    ("gpus", "device", "expected"),
    [(1, "auto", "cuda:0"), (0, "auto", "cpu"), (1, "cpu", "cpu"), (0, "cuda", "cuda:0")],
)
def test_the_inline_backend_gives_its_job_the_device_too(machine, make_job, facts, gpus, device, expected):
    machine(gpus)
    settings = ComputeSettings(device=device, processes={"TrainBase": "gpus" if gpus and device != "cpu" else 1})
    ear = Ear()
    InlineBackend(settings).submit(make_job("facts"), ear)
    assert (ear.outcome().status, facts()["device"]) == ("done", expected)


def test_inline_has_one_process(machine):
    machine(2)
    with pytest.raises(ConfigError, match="'inline' runs one process per job"):
        InlineBackend(ComputeSettings(processes={"TrainBase": "gpus"}))


@pytest.mark.parametrize(("gpus", "expected"), [(1, InlineBackend), (2, LocalBackend)])
def test_auto_is_local_where_there_are_several_gpus(machine, gpus, expected):
    machine(gpus)
    backend = choose(ComputeSettings(processes={"TrainBase": "gpus", "Retrain": "gpus"}))
    try:
        assert type(backend) is expected
    finally:
        backend.close()
