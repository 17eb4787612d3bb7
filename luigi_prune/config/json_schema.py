"""The JSON schema of experiment files, for completion and checks in editors."""

from __future__ import annotations

import re
from typing import Any

from luigi_prune import registry
from luigi_prune.config.key_names import IGNORED, SECTIONS, field_name, shown_key
from luigi_prune.registry import KindName
from luigi_prune.registry.row_reading import REFERENCE

_FILE = {"type": "string", "description": "A file to include; keys beside this one override it."}
_IMPORT_PATH = {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}
_NO_EFFECT = {"description": "Accepted for compatibility; has no effect."}
_NAMED: dict[tuple[str, str], KindName] = {
    ("NetworkConfig", "name"): "network",
    ("NetworkConfig", "dataset"): "dataset",
    ("TrainingConfig", "loss"): "loss",
    ("TrainingConfig", "optimizer"): "optimizer",
    ("SchedulerComponent", "type"): "scheduler",
    ("Transform", "type"): "transform",
    ("Metric", "type"): "metric",
}
_GROUP_NAME = r"\(\?P<\w+>"  # Python's; editors read the expressions of ECMAScript
_LIST_ENTRIES = ("Component", "SchedulerComponent", "SpacingConfig")


def file_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of an experiment file.

    It has both spellings of every key, `file` in every dictionary, and the registered names as choices. No key is
    required, since an included file may contain it.
    """
    definitions: dict[str, Any] = {}
    for model in SECTIONS.values():
        schema = model.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        definitions[model.__name__] = schema
    component = definitions.pop("Component")
    for kind in ("Transform", "Metric"):
        definitions[kind] = {**component, "properties": {**component["properties"]}}
    for name, definition in definitions.items():
        _open_up(name, definition)
    nothing = {"type": "null"}  # `retraining:` without a value
    sections = {key: {"anyOf": [{"$ref": f"#/$defs/{model.__name__}"}, nothing]} for key, model in SECTIONS.items()}
    per_method = {
        "type": "object",
        "propertyNames": {
            "anyOf": [
                {"enum": sorted({*_choices("method"), "NetHandle"})},
                _IMPORT_PATH,
            ]
        },
        "additionalProperties": {"type": "string"},
    }
    properties = {
        "file": _FILE,
        **sections,
        "network_names": {**per_method, "description": "Labels of methods in the report."},
        "network_colors": {**per_method, "description": "Colours of methods in the report, of matplotlib."},
        "customizations": _sweep(),
        **{shown_key(key): _NO_EFFECT for key in IGNORED[()]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Experiment file of luigi_prune",
        "type": "object",
        "properties": {**properties, "networkNames": properties["network_names"], "networkColors": per_method},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _open_up(name: str, definition: dict[str, Any]) -> None:
    """Extend the schema of a model to that of a dictionary in a file, in place."""
    properties: dict[str, Any] = {}
    for alias, schema in definition["properties"].items():
        key = field_name(alias)
        changed = _named(name, key, {k: v for k, v in schema.items() if k != "title"})
        for spelling in dict.fromkeys((shown_key(key), key)):
            properties[spelling] = changed
    if name not in (*_LIST_ENTRIES, "Transform", "Metric"):
        properties["file"] = _FILE
        definition.pop("required", None)
    for above, ignored in IGNORED.items():
        if above and SECTIONS[above[0]].__name__ == name:
            properties.update({shown_key(key): _NO_EFFECT for key in ignored})
    definition["properties"] = properties
    definition.pop("title", None)


def _named(model: str, key: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a key's schema with registered names as choices, and lists of components by kind."""
    if kind := _NAMED.get((model, key)):
        return {**schema, **_named_part(kind)}
    if key == "methods":
        return {**schema, "items": _named_part("method")}
    if key == "dataset_test":
        choices = _named_part("dataset")
        rest = {k: v for k, v in schema.items() if k not in ("type", "items")}
        return {**rest, "anyOf": [choices, {"type": "array", "items": choices}]}
    if key.startswith("transforms_"):
        return {**schema, "items": {"$ref": "#/$defs/Transform"}}
    if key == "metrics_test":
        return {**schema, "items": {"$ref": "#/$defs/Metric"}}
    return schema


def _named_part(kind: KindName) -> dict[str, Any]:
    """Return the schema of a name: a registered one, a family's member or an import path."""
    families = [
        {"type": "string", "pattern": f"^({re.sub(_GROUP_NAME, '(', family.pattern)})$"}
        for family in registry.KINDS[kind].rows.families
    ]
    return {"anyOf": [{"enum": _choices(kind)}, *families, _IMPORT_PATH]}


def _choices(kind: KindName) -> list[str]:
    known = registry.KINDS[kind]
    return [*known.rows.choices, *known.short]


def _sweep() -> dict[str, Any]:
    entry = {
        "type": "object",
        "properties": {
            "key": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Path to the setting."},
            "value": {"description": "The new value."},
        },
        "required": ["key", "value"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": entry, "minItems": 1, "description": "A sweep: one experiment per entry."}
