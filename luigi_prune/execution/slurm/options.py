"""What luigi.cfg asks of SLURM: the sections [slurm] and [slurm.<Family>], as values. Never part of a key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.job import ComputeSettings

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
# what submitit or this package writes into the script itself -> the key that says it
_TAKEN = {
    **dict.fromkeys(("chdir", "export", "job_name", "open_mode", "parsable", "test_only", "wait", "wrap"), ""),
    **dict.fromkeys(("error", "input", "output"), ""),
    **dict.fromkeys(("ntasks", "ntasks_per_node", "tasks_per_node"), "processes_per_node"),
    "array": "array_size",
    "gpus": "gpus_per_node",
    "mem": "mem_gb",
    "signal": "signal_delay_s",
    "time": "timeout_min",
}


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


def from_luigi_cfg(sections: Mapping[str, Mapping[str, str]], compute: ComputeSettings) -> SlurmSettings:
    """Return the settings of [slurm] and [slurm.<Family>], given those of [compute]; raises ConfigError."""
    for family, processes in compute.processes.items():
        if processes != 1:  # a SLURM job has a process per GPU anyway
            raise ConfigError(
                f"luigi.cfg: [compute.{family}] processes: {processes} is for backend=local; with backend=slurm use"
                f" gpus_per_node (a process per GPU), or processes_per_node, of [slurm.{family}]"
            )
    return read_settings(sections, compute.threads, compute.loader_workers)


def read_settings(sections: Mapping[str, Mapping[str, str]], threads: int, loader_workers: int) -> SlurmSettings:
    """Return the settings that luigi.cfg's sections say (name -> key -> text); raises ConfigError.

    `threads` and `loader_workers` of [compute] say how many CPUs a process has by default.
    """
    for name in sections:
        family = name.removeprefix("slurm.")
        if name != "slurm" and family not in FAMILIES:
            raise ConfigError(f"luigi.cfg: [{name}]: {family!r} never becomes a SLURM job{nearest(family, FAMILIES)}")
    checked = {name: _checked(name, section) for name, section in sections.items()}
    common, cpus = checked.get("slurm", {}), max(1, threads + loader_workers)
    return SlurmSettings(
        resources={family: _resources(family, common, checked.get(f"slurm.{family}", {}), cpus) for family in FAMILIES},
        **_site(common),
    )


def _checked(section: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return a section with its keys as we spell them; sbatch's own dashes are as good as underscores."""
    keys = {}
    for key, text in given.items():
        ours = key.replace("-", "_")
        _check_key(section, key, ours)
        if ours in keys:
            raise ConfigError(f"luigi.cfg: [{section}] {key}: stands there as {ours}, too")
        keys[ours] = text
    return keys


def _check_key(section: str, key: str, ours: str) -> None:
    where = f"luigi.cfg: [{section}] {key}"
    if ours in _TAKEN:
        instead = f"; use {_TAKEN[ours]}" if _TAKEN[ours] else ""
        raise ConfigError(f"{where}: luigi_prune sets it itself{instead}")
    if section != "slurm" and (ours in _SITE or ours == "on_interrupt"):
        raise ConfigError(f"{where}: holds for all jobs; it belongs into [slurm]")
    # sbatch has the last word on options that we do not know; what nearly is a key of ours never was meant for it
    misspelt = ours not in KEYS and difflib.get_close_matches(ours.lower(), KEYS, n=1, cutoff=0.85)
    if misspelt or not re.fullmatch(r"[a-z][a-z0-9_]*", ours):
        raise ConfigError(f"{where}: neither a key of luigi_prune nor an option of sbatch{nearest(ours, KEYS)}")


def _site(given: Mapping[str, str]) -> dict[str, Any]:
    """Return how the driver deals with the site, as fields of SlurmSettings."""
    site: dict[str, Any] = {}
    for key, (default, least) in _SITE.items():
        site[key] = _number("slurm", key, given.get(key, str(default)), least, isinstance(default, int))
    if site["poll_seconds_max"] < site["poll_seconds"]:
        if "poll_seconds_max" in given:
            raise ConfigError(
                f"luigi.cfg: [slurm] poll_seconds_max: {site['poll_seconds_max']:g} is less than poll_seconds"
                f" ({site['poll_seconds']:g}), from which the interval grows"
            )
        site["poll_seconds_max"] = site["poll_seconds"]
    site["on_interrupt"] = given.get("on_interrupt", "ask")
    if site["on_interrupt"] not in _ON_INTERRUPT:
        hint = nearest(site["on_interrupt"], _ON_INTERRUPT)
        raise ConfigError(f"luigi.cfg: [slurm] on_interrupt: {site['on_interrupt']!r} is no choice{hint}")
    return site


def _resources(family: str, common: Mapping[str, str], own: Mapping[str, str], cpus: int) -> Resources:
    """Return what a job of `family` gets: its own section over [slurm]."""
    given = {**common, **own}

    def section(key: str) -> str:
        return f"slurm.{family}" if key in own else "slurm"

    def number(key: str, default: float, least: float, whole: bool = True) -> Any:
        return _number(section(key), key, given.get(key, str(default)), least, whole)

    timeout = number("timeout_min", 60, 1)
    delay = number("signal_delay_s", min(120, timeout * 15), 0)
    if delay >= timeout * 60:
        raise ConfigError(
            f"luigi.cfg: [{section('signal_delay_s')}] signal_delay_s: {delay} s before the end is too early"
            f" for jobs of {family}, whose timeout_min is {timeout}"
        )
    gpus = number("gpus_per_node", 0, 0)
    nodes, processes = number("nodes", 1, 1), number("processes_per_node", max(1, gpus), 1)
    if family not in PARALLEL:
        for key, value in (("nodes", nodes), ("processes_per_node", processes), ("gpus_per_node", gpus)):
            if key in own and value > 1:
                raise ConfigError(
                    f"luigi.cfg: [slurm.{family}] {key}: {value}: a {family} is one process with one GPU at most;"
                    f" only {' and '.join(PARALLEL)} use several"
                )
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
        sbatch=_sbatch_options(common, own),
    )


def _sbatch_options(common: Mapping[str, str], own: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the options that sbatch itself understands, "true" for those without a value; false takes one away."""
    requeue = ("requeue", "no_requeue")  # two words for one thing: the family's section wins as a whole
    kept = {key: text for key, text in common.items() if key not in requeue or not own.keys() & set(requeue)}
    options = {}
    for key, text in {**kept, **own}.items():
        if key in (*_SITE, "on_interrupt", *_OWN, *_TEXTS):
            continue
        value = text.lower() if text.lower() in ("true", "false") else text
        if key == "requeue":  # it is on without a word
            key, value = "no_requeue", "true" if value == "false" else ""
        if value not in ("", "false"):
            options[key.replace("_", "-")] = value
    return tuple(sorted(options.items()))


def _number(section: str, key: str, text: str, least: float, whole: bool) -> Any:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        kind = "whole number" if whole else "number"
        raise ConfigError(f"luigi.cfg: [{section}] {key}: {text!r} is not a {kind} of at least {least:g}")
    return value
