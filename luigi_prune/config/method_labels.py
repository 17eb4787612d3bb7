"""Labels and colours of the methods in reports: those of the registry, replaced by those of an experiment file."""

from __future__ import annotations

from collections.abc import Mapping

from luigi_prune import registry
from luigi_prune.config.key_names import KeyPath, SettingError
from luigi_prune.errors import nearest
from luigi_prune.registry.colors import CSS_COLORS, is_color

_REFERENCE_ALIAS = "NetHandle"


def labels_of_methods(custom: Mapping[str, str], methods: tuple[str, ...], written: tuple[str, ...]) -> dict[str, str]:
    """Return the labels by resolved method name; raises SettingError if two of `methods` have the same label.

    `written`: the list of methods in the file, for the place of an error.
    """
    given = _by_method("network_names", custom, methods)
    labels = _registered("label", methods) | {method: custom[name] for method, name in given.items()}
    users: dict[str, str] = {}
    for method in methods:
        shown = " ".join(labels[method].split())
        first = users.setdefault(shown, method)
        if first != method:
            culprit = method if method in given or first not in given else first
            other = first if culprit == method else method
            raise SettingError(
                _place(culprit, given, written),
                f"the label {shown!r} of {registry.plain(culprit)} is also that of {registry.plain(other)}; "
                "give one of them another label in network_names",
            )
    return labels


def colors_of_methods(custom: Mapping[str, str], methods: tuple[str, ...]) -> dict[str, str]:
    """Return the colours by resolved method name; raises SettingError for one that matplotlib does not have."""
    given = _by_method("network_colors", custom, methods)
    for name in given.values():
        if not is_color(custom[name]):
            digits = is_color(f"#{custom[name]}")
            cure = f"; did you mean '#{custom[name]}'?" if digits else nearest(custom[name], CSS_COLORS)
            raise SettingError(("network_colors", name), f"{custom[name]!r} is not a colour{cure}")
    return _registered("color", methods) | {method: custom[name] for method, name in given.items()}


def _registered(attribute: str, methods: tuple[str, ...]) -> dict[str, str]:
    values = {name: str(getattr(row, attribute)) for name, row in registry.METHODS.items()}
    return values | {name: str(getattr(registry.METHODS[name], attribute)) for name in methods}


def _by_method(section: str, custom: Mapping[str, str], methods: tuple[str, ...]) -> dict[str, str]:
    """Return the names in a section of the file by resolved method name.

    Raises SettingError for a name that is no method, and for two names of the same method.
    """
    foreign = {name: registry.METHODS[name] for name in methods if registry.is_foreign(name)}
    written = {registry.plain(name): name for name in foreign}  # all three spellings in a file
    written |= {text: name for name, row in foreign.items() for text in (row.short, row.name)}
    given: dict[str, str] = {}
    for name in custom:
        if name == _REFERENCE_ALIAS:
            continue
        method = written.get(name, registry.SHORT_NAMES.get(name, name))
        if method not in registry.METHODS:
            choices = [*registry.METHODS, *registry.SHORT_NAMES, *written]
            raise SettingError((section, name), f"{name!r} is not a pruning method{nearest(name, choices)}")
        if (first := given.setdefault(method, name)) != name:
            raise SettingError((section, name), f"is the method {registry.plain(method)}, as is {first!r} above")
    return given


def _place(method: str, given: Mapping[str, str], written: tuple[str, ...]) -> KeyPath:
    """Return the path of the label of `method`: its key in the section, else its place in the list of methods."""
    if method in given:
        return ("network_names", given[method])
    names = [registry.SHORT_NAMES.get(name, name) for name in written]
    return ("experiments", "methods", names.index(method)) if method in names else ("experiments", "methods")
