"""Jobs on a device: where they compute, what they set in their process, and what they say when memory runs out."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from luigi_prune import api, registry
from luigi_prune.compute.metrics.evaluation import evaluate
from luigi_prune.compute.pruning import prune as prune_network
from luigi_prune.compute.training.run import _mixed_precision
from luigi_prune.errors import ConfigError, OutOfMemory
from luigi_prune.execution.job import Context, Job
from luigi_prune.execution.job_run import run as run_job
from luigi_prune.jobs.process import prepare_process
from luigi_prune.results.hdf5_file import read_result
from luigi_prune.workflow.job_task import JobTask, walk
from luigi_prune.workflow.settings import compute_settings
from tests.compute.digits_training import CPU, run, settings, splits_of
from tests.compute.pretended_device import OnDevice, pretended_device
from tests.experiments import reports, write_experiment

# ------------------------------------------------------------------------------------------------------ whole graphs


def run_jobs(file: Path, device: str) -> None:
    """Run all jobs of an experiment but the last two, which read tables, in this process."""
    for task in walk(*reports(file)):
        if isinstance(task, JobTask) and task.task_family not in ("Aggregate", "Report"):
            outcome = run_job(task.job(), Context(device=device))
            assert outcome.status == "done", outcome.message


def test_every_job_computes_on_the_device_what_it_computes_on_the_cpu(tmp_path, monkeypatch):
    changes: dict[str, Any] = {
        "experiments__methods": ["PFPNetRand", "ALDSNet", "SnipNet"],
        "experiments__spacing": [{"type": "manual", "values": [0.4]}],
        "training__lossKwargs": {"weight": [1.0] * 9 + [2.0]},
        "training__optimizerKwargs": {"lr": 0.1, "momentum": 0.9, "fused": False},  # the pretended device has no kernel
    }
    devices: list[bool] = []

    def noting(network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        devices.append(all(isinstance(parameter, OnDevice) for parameter in network.parameters()))
        return prune_network(network, *args, **kwargs)

    monkeypatch.setattr("luigi_prune.compute.pruning.prune", noting)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    run_jobs(write_experiment(tmp_path / "here", **changes), "cpu")
    assert devices == [False] * 3
    with pretended_device() as device:
        run_jobs(write_experiment(tmp_path / "there", **changes), str(device))
    assert devices[3:] == [True] * 3
    results = sorted((tmp_path / "here").rglob("*.h5"))
    assert sum("evaluate" in path.name for path in results) == 4  # the trained network, too
    for path in results:
        here, there = (read_result(tmp_path / name / path.relative_to(tmp_path / "here")) for name in ("here", "there"))
        assert list(there.arrays) == list(here.arrays)
        for name, array in here.arrays.items():
            if array.dtype.kind == "f":  # norms are summed up in another order
                np.testing.assert_allclose(there.arrays[name], array, rtol=1e-12, err_msg=f"{path.name}: {name}")
            else:
                np.testing.assert_array_equal(there.arrays[name], array, err_msg=f"{path.name}: {name}")


def test_scores_that_are_remembered_come_back_to_the_device(tmp_path):
    changes = {
        "experiments__mode": "retrain",
        "experiments__methods": ["SnipNet"],
        "experiments__spacing": [{"type": "manual", "values": [0.5, 0.3]}],
    }
    with pretended_device() as device:
        run_jobs(write_experiment(tmp_path, **changes), str(device))
    assert len(list(tmp_path.rglob("scores/*.h5"))) == 1
    assert len(list(tmp_path.rglob("*-prune-*.h5"))) == 2


# ------------------------------------------------------------------------------------------------- mixed precision


def test_the_type_of_mixed_precision(monkeypatch):
    cuda = torch.device("cuda", 0)
    assert _mixed_precision(settings(), cuda) is torch.float16
    assert _mixed_precision(settings(enable_amp=False), cuda) is None
    assert _mixed_precision(settings(optimizer="LBFGS"), cuda) is None
    half = settings(amp_dtype="bfloat16")
    assert _mixed_precision(half, CPU) is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert _mixed_precision(half, cuda) is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match=r"training\.ampDtype: cuda:0 has no bfloat16; choose float16"):
        _mixed_precision(half, cuda)


def test_bfloat16_is_used_without_scaling_gradients(monkeypatch):
    """Autocast in bfloat16 exists on a CPU, too: the step is the one that a GPU takes."""
    monkeypatch.setattr("luigi_prune.compute.training.run._mixed_precision", lambda *_: torch.bfloat16)
    types: set[torch.dtype] = set()
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network[1].register_forward_hook(
        lambda module, inputs, output: types.add(output.dtype) if module.training else None
    )
    scaled: list[object] = []
    monkeypatch.setattr(torch.amp.GradScaler, "scale", lambda self, value: scaled.append(value) or value)
    before = network[1].weight.detach().clone()
    result = run(settings(num_epochs=1, amp_dtype="bfloat16"), network)
    assert types == {torch.bfloat16}
    assert scaled == []
    assert result.state["1.weight"].dtype is torch.float32
    assert not torch.equal(result.state["1.weight"], before)


class Louder(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 100 * x.flatten(1)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_momenta_are_defined_if_the_first_steps_are_skipped(dampening, monkeypatch):
    """Gradient scaling starts with a factor at which gradients overflow, and float16 exists on a CPU, too."""
    monkeypatch.setattr("luigi_prune.compute.training.run._mixed_precision", lambda *_: torch.float16)
    monkeypatch.setattr(torch, "empty_like", lambda like, **_: torch.full_like(like, torch.nan))  # as memory may be
    scales: list[float] = []
    update = torch.amp.GradScaler.update
    monkeypatch.setattr(torch.amp.GradScaler, "update", lambda self: (scales.append(self.get_scale()), update(self)))
    kwargs = {"lr": 1e-4, "momentum": 0.9, "dampening": dampening}

    def trained(**more: Any) -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(Louder(), nn.Linear(64, 10))
        return run(settings(num_epochs=2, optimizer_kwargs={**kwargs, **more}), network).state["1.weight"]

    weight = trained()
    assert scales[1] < scales[0]
    torch.testing.assert_close(weight, trained(fused=False))


# ------------------------------------------------------------------------------------------------------ determinism


def note_algorithms(request: dict[str, Any], context: Context) -> None:
    request["noted"].append(
        (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )
    )
    if request.get("fails"):
        raise ValueError("on purpose")


def job_of(function: str, **request: Any) -> Job:
    return Job(f"{__name__}:{function}", "a job", "Prune", {"inputs": {}, **request}, "", "")


@pytest.mark.parametrize("fails", [False, True])
def test_a_deterministic_job_leaves_the_process_as_it_was(fails, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    noted: list[tuple[bool, bool, str | None]] = []
    for deterministic in (True, False):
        job = job_of("note_algorithms", noted=noted, fails=fails)
        assert run_job(job, Context(deterministic=deterministic)).status == ("failed" if fails else "done")
    assert noted[0] == (True, False, ":4096:8")
    assert noted[1][:2] == (False, True)


def unpool(request: dict[str, Any], context: Context) -> None:
    nn.functional.max_unpool1d(torch.zeros(1, 1, 2), torch.tensor([[[0, 2]]]), 2)


def test_an_operation_without_a_deterministic_form_is_one_line():
    outcome = run_job(job_of("unpool"), Context(deterministic=True))
    assert (outcome.status, outcome.retry) == ("failed", False)
    assert outcome.message == (
        "deterministic=true: max_unpooling2d_forward_out has no deterministic form in torch; "
        "set [compute] deterministic=false in luigi.cfg, or choose another network, loss or metric"
    )
    assert run_job(job_of("unpool"), Context()).status == "done"


def test_luigi_cfg_asks_for_determinism(monkeypatch):
    given: dict[str, str] = {}
    monkeypatch.setattr("luigi_prune.workflow.settings._section", lambda name: given if name == "compute" else {})
    assert not compute_settings().deterministic
    given["deterministic"] = "true"
    assert compute_settings().deterministic
    given["deterministic"] = "yes"
    with pytest.raises(ConfigError, match=r"luigi\.cfg: \[compute\] deterministic: expected true or false, got 'yes'"):
        compute_settings()


# --------------------------------------------------------------------------------------------------- out of memory


def run_out(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")


class Hungry(nn.Module):
    """Needs more memory than there is once it sees more than `room` samples."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.fc, self.room = nn.Linear(64, 10), room

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            run_out()
        return self.fc(x.flatten(1))


def one_line(error: OutOfMemory) -> str:
    assert "\n" not in str(error)
    assert "cpu is out of memory (CUDA out of memory)" in str(error)
    assert error.__cause__ is None
    return str(error)


def test_pruning_names_the_method_the_batch_and_the_cure():
    row = dataclasses.replace(registry.METHODS["SnipNet"], name="MyNet", score=f"{__name__}:run_out")
    batches = [(torch.rand(4, 64), torch.zeros(4).long())] * 3
    with pytest.raises(OutOfMemory) as caught:
        api.prune(nn.Linear(64, 10), row, 0.5, calibration=batches, loss=nn.CrossEntropyLoss())
    text = one_line(caught.value)
    assert text.startswith("MyNet with 12 calibration samples in batches of 4: ")
    assert "smaller calibration batches" in text
    assert "another device" in text


def test_checking_the_batches_may_lack_memory_too(monkeypatch):
    monkeypatch.setattr(torch, "isfinite", run_out)
    with pytest.raises(OutOfMemory, match=r"^ThresNet with 4 calibration samples in batches of 4: "):
        api.prune(nn.Linear(64, 10), "ThresNet", 0.5, calibration=[(torch.rand(4, 64), torch.zeros(4).long())])


def test_the_probe_s_lack_of_memory_is_not_taken_for_the_network_s_nature(monkeypatch):
    from luigi_prune.compute.pruning.structure.structure_probe import StructureProbe

    monkeypatch.setattr(StructureProbe, "_prepare", run_out)
    with pytest.raises(OutOfMemory, match=r"^ThresNet: "):
        api.prune(nn.Sequential(nn.Linear(64, 10)), "ThresNet", 0.5, example_input=torch.rand(4, 64))
    with pytest.raises(OutOfMemory, match=r"^a trial run on a made-up input of shape \(2, 64\): .*give example_input"):
        api.prune(Hungry(0), "ThresNet", 0.5)  # nor for an input of the wrong shape


def test_training_and_evaluation_name_their_batch_sizes():
    training = settings(batch_size=64, test_batch_size=32)
    with pytest.raises(OutOfMemory) as caught:
        run(training, Hungry(63))
    assert one_line(caught.value).startswith("training with batchSize 64 and testBatchSize 32: ")
    with pytest.raises(OutOfMemory) as caught:
        evaluate(
            Hungry(31),
            splits_of(training).validation,
            loss="CrossEntropyLoss",
            metrics=training.metrics_test,
            batch_size=32,
            device=CPU,
        )
    assert one_line(caught.value).startswith("evaluation with testBatchSize 32: ")


def train_hungrily(request: dict[str, Any], context: Context) -> None:
    run(settings(batch_size=64), Hungry(63))


def test_trying_again_does_not_help():
    outcome = run_job(job_of("train_hungrily"), Context())
    assert (outcome.status, outcome.retry) == ("failed", False)
    assert outcome.message.startswith("training with batchSize 64")
    assert "Traceback" not in outcome.message


# ----------------------------------------------------------------------------------------------------- peak memory


def test_a_gpu_s_peak_memory_is_that_of_the_job(tmp_path, monkeypatch):
    from luigi_prune.jobs.outputs import write

    called: list[tuple[str, str]] = []
    for name in ("set_device", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name: called.append((name, device)))
    monkeypatch.setattr(torch.cuda, "init", lambda: called.append(("init", "")))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 12345}[device])
    context = Context(device="cuda:1", gpus=1)
    prepare_process(context)
    assert called == [("set_device", "cuda:1"), ("init", ""), ("reset_peak_memory_stats", "cuda:1")]
    request = {"family": "Prune", "key": "0" * 64, "spec": "{}", "inputs": {}}
    for name, where in (("gpu", context), ("cpu", Context())):
        output = str(tmp_path / f"{name}.h5")
        write(request | {"output": output}, where, 0.0, {"a": torch.ones(2).numpy()}, meta={})
    measured = read_result(tmp_path / "gpu.h5").measured
    assert measured["prune_gpu_peak_bytes"] == 12345
    assert measured["prune_peak_bytes"] > 12345  # this process's, beside it
    assert "prune_gpu_peak_bytes" not in read_result(tmp_path / "cpu.h5").measured


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_tf32_is_off_while_pruning_on_a_gpu_and_comes_back(device):
    from luigi_prune.compute.precision import full_precision

    def state() -> tuple[bool, str]:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = state()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with full_precision(torch.device(device)):
            assert state() == ((False, "highest") if device == "cuda" else (True, "high"))
        assert state() == (True, "high")
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])
