"""Loading of experiment files: includes, sweeps, retraining derived from training, defaults, checks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from luigi_prune.config.checks import check_experiment
from luigi_prune.config.density_checks import features_of
from luigi_prune.config.foreign_parts import classes_of, resolve_foreign_parts
from luigi_prune.config.key_names import IGNORED, SECTIONS, KeyPath, SettingError, shown_path
from luigi_prune.config.loader.includes import find_file, load_tree
from luigi_prune.config.loader.sweep import sweep_members
from luigi_prune.config.loader.yaml_positions import Node, Place
from luigi_prune.config.messages import setting_error, unknown_key
from luigi_prune.config.schema import Experiment, TrainingConfig
from luigi_prune.config.weights_files import resolve_weights
from luigi_prune.errors import ConfigError
from luigi_prune.registry.network_families import BY_SIZE, SMALL_IMAGE

logger = logging.getLogger("luigi_prune")

_TOP = (*SECTIONS, "network_names", "network_colors")


def load_experiments(config: str | Path) -> list[Experiment]:
    """Return the experiments of a file, one per member of its sweep, each fully resolved.

    The file is searched relative to the working directory, then among the packaged ones. Settings without effect are
    logged to the logger `luigi_prune`. Raises ConfigError with file, line, key, value and nearest choice.
    """
    try:
        path = find_file(str(config))
    except ConfigError as error:
        raise ConfigError(f"config: {error}") from None
    root = load_tree(path)
    messages: dict[tuple[int, str], None] = {}
    experiments = []
    for suffix, member in sweep_members(root):
        name = f"{path.stem}-{suffix}" if suffix else path.stem
        try:
            experiment, notes = _experiment(name, member, path.parent)
        except SettingError as error:
            raise ConfigError(f"{_place(member, error.path)}: {error}") from None
        experiments.append(experiment)
        messages.update({(level, f"{_place(member, at)}: {shown_path(at)}: {text}"): None for level, at, text in notes})
    for level, text in messages:
        logger.log(level, text)
    return experiments


def _experiment(name: str, root: Node, folder: Path) -> tuple[Experiment, list[tuple[int, KeyPath, str]]]:
    """Return one experiment and the notes on it: (log level, key path, text)."""
    plain, notes = _sections(root, folder)
    try:
        experiment = Experiment.model_validate({"name": name, **plain})
    except ValidationError as error:
        raise setting_error(error) from None
    experiment, warnings = check_experiment(resolve_foreign_parts(experiment, folder))
    experiment = resolve_weights(experiment, folder)
    network, nets = experiment.network, experiment.experiments.num_nets
    if network.weights and not network.new_layers and experiment.training.num_epochs == 0 and nets > 1:
        text = f"the {nets} networks are one and the same: all have the given weights, and none is trained"
        notes.append((logging.WARNING, ("experiments", "num_nets"), text))
    if (name := network.name) in BY_SIZE:
        text = f"is the network of CIFAR papers for images below {SMALL_IMAGE} pixels, torchvision's for larger ones; "
        notes.append((logging.INFO, ("network", "name"), f"{text}{name}_cifar and torchvision:{name} name one of them"))
    return experiment, [*notes, *((logging.WARNING, path, text) for path, text in warnings)]


def _sections(root: Node, folder: Path) -> tuple[dict[str, Any], list[tuple[int, KeyPath, str]]]:
    """Return the settings as plain dictionaries, with retraining derived and ignored keys removed; and notes."""
    plain: dict[str, Any] = {key: {} if value is None else value for key, value in root.plain().items()}
    notes: list[tuple[int, KeyPath, str]] = []
    for above, names in IGNORED.items():
        section = plain.get(above[0]) if above else plain
        for key in names:
            if isinstance(section, dict) and key in section:
                del section[key]
                notes.append((logging.INFO, (*above, key), "is accepted for compatibility and has no effect"))
    for key in plain:
        if key not in _TOP:
            raise unknown_key((key,)) if key not in TrainingConfig.model_fields else _misplaced(key)
    for key in ("network", "training", "experiments"):
        if key not in plain:
            raise SettingError((key,), "is missing")
    for key in _TOP:
        if not isinstance(plain.get(key, {}), dict):
            raise SettingError((key,), f"expected a dictionary, got {plain[key]!r}")
    notes += _derive_retraining(plain)
    network = plain["network"]
    modules = plain.get("directories", {}).get("modules")
    if "output_size" not in network and (
        outputs := features_of(network.get("name"), network.get("dataset"))
        or classes_of(network.get("dataset"), Path(modules) if isinstance(modules, str) else folder)
    ):
        network["output_size"] = outputs
    return plain, notes


def _derive_retraining(plain: dict[str, Any]) -> list[tuple[int, KeyPath, str]]:
    """Make `retraining` a copy of `training` overridden by its own keys, from epoch 0; return notes on ignored keys."""
    training, overrides = plain["training"], plain.get("retraining", {})
    notes: list[tuple[int, KeyPath, str]] = []
    if training.pop("start_epoch", 0):
        notes.append((logging.WARNING, ("training", "start_epoch"), "has no effect: training starts at epoch 0"))
    metrics = overrides.pop("metrics_test", None)
    if metrics is not None and metrics != training.get("metrics_test"):
        text = "has no effect: retraining uses the metrics of training"
        notes.append((logging.WARNING, ("retraining", "metrics_test"), text))
    for key in ("batch_size", "optimizer", "num_epochs"):
        if key not in training:
            default = TrainingConfig.model_fields[key].default
            notes.append((logging.WARNING, ("training", key), f"is missing; the default is {default!r}"))
    plain["retraining"] = {**training, **overrides}
    return notes


def _misplaced(key: str) -> SettingError:
    return SettingError(
        (key,), "is a key of `training`; include a file of training settings as 'training: {file: ...}'"
    )


def _place(root: Node, path: KeyPath) -> Place:
    """Return the place of a key; for a key of `retraining` inherited from `training`, its place there."""
    if path and path[0] == "retraining":
        direct, inherited = _depth(root, path), _depth(root, ("training", *path[1:]))
        if len(path) > 1 and direct < 2 <= inherited:
            path = ("training", *path[1:])
    node = root.find(path)
    return Place(node.place.file) if node is root else node.place


def _depth(root: Node, path: KeyPath) -> int:
    """Return the number of steps of the path that exist in the tree."""
    return next(
        (depth for depth in range(len(path)) if root.find(path[: depth + 1]) is root.find(path[:depth])), len(path)
    )
