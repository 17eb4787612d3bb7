"""Where experiment files lie, and their `file:` includes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from luigi_prune.config.key_names import FREE, field_name, shown_path
from luigi_prune.config.loader.yaml_positions import Node, read_yaml
from luigi_prune.errors import ConfigError, nearest

PACKAGED = Path(__file__).resolve().parents[2] / "configs"
"""The experiment files that come with the package."""

REFERENCE_PREFIX = "src/experiment/experiment/param/"
"""Where the reference keeps its files; dropped in look-ups."""


def packaged_files() -> list[str]:
    """Return the names of all packaged experiment files, relative to their folder."""
    return sorted(path.relative_to(PACKAGED).as_posix() for path in PACKAGED.rglob("*.yaml"))


def spellings(name: str) -> Iterator[str]:
    """Yield the names under which a file of the reference may lie: as given, without its prefix, without `param/`.

    The reference keeps the files of a paper in `paper/<paper>/param/`; ours lie in `paper/<paper>/`.
    """
    yield name
    short = name.removeprefix("./").removeprefix(REFERENCE_PREFIX)
    yield short
    parts = short.split("/")
    if parts[:1] == ["paper"] and parts[2:3] == ["param"]:
        yield "/".join(parts[:2] + parts[3:])


def find_file(name: str, beside: Path | None = None) -> Path:
    """Return the file called `name`: relative to the working directory, beside the file `beside`, or packaged.

    Raises ConfigError where there is none.
    """
    folders = [Path(), *([beside.parent] if beside else []), PACKAGED]
    try:
        candidates = [folder / Path(spelling).expanduser() for folder in folders for spelling in spellings(name)]
        for found in (Path.is_file, Path.exists):
            for path in candidates:
                if found(path):
                    return path
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name!r} is not the name of a file: {error}") from None
    nearby = f", nor beside {shown_file(beside)}" if beside else ""
    raise ConfigError(
        f"there is no file {name!r}: neither in the working directory{nearby}, nor among the packaged ones"
        f"{nearest(name, packaged_files())}"
    )


def shown_file(path: Path) -> str:
    """Return how messages call a file: relative to the working directory where it lies below it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def load_tree(path: Path, keys: tuple[str, ...] = (), opened: tuple[Path, ...] = ()) -> Node:
    """Return the tree of a file whose content stands at the key path `keys`, every include resolved.

    All keys that are ours are snake_case in it. An included dictionary comes first; a key beside `file:` replaces the
    included value whole. Raises ConfigError for missing files and for files that include themselves.
    """
    real = path.resolve()
    if real in opened:
        chain = " -> ".join(shown_file(file) for file in (*opened[opened.index(real) :], real))
        raise ConfigError(f"the file includes itself: {chain}")
    return _resolve(read_yaml(path, shown_file(path)), keys, path, (*opened, real))


def _resolve(node: Node, keys: tuple[str, ...], origin: Path, opened: tuple[Path, ...]) -> Node:
    """Return a dictionary of the file `origin` with its includes and those below it, keys respelled."""
    assert isinstance(node.value, dict)
    free = any(key in FREE for key in keys)
    own: dict[str, Node] = {}
    included: dict[str, Node] = {}
    for key, inner in node.value.items():
        if key == "file":
            included = _include(inner, keys, origin, opened)
            continue
        name = key if free else field_name(key)
        if name in own:
            raise ConfigError(f"{inner.place}: {shown_path((*keys, name))}: stands there twice, in two spellings")
        if isinstance(inner.value, dict):
            own[name] = _resolve(inner, (*keys, name), origin, opened)
        elif name == "customizations" and not keys:
            own[name] = _customizations(inner, origin, opened)
        else:
            own[name] = inner if free else _respell(inner)
    return Node({**included, **own}, node.place)


def _include(node: Node, keys: tuple[str, ...], origin: Path, opened: tuple[Path, ...]) -> dict[str, Node]:
    where = f"{node.place}: {shown_path((*keys, 'file'))}"
    if not isinstance(node.value, str) or not node.value:
        raise ConfigError(f"{where}: the name of a file is wanted, not {node.plain()!r}")
    try:
        path = find_file(node.value, origin)
        if path.resolve() in opened:
            load_tree(path, keys, opened)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    tree = load_tree(path, keys, opened)
    assert isinstance(tree.value, dict)
    return tree.value


def _customizations(node: Node, origin: Path, opened: tuple[Path, ...]) -> Node:
    """Return the list of a sweep with includes in its values resolved."""
    if not isinstance(node.value, list):
        return node
    entries = []
    for entry in node.value:
        if isinstance(entry.value, dict) and {"key", "value"} <= set(entry.value):
            key, value = entry.value["key"].plain(), entry.value["value"]
            path = tuple(field_name(str(step)) for step in key) if isinstance(key, list) else ()
            if isinstance(value.value, dict):
                value = _resolve(value, path, origin, opened)
            elif not any(step in FREE for step in path):
                value = _respell(value)
            entry = Node({**entry.value, "value": value}, entry.place)
        entries.append(entry)
    return Node(entries, node.place)


def _respell(node: Node) -> Node:
    """Return a value with the keys of all dictionaries in its lists in snake_case."""
    if isinstance(node.value, list):
        return Node([_respell(inner) for inner in node.value], node.place)
    if not isinstance(node.value, dict):
        return node
    own: dict[str, Node] = {}
    for key, inner in node.value.items():
        name = field_name(key)
        if name in own:
            raise ConfigError(f"{inner.place}: {key}: stands there twice, in two spellings")
        own[name] = inner if name in FREE else _respell(inner)
    return Node(own, node.place)
