"""The source files of a foreign part: found without importing anything, and hashed, so that an edit is a new part.

A module is looked for beside the experiment file (`folder`), then on the Python path. Its sources are all `.py` files
of its top-level package, or the file of a single module; and so on for every module next to it, in the same folder,
that one of these files imports. What an import statement does not name (data files, extension modules) is not hashed.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from luigi_prune.errors import ConfigError, nearest

DIGITS = 16
# Nobody may replace these by a file of the same name; an import of them never means a neighbour.
_RESERVED = frozenset(sys.stdlib_module_names) | {
    *("luigi_prune", "luigi", "submitit", "torch", "torchvision", "torchmetrics", "numpy", "scipy", "sklearn"),
    *("h5py", "yaml", "pydantic", "matplotlib", "PIL", "jinja2", "tensorboard", "rich"),
}


@dataclass(frozen=True)
class Sources:
    """Where a part's code lies. `units`: top-level module -> its file, or the folder of its package.

    `package`: name and version of the distribution that it belongs to, if any. `files`: path relative to the units'
    folder -> SHA-256. `digest`: of package and files, hexadecimal.
    """

    units: Mapping[str, Path]
    package: str
    files: Mapping[str, str]
    digest: str

    def contents(self, unit: str) -> str:
        """Return the hash of one unit's files."""
        mine = [f"{digest} {file}" for file, digest in self.files.items() if file.split("/")[0] in (unit, f"{unit}.py")]
        return hashlib.sha256("\n".join(sorted(mine)).encode()).hexdigest()


def gather(modules: Iterable[str], folder: Path | None, package: str = "") -> Sources:
    """Return the sources of `modules` together; raises ConfigError for a module that is nowhere."""
    units: dict[str, Path] = {}
    files: dict[str, str] = {}
    packages = {package} - {""}
    for module in modules:
        first = module.partition(".")[0]
        home = find_unit(first, folder).parent
        if not package and (folder is None or home != folder):
            packages |= _distribution(first)
        for name, unit in _closure(first, home).items():
            units[name] = unit
            files |= {file.relative_to(home).as_posix(): _sha256(file) for file in _files(unit)}
    about = " ".join(sorted(packages))
    lines = [about, *(f"{digest} {file}" for file, digest in sorted(files.items()))]
    return Sources(units, about, files, hashlib.sha256("\n".join(lines).encode()).hexdigest())


def module_file(module: str, folder: Path | None) -> Path:
    """Return the source file of a module; raises ConfigError if there is none."""
    first, *rest = module.split(".")
    place = find_unit(first, folder)
    for at, name in enumerate(rest):
        choices = _inside(place) if place.is_dir() else {}
        if name not in choices:
            above = ".".join((first, *rest[:at]))
            raise ConfigError(f"there is no module {module!r}: {above!r} has no {name!r}{nearest(name, choices)}")
        place = choices[name]
    return place / "__init__.py" if place.is_dir() else place


def find_unit(name: str, folder: Path | None) -> Path:
    """Return the file of a top-level module, or the folder of a package."""
    if folder is not None and (beside := beside_unit(name, folder)):
        if name in _RESERVED:
            raise ConfigError(f"{beside} cannot be used: {name!r} is the name of a module that luigi_prune needs")
        return beside
    for finder in sys.meta_path:
        if type(finder).__module__.startswith("luigi_prune"):
            continue  # it answers for modules beside experiment files
        spec = finder.find_spec(name, None)
        if spec is None:
            continue
        if spec.origin and spec.origin.endswith(".py"):
            origin = Path(spec.origin)
            return origin.parent if origin.name == "__init__.py" else origin
        for location in spec.submodule_search_locations or ():
            return Path(location)
        raise ConfigError(f"the module {name!r} has no Python source, so its contents cannot enter a key")
    where = f"beside the experiment file ({folder}) or on the Python path" if folder else "on the Python path"
    raise ConfigError(f"there is no module {name!r} {where}{nearest(name, _inside(folder)) if folder else ''}")


def beside_unit(name: str, folder: Path) -> Path | None:
    """Return the module's file or the package's folder in `folder`; a package needs no `__init__.py`."""
    package, file = folder / name, folder / f"{name}.py"
    if (package / "__init__.py").is_file():
        return package
    if file.is_file():
        return file
    return package if package.is_dir() and any(package.glob("*.py")) else None


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level names of all modules that the statements of a file import, absolutely."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def parse(file: Path) -> ast.Module:
    """Return the syntax tree of a source file; raises ConfigError, with the line, for what is no Python."""
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise ConfigError(f"{file}:{error.lineno}: is not valid Python: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


def _closure(first: str, home: Path) -> dict[str, Path]:
    """Return the unit called `first`, and those of the same folder that it imports, directly or not."""
    units: dict[str, Path] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        unit = None if name in units or (name in _RESERVED and name != first) else beside_unit(name, home)
        if unit is None:
            continue
        units[name] = unit
        if not is_installed(home):  # what is installed has a version; its neighbours are other packages
            waiting += [other for file in _files(unit) for other in imported(parse(file))]
    return units


def is_installed(folder: Path) -> bool:
    """Return whether a folder is one that packages are installed into."""
    return folder.name in ("site-packages", "dist-packages")


def _files(unit: Path) -> list[Path]:
    return sorted(unit.rglob("*.py")) if unit.is_dir() else [unit]


def _inside(folder: Path) -> dict[str, Path]:
    """Return the modules and packages that lie directly in a folder, by name."""
    files = {file.stem: file for file in folder.glob("*.py") if file.stem != "__init__"}
    return {**files, **{path.name: path for path in folder.glob("*/") if any(path.glob("*.py"))}}


def _distribution(name: str) -> set[str]:
    """Return the name and version of the installed distributions that a top-level module belongs to."""
    names = metadata.packages_distributions().get(name, ())
    return {f"{found} {metadata.version(found)}" for found in names}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
