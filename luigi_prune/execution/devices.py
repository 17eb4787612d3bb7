"""GPUs visible to this process, without torch: from NVIDIA's device files and CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import os
import re

from luigi_prune.errors import ConfigError
from luigi_prune.execution.job import ComputeSettings

VISIBLE = "CUDA_VISIBLE_DEVICES"


def machine_gpus() -> int:
    """Return the number of GPUs of this machine (or container)."""
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return sum(re.fullmatch(r"nvidia\d+", name) is not None for name in names)


def visible_gpus() -> list[str]:
    """Return the GPUs visible to this process, in CUDA's order, as CUDA_VISIBLE_DEVICES names them.

    As in CUDA, the list ends at the first invalid entry: -1, an index out of range, a word. Raises ConfigError for a
    duplicate, as CUDA then shows no GPU at all.
    """
    count = machine_gpus()
    variable = os.environ.get(VISIBLE)
    if variable is None or not count:
        return [str(index) for index in range(count)]
    gpus: list[str] = []
    for name in (part.strip() for part in variable.split(",")):
        index = int(name) if re.fullmatch(r"[0-9]+", name) else None
        if not (index < count if index is not None else name.startswith(("GPU-", "MIG-"))):
            break
        gpus.append(name if index is None else str(index))
    if duplicates := [name for name in gpus if gpus.count(name) > 1]:
        raise ConfigError(f"{VISIBLE}={variable}: GPU {duplicates[0]} is listed twice; CUDA then shows no GPU at all")
    return gpus


def uses_gpu(settings: ComputeSettings) -> bool:
    """Return whether jobs on this machine use a GPU: with device=cuda, and with device=auto if one is visible.

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
    """Return the number of processes of a job of `family` on this machine; `gpus` means one per visible GPU.

    Raises ConfigError for less than one, or more than there are GPUs.
    """
    processes = settings.processes.get(family, 1)
    gpus = len(visible_gpus()) if uses_gpu(settings) else 0
    where = f"luigi.cfg: [compute.{family}] processes = {processes}"
    if processes == "gpus":
        if not gpus:
            why = "device=cpu uses none" if settings.device == "cpu" else "no GPU is visible"
            raise ConfigError(f"{where}: one process per GPU, but {why}{_visibility()}; use a number")
        return gpus
    if processes < 1:
        raise ConfigError(f"{where}: expected at least 1")
    if gpus and processes > gpus:
        raise ConfigError(
            f"{where}: only {gpus} GPU(s) visible{_visibility()}, and each process of a job needs one;"
            f" processes=gpus uses all of them"
        )
    return processes


def _visibility() -> str:
    variable = os.environ.get(VISIBLE)
    return "" if variable is None else f" ({VISIBLE}={variable!r})"
