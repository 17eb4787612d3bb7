"""Settings of this machine in luigi.cfg: directories, backend, threads. Never part of a key."""

from __future__ import annotations

import sys
from configparser import InterpolationError
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import luigi.configuration
from luigi.cmdline_parser import CmdlineParser

from luigi_prune.config.schema import Directories, Experiment
from luigi_prune.errors import ConfigError, LuigiPruneError, nearest
from luigi_prune.execution.backends import AUTO, backend_settings, names
from luigi_prune.execution.job import ComputeSettings
from luigi_prune.identity.common_schedule import TOGETHER
from luigi_prune.results.disk_space import write_problem

FAMILIES = ("TrainBase", "Prune", "Retrain", "Evaluate", "Aggregate", "Report")
EXIT_CONFIGURATION = 35  # as the return code of scheduling errors in the packaged luigi.cfg
PARALLEL = TOGETHER  # the families whose jobs can have several processes
_FAMILY_KEYS = ("processes", "together")  # of [compute.<Family>], too
_MACHINE_KEYS = ("backend", "threads", "jobs", "jobs_per_gpu", "device", "loader_workers", "deterministic")
_COMPUTE_KEYS = (*_MACHINE_KEYS, *_FAMILY_KEYS)


def exit_with_error(error: LuigiPruneError | str) -> NoReturn:
    """End the run with one line on standard error; Luigi would print a traceback for any Exception."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CONFIGURATION)


def check_writable(results: Path) -> None:
    """End the run with one line if files cannot be written to the results folder, which is made if it is missing."""
    if problem := write_problem(results):
        exit_with_error(f"directories.results: {problem}")


def retries() -> tuple[int, float]:
    """Return how often a job is tried and the seconds between two attempts: [scheduler] retry_count and retry_delay.

    The worker applies them, whatever the settings of the luigid that it talks to. Raises ConfigError.
    """
    config = luigi.configuration.get_config()
    texts = {key: str(config.get("scheduler", key, "")) for key in ("retry_count", "retry_delay")}
    try:
        count, delay = int(texts["retry_count"] or 3), float(texts["retry_delay"] or 10)
        if count < 1 or not 0 <= delay < float("inf"):
            raise ValueError
    except ValueError:
        given = ", ".join(f"{key}={text}" for key, text in texts.items())
        raise ConfigError(
            f"luigi.cfg: [scheduler] {given}: expected a whole number of at least 1, and seconds"
        ) from None
    return count, delay


def packaged_config() -> Path:
    """Return the luigi.cfg that the package ships."""
    return Path(__file__).resolve().parents[1] / "luigi.cfg"


def load_packaged_config() -> None:
    """Read the packaged luigi.cfg before all others, as defaults."""
    parser = luigi.configuration.LuigiConfigParser
    path = str(packaged_config())
    if path not in parser._config_paths:
        parser._config_paths.insert(0, path)
        parser.reload()


def empty_on_command_line(task: str, parameter: str) -> bool:
    """Return whether the command line gives a parameter the value "", for which Luigi takes the default unasked."""
    parser = CmdlineParser.get_instance()
    given = vars(parser.known_args) if parser is not None else {}
    return "" in (given.get(parameter), given.get(f"{task}_{parameter}"))


def directories_for(experiment: Experiment) -> Directories:
    """Return the experiment's directories, overridden by luigi.cfg [directories]; raises ConfigError."""
    return on_this_machine(experiment.directories)


def on_this_machine(directories: Directories) -> Directories:
    """Return the directories, overridden by luigi.cfg [directories]; raises ConfigError.

    They are absolute: a task's identity holds them, and drivers in different working directories may share a luigid.
    """
    section = _section("directories")
    known = Directories.model_fields
    for key in section:
        if key not in known:
            raise ConfigError(f"luigi.cfg: [directories] {key}: unknown key{nearest(key, known)}")
    given = directories.model_copy(update=section)
    return given.model_copy(update={key: str(Path(path).expanduser().resolve()) for key, path in given if path})


def default_directories() -> Directories:
    """Return the directories of an experiment that names none; raises ConfigError."""
    return on_this_machine(Directories())


def compute_settings() -> ComputeSettings:
    """Return the sections [compute] and [compute.<Family>] of luigi.cfg; raises ConfigError."""
    compute = _section("compute")
    for key in compute:
        if key not in _COMPUTE_KEYS:
            raise ConfigError(f"luigi.cfg: [compute] {key}: unknown key{nearest(key, _COMPUTE_KEYS)}")
    if (backend := compute.get("backend", AUTO)) not in (backends := (AUTO, *names())):
        raise ConfigError(f"luigi.cfg: [compute] backend: {backend!r} is not a backend{nearest(backend, backends)}")
    if (device := compute.get("device", "auto")) not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"luigi.cfg: [compute] device: expected auto, cpu or cuda, got {device!r}")
    settings = ComputeSettings(
        backend=backend,
        threads=_integer("compute", "threads", compute, 1, 1),
        jobs=_integer("compute", "jobs", compute, 0, 0),
        device=device,
        loader_workers=_integer("compute", "loader_workers", compute, 0, 0),
        deterministic=_flag("compute", "deterministic", compute),
        jobs_per_gpu=_integer("compute", "jobs_per_gpu", compute, 1, 1),
        **_by_family(compute),
    )
    sections = [name for name in luigi.configuration.get_config().sections() if name.partition(".")[0] == backend]
    return replace(settings, own=backend_settings(settings, {name: _section(name) for name in sections}))


def allow_partial() -> bool:
    """Return whether a run with failed tasks ends with a report on the results that exist; raises ConfigError."""
    section = _section("report")
    for key in section:
        if key != "allow_partial":
            raise ConfigError(f"luigi.cfg: [report] {key}: unknown key{nearest(key, ['allow_partial'])}")
    return _flag("report", "allow_partial", section)


def _by_family(compute: dict[str, str]) -> dict[str, Any]:
    """Return the fields of ComputeSettings that families may differ in: as in [compute.<Family>], else in [compute]."""
    processes: dict[str, int | Literal["gpus"]] = {}
    together: dict[str, int] = {}
    for family in FAMILIES:
        name = f"compute.{family}"
        section = _section(name)
        for key in section:
            if key not in _FAMILY_KEYS or family not in PARALLEL:
                keys, families = " and ".join(_FAMILY_KEYS), " and ".join(PARALLEL)
                raise ConfigError(f"luigi.cfg: [{name}] {key}: only {keys} of {families} can be set")
        if family in PARALLEL:
            places = {key: (name, section) if key in section else ("compute", compute) for key in _FAMILY_KEYS}
            where, texts = places["processes"]
            is_gpus = texts.get("processes") == "gpus"
            processes[family] = "gpus" if is_gpus else _integer(where, "processes", texts, 1, 1, or_else=" or gpus")
            where, texts = places["together"]
            together[family] = _integer(where, "together", texts, 1, 1)
            if together[family] > 1 and processes[family] != 1:
                raise ConfigError(
                    f"luigi.cfg: [{where}] together: {together[family]} trainings share one process, but"
                    f" [{places['processes'][0]}] processes is {processes[family]}; set one of them to 1"
                )
    return {"processes": processes, "together": together}


def _section(name: str) -> dict[str, str]:
    config = luigi.configuration.get_config()
    try:
        return dict(config.items(name)) if config.has_section(name) else {}
    except InterpolationError as error:
        reason = " ".join(error.message.split())
        raise ConfigError(
            f"luigi.cfg: [{name}] {error.option}: {reason}; write %% for a percent sign, and $NAME for an environment"
            " variable"
        ) from None


def _flag(section: str, key: str, texts: dict[str, str]) -> bool:
    text = texts.get(key, "false").lower()
    if text not in ("true", "false"):
        raise ConfigError(f"luigi.cfg: [{section}] {key}: expected true or false, got {texts[key]!r}")
    return text == "true"


def _integer(section: str, key: str, texts: dict[str, str], default: int, least: int, or_else: str = "") -> int:
    text = texts.get(key, str(default))
    if text == "auto" and least == 0:
        return 0
    if not text.isdigit() or int(text) < least:
        raise ConfigError(f"luigi.cfg: [{section}] {key}: {text!r} is not a whole number of at least {least}{or_else}")
    return int(text)
