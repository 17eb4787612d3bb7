"""Settings of the sections [slurm] and [slurm.<Family>] of luigi.cfg. They never enter a key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.job import ComputeSettings

FAMILIES = ("TrainBase", "Prune", "Retrain", "Evaluate")  # become SLURM jobs; the others need no GPU
PARALLEL = ("TrainBase", "Retrain")  # can use several processes
_SITE = {  # of [slurm] alone: settings of the driver
    "array_size": (0, 0),  # key -> (default, minimum); 0: the site's maximum
    "array_parallelism": (0, 0),
    "poll_seconds": (20.0, 0.1),
    "poll_seconds_max": (180.0, 0.1),
    "gather_seconds": (2.0, 0.0),
    "grace_seconds": (30.0, 0.0),
    "requeue_wait_seconds": (300.0, 0.0),
    "command_seconds": (60.0, 1.0),
}
_ON_INTERRUPT = ("ask", "detach", "cancel")
_RESOURCES = (
    "nodes",
    "gpus_per_node",
    "processes_per_node",
    "cpus_per_task",
    "mem_gb",
    "timeout_min",
    "signal_delay_s",
)
_TEXTS = ("setup", "setup_may_fail", "python")
_COMMON = ("account", "constraint", "exclude", "exclusive", "gres", "licenses", "nice", "nodelist", "partition", "qos")
KEYS = (*_SITE, "on_interrupt", *_RESOURCES, *_TEXTS, *_COMMON)
# options that submitit or this package sets -> the key to use instead
_RESERVED = {
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
    """Resources of one job; jobs with equal resources share an array."""

    nodes: int = 1
    gpus_per_node: int = 0
    processes_per_node: int = 1
    cpus_per_task: int = 1
    mem_gb: float | None = None
    timeout_min: int = 60
    signal_delay_s: int = 120  # before the time limit: a training then saves and requeues itself
    setup: tuple[str, ...] = ()  # shell lines before the job: modules, a virtual environment
    setup_may_fail: bool = False  # a line of setup that fails does not end the job
    python: str = ""  # command that starts Python, e.g. in a container; empty: the driver's
    sbatch: tuple[tuple[str, str], ...] = ()  # further sbatch options, unchanged

    @property
    def processes(self) -> int:
        """Number of processes of a job."""
        return self.nodes * self.processes_per_node

    @property
    def gpus(self) -> int:
        """Number of GPUs of a job."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class SlurmSettings:
    """Resources per family, and settings of the driver."""

    resources: dict[str, Resources] = field(default_factory=lambda: dict.fromkeys(FAMILIES, Resources()))
    array_size: int = 0  # maximum elements of an array; 0: the site's maximum
    array_parallelism: int = 0  # elements of an array that run at once; 0: no limit
    poll_seconds: float = 20.0  # between polls of SLURM while states change
    poll_seconds_max: float = 180.0  # and after a long time without changes
    gather_seconds: float = 2.0  # for which a ready task waits for others to share its array
    grace_seconds: float = 30.0  # for a result to become visible after its job has ended
    requeue_wait_seconds: float = 300.0  # for which a preempted job may be missing from the queue
    command_seconds: float = 60.0  # timeout of one SLURM command
    on_interrupt: str = "ask"  # Ctrl-C: ask, detach (jobs keep running) or cancel


def from_luigi_cfg(sections: Mapping[str, Mapping[str, str]], compute: ComputeSettings) -> SlurmSettings:
    """Return the settings of [slurm] and [slurm.<Family>], given those of [compute]; raises ConfigError."""
    for family, processes in compute.processes.items():
        if processes != 1:  # a SLURM job has one process per GPU by default
            raise ConfigError(
                f"luigi.cfg: [compute.{family}] processes: {processes} is for backend=local; with backend=slurm use"
                f" gpus_per_node (a process per GPU), or processes_per_node, of [slurm.{family}]"
            )
    if compute.jobs_per_gpu != 1:
        raise ConfigError(
            f"luigi.cfg: [compute] jobs_per_gpu: {compute.jobs_per_gpu} is for backend=local; use together, or gres"
        )
    settings = read_settings(sections, compute.threads, compute.loader_workers)
    for family, most in compute.together.items():
        if most > 1 and (processes := settings.resources[family].processes) > 1:
            raise ConfigError(
                f"luigi.cfg: [compute] together: {most} trainings share one process, but a {family} of [slurm] has"
                f" {processes} (gpus_per_node, processes_per_node, nodes); set one of them to 1"
            )
    return settings


def read_settings(sections: Mapping[str, Mapping[str, str]], threads: int, loader_workers: int) -> SlurmSettings:
    """Return the settings of luigi.cfg's sections (name -> key -> text); raises ConfigError.

    `threads` and `loader_workers` of [compute] are the default number of CPUs of a process.
    """
    for name in sections:
        family = name.removeprefix("slurm.")
        if name != "slurm" and family not in FAMILIES:
            raise ConfigError(
                f"luigi.cfg: [{name}]: {family!r} is not a family of SLURM jobs{nearest(family, FAMILIES)}"
            )
    checked = {name: _checked(name, section) for name, section in sections.items()}
    common, cpus = checked.get("slurm", {}), max(1, threads + loader_workers)
    return SlurmSettings(
        resources={family: _resources(family, common, checked.get(f"slurm.{family}", {}), cpus) for family in FAMILIES},
        **_site(common),
    )


def _checked(section: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return a section with underscores in its keys: sbatch's dashes are accepted, too."""
    checked = {}
    for key, text in values.items():
        name = key.replace("-", "_")
        _check_key(section, key, name)
        if name in checked:
            raise ConfigError(f"luigi.cfg: [{section}] {key}: is already set as {name}")
        checked[name] = text
    return checked


def _check_key(section: str, key: str, name: str) -> None:
    where = f"luigi.cfg: [{section}] {key}"
    if name in _RESERVED:
        instead = f"; use {_RESERVED[name]}" if _RESERVED[name] else ""
        raise ConfigError(f"{where}: luigi_prune sets it itself{instead}")
    if section != "slurm" and (name in _SITE or name == "on_interrupt"):
        raise ConfigError(f"{where}: applies to all jobs; set it in [slurm]")
    # sbatch checks options that are unknown here; a near miss of a known key is a misspelling, not an option
    misspelt = name not in KEYS and difflib.get_close_matches(name.lower(), KEYS, n=1, cutoff=0.85)
    if misspelt or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"{where}: neither a key of luigi_prune nor an option of sbatch{nearest(name, KEYS)}")


def _site(section: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of the driver as fields of SlurmSettings; raises ConfigError."""
    site: dict[str, Any] = {}
    for key, (default, minimum) in _SITE.items():
        site[key] = _number("slurm", key, section.get(key, str(default)), minimum, isinstance(default, int))
    if site["poll_seconds_max"] < site["poll_seconds"]:
        if "poll_seconds_max" in section:
            raise ConfigError(
                f"luigi.cfg: [slurm] poll_seconds_max: {site['poll_seconds_max']:g} is less than poll_seconds"
                f" ({site['poll_seconds']:g}), from which the interval grows"
            )
        site["poll_seconds_max"] = site["poll_seconds"]
    site["on_interrupt"] = section.get("on_interrupt", "ask")
    if site["on_interrupt"] not in _ON_INTERRUPT:
        hint = nearest(site["on_interrupt"], _ON_INTERRUPT)
        raise ConfigError(f"luigi.cfg: [slurm] on_interrupt: {site['on_interrupt']!r} is not a choice{hint}")
    return site


def _resources(family: str, common: Mapping[str, str], specific: Mapping[str, str], cpus: int) -> Resources:
    """Return the resources of a job of `family`, whose section `specific` overrides the common one."""
    values = {**common, **specific}

    def section(key: str) -> str:
        return f"slurm.{family}" if key in specific else "slurm"

    def number(key: str, default: float, minimum: float, integer: bool = True) -> Any:
        return _number(section(key), key, values.get(key, str(default)), minimum, integer)

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
            if key in specific and value > 1:
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
        mem_gb=number("mem_gb", 0, 0.01, integer=False) if "mem_gb" in values else None,
        timeout_min=timeout,
        signal_delay_s=delay,
        setup=tuple(line for line in values.get("setup", "").splitlines() if line.strip()),
        setup_may_fail=_yes(section("setup_may_fail"), "setup_may_fail", values.get("setup_may_fail", "false")),
        python=values.get("python", ""),
        sbatch=_sbatch_options(common, specific),
    )


def _sbatch_options(common: Mapping[str, str], specific: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the options passed on to sbatch; "true" sets one without a value, "false" removes it."""
    requeue = {"requeue", "no_requeue"}  # opposites: either one in the family's section overrides both
    kept = {key: text for key, text in common.items() if key not in requeue or not specific.keys() & requeue}
    options = {}
    for key, text in {**kept, **specific}.items():
        if key in (*_SITE, "on_interrupt", *_RESOURCES, *_TEXTS):
            continue
        value = text.lower() if text.lower() in ("true", "false") else text
        if key == "requeue":  # on by default
            key, value = "no_requeue", "true" if value == "false" else ""
        if value not in ("", "false"):
            options[key.replace("_", "-")] = value
    return tuple(sorted(options.items()))


def _yes(section: str, key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"luigi.cfg: [{section}] {key}: expected true or false, got {text!r}")
    return text.lower() == "true"


def _number(section: str, key: str, text: str, minimum: float, integer: bool) -> Any:
    try:
        value = int(text) if integer else float(text)
    except ValueError:
        value = None
    if value is None or not minimum <= value < float("inf"):
        kind = "whole number" if integer else "number"
        raise ConfigError(f"luigi.cfg: [{section}] {key}: {text!r} is not a {kind} of at least {minimum:g}")
    return value
