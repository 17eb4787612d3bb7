"""Foreign parts of an experiment: look-up and replacement of their names by the resolved names of specs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luigi_prune import registry
from luigi_prune.config.key_names import KeyPath, SettingError
from luigi_prune.config.schema import Component, Experiment, TrainingConfig
from luigi_prune.errors import ConfigError
from luigi_prune.registry import KindName


def resolve_foreign_parts(experiment: Experiment, folder: Path) -> Experiment:
    """Return the experiment with foreign parts under their resolved names (`registry.resolve_name`).

    `folder`: the experiment file's, searched for modules first; `directories.modules` overrides it, and passes it to
    jobs. Raises SettingError for an import path that cannot be used.
    """
    folder = Path(experiment.directories.modules or folder).resolve()
    registry.look_in(folder)

    def name(kind: KindName, written: str, *path: str | int) -> str:
        return _resolve(kind, written, path, folder)

    def components(kind: KindName, parts: Sequence[Any], *path: str | int) -> tuple[Any, ...]:
        return tuple(
            part.model_copy(update={"type": name(kind, part.type, *path, index, "type")})
            for index, part in enumerate(parts)
        )

    def training(config: TrainingConfig, section: str) -> TrainingConfig:
        changes: dict[str, Any] = {
            "optimizer": name("optimizer", config.optimizer, section, "optimizer"),
            "loss": name("loss", config.loss, section, "loss"),
            "lr_schedulers": components("scheduler", config.lr_schedulers, section, "lr_schedulers"),
            "metrics_test": components("metric", config.metrics_test, section, "metrics_test"),
        }
        for key in ("transforms_train", "transforms_test", "transforms_final"):
            transforms: tuple[Component, ...] = getattr(config, key)
            changes[key] = components("transform", transforms, section, key)
        return config.model_copy(update=changes)

    network, settings = experiment.network, experiment.experiments
    tests = [name("dataset", n, "experiments", "dataset_test", at) for at, n in enumerate(settings.dataset_test)]
    methods = [name("method", n, "experiments", "methods", at) for at, n in enumerate(settings.methods)]
    for at, method in enumerate(methods):
        if (first := settings.methods[methods.index(method)]) != settings.methods[at]:
            text = f"the method {registry.plain(method)} appears twice, as {first!r} and as {settings.methods[at]!r}"
            raise SettingError(("experiments", "methods", at), text)
    changed = experiment.model_copy(
        update={
            "network": network.model_copy(
                update={
                    "name": name("network", network.name, "network", "name"),
                    "dataset": name("dataset", network.dataset, "network", "dataset"),
                }
            ),
            "training": training(experiment.training, "training"),
            "retraining": training(experiment.retraining, "retraining"),
            "experiments": settings.model_copy(update={"dataset_test": tuple(tests), "methods": tuple(methods)}),
        }
    )
    if "@" not in changed.model_dump_json(exclude={"directories"}):  # no foreign parts, so the folder does not matter
        return changed
    return changed.model_copy(update={"directories": changed.directories.model_copy(update={"modules": str(folder)})})


def _resolve(kind: KindName, written: str, path: KeyPath, folder: Path) -> str:
    """Return the resolved name; raises SettingError at `path` if the part cannot be used."""
    known = registry.KINDS[kind]
    if ":" not in written and known.short.get(written, written) not in known.rows:
        return written  # `check_experiment` reports unknown names
    try:
        return registry.resolve_name(kind, written, folder)
    except ConfigError as error:
        raise SettingError(path, str(error)) from None


def classes_of(dataset: object, folder: Path) -> int | None:
    """Return the number of classes of a data set; None for a regression, or for a value that is not a name.

    Raises SettingError for an unknown name, which would otherwise be reported as a missing number of outputs.
    """
    if not isinstance(dataset, str):
        return None
    try:
        return registry.find("dataset", registry.resolve_name("dataset", dataset, folder)).num_classes
    except ConfigError as error:
        raise SettingError(("network", "dataset"), str(error)) from None
