"""What luigi.cfg asks of SLURM: the sections [slurm] and [slurm.<Family>], as values. Never part of a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luigi_prune.errors import ConfigError, nearest

FAMILIES = ("TrainBase", "Prune", "Retrain", "Evaluate")  # what becomes a SLURM job; the rest takes no GPU
PARALLEL = ("TrainBase", "Retrain")  # what several processes can share
_SITE = {  # of [slurm] alone: how this driver deals with the site
    "array_size": (0, 0),  # key -> default, least; 0: what the site allows
    "array_parallelism": (0, 0),
    "poll_seconds": (20.0, 0.1),
    "poll_seconds_max": (180.0, 0.1),
    "gather_seconds": (2.0, 0.0),
    "grace_seconds": (30.0, 0.0),
    "requeue_wait_seconds": (300.0, 0.0),
    "command_seconds": (60.0, 1.0),
}
_ON_INTERRUPT = ("ask", "detach", "cancel")
_OWN = ("nodes", "gpus_per_node", "processes_per_node", "cpus_per_task", "mem_gb", "timeout_min", "signal_delay_s")
_TEXTS = ("setup", "python")
_COMMON = ("account", "constraint", "exclude", "exclusive", "gres", "licenses", "nice", "nodelist", "partition", "qos")
KEYS = (*_SITE, "on_interrupt", *_OWN, *_TEXTS, *_COMMON)
# what submitit or this package writes into the script itself
_TAKEN = (
    *("array", "chdir", "error", "export", "job_name", "ntasks", "ntasks_per_node", "open_mode", "output", "parsable"),
    *("signal", "test_only", "time", "mem", "wait", "wrap"),
)


@dataclass(frozen=True)
class Resources:
    """What one job gets; jobs with equal resources travel in one array."""

    nodes: int = 1
    gpus_per_node: int = 0
    processes_per_node: int = 1
    cpus_per_task: int = 1
    mem_gb: float | None = None
    timeout_min: int = 60
    signal_delay_s: int = 120  # before the time limit; a training saves and requeues itself
    setup: tuple[str, ...] = ()  # shell lines before the job: modules, a virtual environment
    python: str = ""  # command that starts Python, a container perhaps; the driver's own where empty
    sbatch: tuple[tuple[str, str], ...] = ()  # further sbatch options, as they are

    @property
    def processes(self) -> int:
        """How many processes a job has."""
        return self.nodes * self.processes_per_node

    @property
    def gpus(self) -> int:
        """How many GPUs a job holds."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class SlurmSettings:
    """Resources per family, and how this driver deals with the site."""

    resources: dict[str, Resources] = field(default_factory=lambda: dict.fromkeys(FAMILIES, Resources()))
    array_size: int = 0  # elements of one array at most; 0: what the site allows
    array_parallelism: int = 0  # elements that may run at once; 0: no limit
    poll_seconds: float = 20.0  # between questions to SLURM while something happens
    poll_seconds_max: float = 180.0  # and after a long time without news
    gather_seconds: float = 2.0  # how long a ready task waits for others to share an array with
    grace_seconds: float = 30.0  # how long a result may take to become visible after its job has ended
    requeue_wait_seconds: float = 300.0  # how long a preempted job may be away from the queue
    command_seconds: float = 60.0  # patience with one SLURM command
    on_interrupt: str = "ask"  # Ctrl-C: ask, detach (jobs go on) or cancel


def read_settings(sections: Mapping[str, Mapping[str, str]], threads: int, loader_workers: int) -> SlurmSettings:
    """Return the settings that luigi.cfg's sections say (name -> key -> text); raises ConfigError.

    `threads` and `loader_workers` of [compute] say how many CPUs a process has by default.
    """
    own = sections.get("slurm", {})
    site: dict[str, Any] = {}
    for key, (default, least) in _SITE.items():
        whole = isinstance(default, int)
        site[key] = _number("slurm", key, own.get(key, str(default)), least, whole)
    site["on_interrupt"] = own.get("on_interrupt", "ask")
    if site["on_interrupt"] not in _ON_INTERRUPT:
        hint = nearest(site["on_interrupt"], _ON_INTERRUPT)
        raise ConfigError(f"luigi.cfg: [slurm] on_interrupt: {site['on_interrupt']!r} is no choice{hint}")
    for name in sections:
        family = name.removeprefix("slurm.")
        if name != "slurm" and family not in FAMILIES:
            raise ConfigError(f"luigi.cfg: [{name}]: {family!r} never becomes a SLURM job{nearest(family, FAMILIES)}")
        for key in sections[name]:
            _check_key(name, key)
    cpus = max(1, threads + loader_workers)
    return SlurmSettings(
        resources={family: _resources(family, own, sections.get(f"slurm.{family}", {}), cpus) for family in FAMILIES},
        **site,
    )


def _check_key(section: str, key: str) -> None:
    if key in _TAKEN:
        raise ConfigError(f"luigi.cfg: [{section}] {key}: set by luigi_prune itself{nearest(key, _OWN)}")
    if section != "slurm" and (key in _SITE or key == "on_interrupt"):
        raise ConfigError(f"luigi.cfg: [{section}] {key}: belongs into [slurm]")
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", key):
        raise ConfigError(f"luigi.cfg: [{section}] {key}: neither a key of luigi_prune nor an option of sbatch")


def _resources(family: str, common: Mapping[str, str], own: Mapping[str, str], cpus: int) -> Resources:
    """Return what a job of `family` gets: its own section over [slurm]."""
    given = {**common, **own}

    def number(key: str, default: float, least: float, whole: bool = True) -> Any:
        return _number(f"slurm.{family}" if key in own else "slurm", key, given.get(key, str(default)), least, whole)

    timeout = number("timeout_min", 60, 1)
    delay = number("signal_delay_s", min(120, timeout * 15), 0)
    if delay >= timeout * 60:
        raise ConfigError(
            f"luigi.cfg: [slurm.{family}] signal_delay_s: {delay} s is no less than the time limit ({timeout} min)"
        )
    gpus = number("gpus_per_node", 0, 0)
    nodes, processes = number("nodes", 1, 1), number("processes_per_node", max(1, gpus), 1)
    if family not in PARALLEL:
        if nodes * processes > 1 and ("nodes" in own or "processes_per_node" in own):
            raise ConfigError(f"luigi.cfg: [slurm.{family}]: only {' and '.join(PARALLEL)} use several processes")
        gpus, nodes, processes = min(gpus, 1), 1, 1
    return Resources(
        nodes=nodes,
        gpus_per_node=gpus,
        processes_per_node=processes,
        cpus_per_task=number("cpus_per_task", cpus, 1),
        mem_gb=number("mem_gb", 0, 0.01, whole=False) if "mem_gb" in given else None,
        timeout_min=timeout,
        signal_delay_s=delay,
        setup=tuple(line for line in given.get("setup", "").splitlines() if line.strip()),
        python=given.get("python", ""),
        sbatch=tuple(
            sorted(
                (key.replace("_", "-"), text)
                for key, text in given.items()
                if key not in (*_SITE, "on_interrupt", *_OWN, *_TEXTS) and text.lower() not in ("", "false")
            )
        ),
    )


def _number(section: str, key: str, text: str, least: float, whole: bool) -> Any:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        kind = "whole number" if whole else "number"
        raise ConfigError(f"luigi.cfg: [{section}] {key}: {text!r} is not a {kind} of at least {least:g}")
    return value
