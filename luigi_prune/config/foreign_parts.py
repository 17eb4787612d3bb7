"""Names of parts from outside in an experiment: each is looked up, and called by the name that a spec holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luigi_prune import registry
from luigi_prune.config.key_names import KeyPath, SettingError
from luigi_prune.config.schema import Component, Experiment, TrainingConfig
from luigi_prune.errors import ConfigError
from luigi_prune.registry import KindName


def settled(experiment: Experiment, folder: Path) -> Experiment:
    """Return the experiment with foreign parts under their settled names (`registry.settle`), its own ones as written.

    `folder`: that of the experiment file, where modules are looked for first; `directories.modules` overrides it, and
    says it to jobs. Raises SettingError for a name that is neither known nor leads to a module's attribute.
    """
    folder = Path(experiment.directories.modules or folder).resolve()
    registry.look_in(folder)

    def name(kind: KindName, written: str, *path: str | int) -> str:
        return _settle(kind, written, path, folder)

    def components(kind: KindName, given: Sequence[Any], *path: str | int) -> tuple[Any, ...]:
        return tuple(
            part.model_copy(update={"type": name(kind, part.type, *path, index, "type")})
            for index, part in enumerate(given)
        )

    def training(given: TrainingConfig, section: str) -> TrainingConfig:
        changes: dict[str, Any] = {
            "optimizer": name("optimizer", given.optimizer, section, "optimizer"),
            "loss": name("loss", given.loss, section, "loss"),
            "lr_schedulers": components("scheduler", given.lr_schedulers, section, "lr_schedulers"),
            "metrics_test": components("metric", given.metrics_test, section, "metrics_test"),
        }
        for key in ("transforms_train", "transforms_test", "transforms_final"):
            transforms: tuple[Component, ...] = getattr(given, key)
            changes[key] = components("transform", transforms, section, key)
        return given.model_copy(update=changes)

    network, settings = experiment.network, experiment.experiments
    tests = [name("dataset", n, "experiments", "dataset_test", at) for at, n in enumerate(settings.dataset_test)]
    methods = [name("method", n, "experiments", "methods", at) for at, n in enumerate(settings.methods)]
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
    if "@" not in changed.model_dump_json(exclude={"directories"}):  # nothing from outside: nobody need know the folder
        return changed
    return changed.model_copy(update={"directories": changed.directories.model_copy(update={"modules": str(folder)})})


def _settle(kind: KindName, written: str, path: KeyPath, folder: Path) -> str:
    """Return the settled name; its ConfigError becomes a SettingError at `path`."""
    known = registry.KINDS[kind]
    if ":" not in written and known.short.get(written, written) not in known.rows:
        return written  # `checked` says what is wrong with it
    try:
        return registry.settle(kind, written, folder)
    except ConfigError as error:
        raise SettingError(path, str(error)) from None


def classes_of(dataset: object, folder: Path) -> int | None:
    """Return the number of classes of a data set, None where it has none or is not known (which is told elsewhere)."""
    if not isinstance(dataset, str):
        return None
    try:
        return registry.find("dataset", registry.settle("dataset", dataset, folder)).num_classes
    except ConfigError:
        return None
