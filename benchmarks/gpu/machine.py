"""What the measurements are made on."""

from __future__ import annotations

import platform

import torch
import torchvision

from benchmarks.gpu.facts import Facts
from luigi_prune.execution.devices import visible_gpus
from luigi_prune.execution.job import available_cores


def describe(facts: Facts, device: torch.device) -> None:
    """Report device, versions and cores; `numbers` of the first fact say whether there is a CUDA device."""
    present = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if present else "no CUDA device"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if present else 0.0
    facts.measure(
        "device", f"{name}, {memory:.0f} GiB" if present else name, cuda=present, device=name, device_gib=memory
    )
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda or "none",
        "cudnn": torch.backends.cudnn.version() if present else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if present else None,
    }
    facts.measure(
        "versions", ", ".join(f"{key} {value}" for key, value in versions.items() if value), versions=versions
    )
    facts.measure("cores", available_cores(), cores=available_cores())
    if present:
        seen, real = len(visible_gpus()), torch.cuda.device_count()
        facts.check("the backends see the GPUs that torch sees", seen == real, f"{seen} of {real}")
