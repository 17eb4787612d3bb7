"""Look-up of experiment files and their `file:` includes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from luigi_prune.config.key_names import FREE, field_name, shown_path
from luigi_prune.config.loader.yaml_positions import Node, UnreadableFile, read_yaml
from luigi_prune.errors import ConfigError, nearest

PACKAGED = Path(__file__).resolve().parents[2] / "configs"
"""The experiment files of the package."""

REFERENCE_PREFIX = "src/experiment/experiment/param/"
"""The folder of the reference's files; ignored in look-ups."""


def packaged_files() -> list[str]:
    """Return the names of all packaged experiment files, relative to their folder."""
    return sorted(path.relative_to(PACKAGED).as_posix() for path in PACKAGED.rglob("*.yaml"))


def spellings(name: str) -> Iterator[str]:
    """Yield the possible names of a file of the reference: unchanged, without its prefix, without `param/`.

    The reference has the files of a paper in `paper/<paper>/param/`; this package in `paper/<paper>/`.
    """
    yield name
    short = name.removeprefix("./").removeprefix(REFERENCE_PREFIX)
    yield short
    parts = short.split("/")
    if parts[:1] == ["paper"] and parts[2:3] == ["param"]:
        yield "/".join(parts[:2] + parts[3:])


def find_file(name: str, beside: Path | None = None) -> Path:
    """Return the file called `name`: relative to the working directory, beside the file `beside`, or packaged.

    A folder of that name comes after all files. Raises ConfigError if there is none.
    """
    if not name.strip():
        raise ConfigError(f"expected a file name, got {name!r}")
    folders = [Path(), *([beside.parent] if beside else []), PACKAGED]
    try:
        candidates = [folder / Path(spelling).expanduser() for folder in folders for spelling in spellings(name)]
        for exists in (Path.is_file, Path.exists):
            for path in candidates:
                if exists(path):
                    return path
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name!r} is not the name of a file: {error}") from None
    nearby = f", nor beside {shown_file(beside)}" if beside else ""
    raise ConfigError(
        f"there is no file {name!r}: neither in the working directory{nearby}, nor among the packaged ones"
        f"{_nearest_file(name)}"
    )


def _nearest_file(name: str) -> str:
    """Return the nearest file of the working directory or of the package; if none is near, some, own ones first."""
    own = sorted(path.name for pattern in ("*.yaml", "*.yml") for path in Path().glob(pattern))
    packaged = packaged_files()
    # ".yaml", which all have, makes no name near
    alike = [file for file in {*own, *packaged} if difflib.get_close_matches(Path(name).stem, [Path(file).stem])]
    if close := nearest(name, alike, listed=False):
        return close
    samples = [file for file in packaged if file.startswith("sample/")]
    shown = list(dict.fromkeys([*own[:6], *samples, *packaged]))[:12]
    return f"; choose from {', '.join(shown)}, ..."


def shown_file(path: Path) -> str:
    """Return a file's path for messages: relative to the working directory if it is below it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def load_tree(path: Path, keys: tuple[str, ...] = (), opened: tuple[Path, ...] = ()) -> Node:
    """Return the tree of a file with all includes resolved; its content belongs at the key path `keys`.

    All known keys become snake_case. A key beside `file:` replaces the included value entirely. Raises ConfigError for
    missing files and for files that include themselves.
    """
    real = path.resolve()
    if real in opened:
        chain = " -> ".join(shown_file(file) for file in (*opened[opened.index(real) :], real))
        raise ConfigError(f"the file includes itself: {chain}")
    return _resolve(read_yaml(path, shown_file(path)), keys, path, (*opened, real))


def _resolve(node: Node, keys: tuple[str, ...], origin: Path, opened: tuple[Path, ...]) -> Node:
    """Return a dictionary of the file `origin` with all includes resolved and keys in snake_case."""
    assert isinstance(node.value, dict)
    free = any(key in FREE for key in keys)
    entries: dict[str, Node] = {}
    included: dict[str, Node] = {}
    for key, inner in node.value.items():
        if key == "file":
            included = _include(inner, keys, origin, opened)
            continue
        name = key if free else field_name(key)
        if name in entries:
            raise ConfigError(f"{inner.place}: {shown_path((*keys, name))}: appears twice, in two spellings")
        if isinstance(inner.value, dict):
            entries[name] = _resolve(inner, (*keys, name), origin, opened)
        elif name == "customizations" and not keys:
            entries[name] = _customizations(inner, origin, opened)
        else:
            entries[name] = inner if free else _respell(inner)
    return Node({**included, **entries}, node.place)


def _include(node: Node, keys: tuple[str, ...], origin: Path, opened: tuple[Path, ...]) -> dict[str, Node]:
    where = f"{node.place}: {shown_path((*keys, 'file'))}"
    if not isinstance(node.value, str):
        raise ConfigError(f"{where}: expected a file name, got {node.plain()!r}")
    try:
        path = find_file(node.value, origin)
        if path.resolve() in opened:
            load_tree(path, keys, opened)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    try:
        tree = load_tree(path, keys, opened)
    except UnreadableFile as error:
        raise ConfigError(f"{where}: {error}") from None
    assert isinstance(tree.value, dict)
    return tree.value


def _customizations(node: Node, origin: Path, opened: tuple[Path, ...]) -> Node:
    """Return the list of a sweep with the includes of its values resolved."""
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
    """Return a value with all keys in snake_case, including those in lists."""
    if isinstance(node.value, list):
        return Node([_respell(inner) for inner in node.value], node.place)
    if not isinstance(node.value, dict):
        return node
    entries: dict[str, Node] = {}
    for key, inner in node.value.items():
        name = field_name(key)
        if name in entries:
            raise ConfigError(f"{inner.place}: {key}: appears twice, in two spellings")
        entries[name] = inner if name in FREE else _respell(inner)
    return Node(entries, node.place)
