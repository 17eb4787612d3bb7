"""What luigi.cfg says about this machine: directories, backend, threads. Never part of a key."""

from __future__ import annotations

import sys
from configparser import InterpolationError
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

import luigi.configuration

from luigi_prune.config.schema import Directories, Experiment
from luigi_prune.errors import ConfigError, LuigiPruneError, nearest
from luigi_prune.execution.backends import AUTO, backend_settings, names
from luigi_prune.execution.job import ComputeSettings

FAMILIES = ("TrainBase", "Prune", "Retrain", "Evaluate", "Aggregate", "Report")
EXIT_CONFIGURATION = 35  # the return code that luigi.cfg gives scheduling errors
PARALLEL = ("TrainBase", "Retrain")  # the families whose jobs can have several processes
_COMPUTE_KEYS = ("backend", "threads", "jobs", "device", "loader_workers", "deterministic", "processes")


def refuse(error: LuigiPruneError | str) -> NoReturn:
    """End the run with one line on standard error; Luigi would print a traceback for any Exception."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CONFIGURATION)


def packaged_config() -> Path:
    """Return the luigi.cfg that the package ships."""
    return Path(__file__).resolve().parents[1] / "luigi.cfg"


def load_packaged_config() -> None:
    """Put the packaged luigi.cfg below all others, so that its settings hold wherever nobody says otherwise."""
    parser = luigi.configuration.LuigiConfigParser
    path = str(packaged_config())
    if path not in parser._config_paths:
        parser._config_paths.insert(0, path)
        parser.reload()


def directories_for(experiment: Experiment) -> Directories:
    """Return the experiment's directories, with luigi.cfg [directories] over them."""
    given = _section("directories")
    known = Directories.model_fields
    for key in given:
        if key not in known:
            raise ConfigError(f"luigi.cfg: [directories] {key}: unknown key{nearest(key, known)}")
    return experiment.directories.model_copy(update=given)


def compute_settings() -> ComputeSettings:
    """Return the sections [compute] and [compute.<Family>] of luigi.cfg; raises ConfigError."""
    given = _section("compute")
    for key in given:
        if key not in _COMPUTE_KEYS:
            raise ConfigError(f"luigi.cfg: [compute] {key}: unknown key{nearest(key, _COMPUTE_KEYS)}")
    if (backend := given.get("backend", AUTO)) not in (backends := (AUTO, *names())):
        raise ConfigError(f"luigi.cfg: [compute] backend: {backend!r} is not a backend{nearest(backend, backends)}")
    if (device := given.get("device", "auto")) not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"luigi.cfg: [compute] device: {device!r} is none of auto, cpu, cuda")
    settings = ComputeSettings(
        backend=backend,
        threads=_whole("compute", "threads", given, 1, 1),
        jobs=_whole("compute", "jobs", given, 0, 0),
        device=device,
        loader_workers=_whole("compute", "loader_workers", given, 0, 0),
        deterministic=_flag("compute", "deterministic", given),
        processes=_processes(given),
    )
    sections = [name for name in luigi.configuration.get_config().sections() if name.partition(".")[0] == backend]
    return replace(settings, own=backend_settings(settings, {name: _section(name) for name in sections}))


def _processes(compute: dict[str, str]) -> dict[str, int | Literal["gpus"]]:
    """Return the processes of a job per family, of [compute] and of [compute.<Family>] over it."""
    found: dict[str, int | Literal["gpus"]] = {}
    for family in FAMILIES:
        section = f"compute.{family}"
        own = _section(section)
        for key in own:
            if key != "processes" or family not in PARALLEL:
                raise ConfigError(f"luigi.cfg: [{section}] {key}: only processes of TrainBase and Retrain can be set")
        if family in PARALLEL:
            where, given = (section, own) if own else ("compute", compute)
            is_gpus = given.get("processes") == "gpus"
            found[family] = "gpus" if is_gpus else _whole(where, "processes", given, 1, 1, or_else=" or gpus")
    return found


def _section(name: str) -> dict[str, str]:
    config = luigi.configuration.get_config()
    try:
        return dict(config.items(name)) if config.has_section(name) else {}
    except InterpolationError as error:
        said = " ".join(error.message.split())
        raise ConfigError(
            f"luigi.cfg: [{name}] {error.option}: {said}; a percent sign is written %%, and a variable that is not"
            " set here $NAME"
        ) from None


def _flag(section: str, key: str, given: dict[str, str]) -> bool:
    text = given.get(key, "false").lower()
    if text not in ("true", "false"):
        raise ConfigError(f"luigi.cfg: [{section}] {key}: {given[key]!r} is neither true nor false")
    return text == "true"


def _whole(section: str, key: str, given: dict[str, str], default: int, least: int, or_else: str = "") -> int:
    text = given.get(key, str(default))
    if text == "auto" and least == 0:
        return 0
    if not text.isdigit() or int(text) < least:
        raise ConfigError(f"luigi.cfg: [{section}] {key}: {text!r} is not a whole number of at least {least}{or_else}")
    return int(text)
