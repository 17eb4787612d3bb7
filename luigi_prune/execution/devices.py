"""Which GPUs this process may use, found without torch: NVIDIA's device files and CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import os
import re

from luigi_prune.errors import ConfigError
from luigi_prune.execution.job import ComputeSettings

VISIBLE = "CUDA_VISIBLE_DEVICES"


def machine_gpus() -> int:
    """Return how many GPUs this machine (or container) has."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return sum(re.fullmatch(r"nvidia\d+", name) is not None for name in names)


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA shows to this process, in its order, as CUDA_VISIBLE_DEVICES names them.

    As CUDA reads the variable, the list ends at the first entry that names no GPU: -1, an index that the machine does
    not have, a word. Raises ConfigError for a GPU that is named twice, for which CUDA shows none at all.
    """
    count = machine_gpus()
    given = os.environ.get(VISIBLE)
    if given is None or not count:
        return [str(index) for index in range(count)]
    found: list[str] = []
    for name in (part.strip() for part in given.split(",")):
        index = int(name) if re.fullmatch(r"[0-9]+", name) else None
        if not (index < count if index is not None else name.startswith(("GPU-", "MIG-"))):
            break
        found.append(name if index is None else str(index))
    if doubled := [name for name in found if found.count(name) > 1]:
        raise ConfigError(f"{VISIBLE}={given}: GPU {doubled[0]} stands there twice, for which CUDA shows no GPU at all")
    return found


def uses_gpu(settings: ComputeSettings) -> bool:
    """Return whether jobs on this machine compute on a GPU: with device=cuda, and with auto if one is visible.

    Raises ConfigError for device=cuda if CUDA_VISIBLE_DEVICES hides all GPUs.
    """
    if settings.device == "cuda":
        if os.environ.get(VISIBLE, "0").strip() in ("", "-1"):
            raise ConfigError(
                f"luigi.cfg: [compute] device: cuda, but no GPU is visible{_visibility()}; use cpu or auto"
            )
        return True
    return settings.device == "auto" and bool(visible_gpus())


def process_count(settings: ComputeSettings, family: str) -> int:
    """Return how many processes a job of `family` has on this machine; raises ConfigError if there cannot be as many.

    `gpus` is one process per visible GPU.
    """
    processes = settings.processes.get(family, 1)
    gpus = len(visible_gpus()) if uses_gpu(settings) else 0
    where = f"luigi.cfg: [compute.{family}] processes = {processes}"
    if processes == "gpus":
        if not gpus:
            why = "device=cpu uses none" if settings.device == "cpu" else "this process sees none"
            raise ConfigError(f"{where}: a process per GPU, but {why}{_visibility()}; use a number")
        return gpus
    if processes < 1:
        raise ConfigError(f"{where}: at least 1")
    if gpus and processes > gpus:
        raise ConfigError(
            f"{where}: this machine shows {gpus} GPU(s){_visibility()}, and each process of a job needs its own;"
            f" processes=gpus takes all of them"
        )
    return processes


def _visibility() -> str:
    given = os.environ.get(VISIBLE)
    return "" if given is None else f" ({VISIBLE}={given!r})"
