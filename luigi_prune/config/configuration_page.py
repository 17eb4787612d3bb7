"""The configuration reference, docs/configuration.md, generated from the models and the registry.

`python -m luigi_prune.config.configuration_page` prints it.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from luigi_prune import registry
from luigi_prune.config.key_names import IGNORED, models_below, shown_key, shown_path
from luigi_prune.config.schema import (
    CoresetConfig,
    Directories,
    ExperimentsConfig,
    NetworkConfig,
    PlottingConfig,
    SpacingConfig,
    TrainingConfig,
)

_HEAD = """\
# Configuration reference

Generated from the schema by `python -m luigi_prune.config.configuration_page > docs/configuration.md`; edit the schema
instead.

An experiment file is YAML. [sample/tutorial.yaml](../configs/sample/tutorial.yaml) explains one from top to bottom.

- Every key may be written in camelCase, as below, or in snake_case.
- `file:` in any dictionary includes another file, whose content comes first; a key beside it replaces the included
  value entirely. Files, like the argument of `--config`, are searched relative to the working directory, then beside
  the including file, then among those of the package. The prefix `src/experiment/experiment/param/` is ignored.
- `retraining` is a copy of `training`, overridden by its own `file:` and keys; `startEpoch` defaults to 0, and the
  metrics are always those of `training`.
- `customizations` lists the members of a sweep: `- {key: [training, optimizerKwargs, lr], value: 0.01}` replaces the
  value at the key path, after all includes. Dictionaries missing below `retraining` are first copied from `training`.
- `directories`, `coresets`, `network_names` and `network_colors` merge key by key with their defaults.
- Settings of the machine (partitions, GPUs, threads) belong in `luigi.cfg`, never here; its section `[directories]`
  overrides `directories`.
"""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("network", NetworkConfig),
    ("training, retraining", TrainingConfig),
    ("experiments", ExperimentsConfig),
    ("experiments.plotting", PlottingConfig),
    ("experiments.spacing", SpacingConfig),
    ("directories", Directories),
    ("coresets", CoresetConfig),
)

_FOLLOWS = {"test_batch_size": "`batchSize`", "early_stop_epoch": "`numEpochs`", "output_size": "number of classes"}


def reference_markdown() -> str:
    """Return the whole reference as markdown."""
    parts = [_HEAD]
    for title, model in _SECTIONS:
        rows = [_row(name, field) for name, field in model.model_fields.items()]
        parts.append(f"## `{title}`\n\n{model.__doc__}\n\n" + _table(("key", "type", "default", "meaning"), rows))
    parts.append(
        "## `network_names`, `network_colors`\n\nLabels and colours of the methods in the report, by class name or "
        "short name. Colours are those of matplotlib.\n"
    )
    ignored = [f"`{shown_path((*above, key))}`" for above, keys in IGNORED.items() for key in keys]
    parts.append(f"## Accepted and ignored\n\n{', '.join(ignored)}: keys of older files, without effect.\n")
    parts.append(_names())
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> tuple[str, ...]:
    return f"`{shown_key(name)}`", _type(field.annotation), _default(name, field), field.description or ""


def _type(annotation: Any) -> str:
    """Return a short description of a type."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return "dictionary"
    if type(None) in inner:
        return " or ".join(_type(kind) for kind in inner if kind is not type(None)) + ", or none"
    if origin is typing.Annotated:
        return _type(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = [f"`{shown_key(name)}`" for model in models_below(annotation) for name in model.model_fields]
        return "{" + ", ".join(dict.fromkeys(keys)) + "}"
    return {int: "integer", float: "number", str: "string", bool: "true or false"}.get(annotation, "any")


def _default(name: str, field: FieldInfo) -> str:
    if name in _FOLLOWS:
        return _FOLLOWS[name]
    if field.default is PydanticUndefined:
        return "required"
    return f"`{json.dumps(_plain(field.default))}`" if field.default is not None else ""


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {shown_key(key): _plain(inner) for key, inner in value.model_dump().items() if inner != {}}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _names() -> str:
    """Return the tables of all registered parts."""
    parts = ["## Names\n"]
    methods = [(f"`{r.name}`", f"`{r.short}`", r.granularity, r.summary, r.paper) for r in registry.METHODS.values()]
    parts += ["### Methods\n", _table(("name", "short", "granularity", "definition", "paper"), methods)]
    networks = [(f"`{row.name}`", row.summary) for row in registry.NETWORKS.values()]
    networks += [(f"`{family.form}`", family.summary) for family in registry.NETWORKS.families]
    parts += ["### Networks\n", _table(("name", "description"), networks)]
    datasets = [
        (f"`{row.name}`", str(row.num_classes or ""), _shape(row.input_shape), row.summary)
        for row in registry.DATASETS.values()
    ]
    datasets += [(f"`{family.form}`", "", "", family.summary) for family in registry.DATASETS.families]
    parts += ["### Data sets\n", _table(("name", "classes", "shape of an input", "description"), datasets)]
    for title, rows in (
        ("Optimizers", registry.OPTIMIZERS),
        ("Learning-rate schedulers", registry.SCHEDULERS),
        ("Losses", registry.LOSSES),
        ("Metrics", registry.METRICS),
        ("Transforms", registry.TRANSFORMS),
    ):
        parts += [f"### {title}\n", _classes(rows)]
    return "\n".join(parts)


def _shape(shape: Any) -> str:
    """Return the shape of an input as text: channels x height x width, or that of each of several inputs by name."""
    if isinstance(shape, Mapping):
        return ", ".join(f"{name}: {_shape(part) or 1}" for name, part in shape.items())
    return " x ".join(map(str, shape or ()))


def _classes(rows: Mapping[str, registry.ClassRow]) -> str:
    """Return the table of classes with their keywords; those of schedulers that count epochs are marked."""
    table = []
    for row in rows.values():
        epochs = row.epochs if isinstance(row, registry.SchedulerRow) else ()
        keywords = [f"**`{name}`**" if name in row.required else f"`{name}`" for name in row.keywords]
        marked = [
            text + (" (epochs)" if name in epochs else "") for name, text in zip(row.keywords, keywords, strict=True)
        ]
        table.append((f"`{row.name}`", ", ".join(marked)))
    return _table(("name", "keywords (required ones in bold)"), table)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    print(reference_markdown(), end="")
