"""The steps of the command, the most telling first."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """A function `(facts, device)` that runs in a process of its own, killed after `seconds`."""

    name: str
    function: str  # module:function
    about: str
    seconds: float
    cuda: bool = True  # it has nothing to say on a CPU
    alone: bool = False  # it measures time: nothing else may run beside it


def _step(name: str, function: str, about: str, seconds: float, **more: bool) -> Step:
    return Step(name, f"benchmarks.gpu.{function}", about, seconds, **more)


MACHINE = _step("machine", "machine:describe", "device, versions, cores", 90, cuda=False)
STEPS = (
    _step("masks", "masks:run", "every method prunes on the device what it prunes on the CPU", 80),
    _step("experiment", "experiment:run_digits", "sample/digits.yaml by the luigi command, several jobs a GPU", 120),
    _step("moving", "moving:run", "zeros stay zeros when network and optimizer move", 40),
    _step("resume", "resume:run", "a killed training is resumed bit for bit", 70, cuda=False),
    _step("amp", "amp:run", "fp16 and bf16 trainings reach the CPU's accuracy", 80),
    _step("nccl", "nccl:run", "a group of one process, its messages, SyncBatchNorm", 40),
    _step("backends", "backends:run", "inline and local jobs get their device", 50, cuda=False),
    _step("memory", "memory:run", "out of memory is one line", 50),
    _step("deterministic", "deterministic:run", "every method under deterministic algorithms", 50),
    _step("tiny", "experiment:run_tiny", "sample/tiny.yaml inline, killed and resumed", 70, cuda=False),
    _step("synchronisations", "syncs:run", "how often each method waits for the device", 60),
    _step("together", "together:run", "trainings in one process, against one after another", 100, alone=True),
    _step("training", "training_speed:run", "ResNet20 against a bare loop", 50, alone=True),
    _step("resnet20", "pruning_speed:run_resnet20", "each method on the device and on the CPU", 45, alone=True),
    _step("vgg16", "pruning_speed:run_vgg16", "each method on the device and on the CPU", 60, alone=True),
    _step("resnet50", "pruning_speed:run_resnet50", "each method on the device, some on the CPU", 75, alone=True),
    _step("ways", "ways:run", "ways of training many networks at once", 100, alone=True),
)
