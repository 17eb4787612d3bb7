"""The keys of an experiment file: their two spellings, their valid positions, and which are ignored."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from luigi_prune.config.schema import (
    CoresetConfig,
    Directories,
    ExperimentsConfig,
    NetworkConfig,
    TrainingConfig,
    camel_case,
)
from luigi_prune.errors import ConfigError

KeyPath = tuple[str | int, ...]

SECTIONS: dict[str, type[BaseModel]] = {
    "network": NetworkConfig,
    "training": TrainingConfig,
    "retraining": TrainingConfig,
    "experiments": ExperimentsConfig,
    "directories": Directories,
    "coresets": CoresetConfig,
}

FREE = frozenset({"kwargs", "step_kwargs", "optimizer_kwargs", "loss_kwargs", "network_names", "network_colors"})
"""Keys whose dictionaries hold user-defined names, which are never respelled."""

IGNORED: dict[tuple[str, ...], tuple[str, ...]] = {
    (): ("blacklist", "description"),
    ("experiments",): ("datasets_to_evaluate",),
    ("coresets",): ("delta_best", "size_of_t"),
}
"""Keys of the reference without effect here."""

_SNAKE = frozenset({"trained_networks", "training_data", "local_data", "network_names", "network_colors"})


class SettingError(ConfigError):
    """A setting that cannot work: the path of its key (snake_case names and list indices) and the reason."""

    def __init__(self, path: Sequence[str | int], reason: str):
        super().__init__(f"{shown_path(path)}: {reason}")
        self.path = tuple(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[SettingError], tuple[KeyPath, str]]:
        return SettingError, (self.path, self.reason)


def models_below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the model and all models nested in its fields and lists."""
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models_below(kind)


def _spellings() -> dict[str, str]:
    names = {"network_names", "network_colors", "customizations", *SECTIONS}
    for model in SECTIONS.values():
        names.update(name for inner in models_below(model) for name in inner.model_fields)
    for ignored in IGNORED.values():
        names.update(ignored)
    return {spelling: name for name in names for spelling in (name, camel_case(name), to_camel(name))}


_NAMES = _spellings()


def field_name(key: str) -> str:
    """Return the snake_case name of a key in either spelling; an unknown key unchanged."""
    return _NAMES.get(key, key)


def shown_key(name: str) -> str:
    """Return a key as experiment files spell it."""
    return camel_case(name) if name in _NAMES.values() and name not in _SNAKE else name


def shown_path(path: Sequence[str | int]) -> str:
    """Return a key path as messages show it: `training.lrSchedulers[1].type`."""
    text = ""
    free = False
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            shown = step if free else shown_key(step)
            text += ("." if text else "") + (shown if shown.isprintable() else repr(shown))
            free = free or step in FREE
    return text


def known_keys(path: Sequence[str | int]) -> list[str] | None:
    """Return the valid keys of the dictionary at `path`, None if any key is valid.

    Raises SettingError if there is no dictionary at `path`.
    """
    if not path:
        return [*SECTIONS, "network_names", "network_colors"]
    if any(step in FREE for step in path):
        return None
    model: type[BaseModel] | None = None
    listed = False
    for depth, step in enumerate(path):
        if isinstance(step, int):
            listed = False
            continue
        annotation = model.model_fields[step].annotation if model and step in model.model_fields else None
        kinds = typing.get_args(annotation)
        inner = [SECTIONS.get(step)] if depth == 0 else [annotation, *kinds]
        models = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        model = models[0] if models and not listed else None
        listed = typing.get_origin(annotation) is tuple
    if model is None or listed:
        raise SettingError(path, "is not a dictionary")
    return list(model.model_fields)
