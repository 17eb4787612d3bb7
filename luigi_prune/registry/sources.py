"""The source files of a foreign part, located without importing them and hashed, so that an edit makes a new part.

A module is searched beside the experiment file (`folder`), then on the Python path. Its sources are its file, or all
`.py` files of its top-level package, and recursively those of every module of the same folder that they import. Data
files and extension modules are not hashed.
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
_BLOCK = 1 << 22
# Modules that a file beside an experiment cannot replace.
_RESERVED = frozenset(sys.stdlib_module_names) | {
    *("luigi_prune", "luigi", "submitit", "torch", "torchvision", "torchmetrics", "numpy", "scipy", "sklearn"),
    *("h5py", "yaml", "pydantic", "matplotlib", "PIL", "jinja2", "tensorboard", "rich"),
}


@dataclass(frozen=True)
class Sources:
    """The source files of a part. `units`: top-level module -> its file, or the folder of its package.

    `package`: name and version of its distribution, if any. `files`: path relative to the units' folder -> SHA-256.
    `digest`: hexadecimal SHA-256 of package and files.
    """

    units: Mapping[str, Path]
    package: str
    files: Mapping[str, str]
    digest: str

    def unit_digest(self, unit: str) -> str:
        """Return the hash of one unit's files."""
        lines = [
            f"{digest} {file}" for file, digest in self.files.items() if file.split("/")[0] in (unit, f"{unit}.py")
        ]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def gather(modules: Iterable[str], folder: Path | None, package: str = "") -> Sources:
    """Return the combined sources of `modules`; raises ConfigError for a module that does not exist."""
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
    distributions = " ".join(sorted(packages))
    lines = [distributions, *(f"{digest} {file}" for file, digest in sorted(files.items()))]
    return Sources(units, distributions, files, hashlib.sha256("\n".join(lines).encode()).hexdigest())


def module_file(module: str, folder: Path | None) -> Path:
    """Return the source file of a module; raises ConfigError if there is none."""
    first, *rest = module.split(".")
    place = find_unit(first, folder)
    for depth, name in enumerate(rest):
        choices = _inside(place) if place.is_dir() else {}
        if name not in choices:
            parent = ".".join((first, *rest[:depth]))
            raise ConfigError(f"there is no module {module!r}: {parent!r} has no {name!r}{nearest(name, choices)}")
        place = choices[name]
    return place / "__init__.py" if place.is_dir() else place


def find_unit(name: str, folder: Path | None) -> Path:
    """Return the file of a top-level module, or the folder of a package."""
    if folder is not None and (beside := beside_unit(name, folder)):
        if name in _RESERVED:
            raise ConfigError(f"{beside} cannot be used: luigi_prune itself needs a module called {name!r}")
        return beside
    for finder in sys.meta_path:
        if type(finder).__module__.startswith("luigi_prune"):
            continue  # serves modules beside experiment files
        spec = finder.find_spec(name, None)
        if spec is None:
            continue
        if spec.origin and spec.origin.endswith(".py"):
            origin = Path(spec.origin)
            return origin.parent if origin.name == "__init__.py" else origin
        for location in spec.submodule_search_locations or ():
            return Path(location)
        raise ConfigError(f"the module {name!r} has no Python source, so its contents cannot be part of a key")
    where = f"beside the experiment file ({folder}) or on the Python path" if folder else "on the Python path"
    raise ConfigError(
        f"there is no module {name!r} {where}{nearest(name, _inside(folder), listed=False) if folder else ''}"
    )


def beside_unit(name: str, folder: Path) -> Path | None:
    """Return the module's file or the package's folder in `folder`, if any; a package needs no `__init__.py`."""
    package, file = folder / name, folder / f"{name}.py"
    if (package / "__init__.py").is_file():
        return package
    if file.is_file():
        return file
    return package if package.is_dir() and any(package.glob("*.py")) else None


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level names of all absolute imports of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def parse(file: Path) -> ast.Module:
    """Return the syntax tree of a source file; raises ConfigError, with the line, for invalid Python."""
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise ConfigError(f"{file}:{error.lineno}: is not valid Python: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None


def _closure(first: str, home: Path) -> dict[str, Path]:
    """Return the unit called `first` and those of the same folder that it imports, directly or indirectly."""
    units: dict[str, Path] = {}
    pending = [first]
    while pending:
        name = pending.pop()
        unit = None if name in units or (name in _RESERVED and name != first) else beside_unit(name, home)
        if unit is None:
            continue
        units[name] = unit
        if not is_installed(home):  # installed packages have versions; their neighbours are other packages
            pending += [other for file in _files(unit) for other in imported(parse(file))]
    return units


def is_installed(folder: Path) -> bool:
    """Return whether packages are installed into `folder`."""
    return folder.name in ("site-packages", "dist-packages")


def _files(unit: Path) -> list[Path]:
    return sorted(unit.rglob("*.py")) if unit.is_dir() else [unit]


def _inside(folder: Path) -> dict[str, Path]:
    """Return the modules and packages directly in a folder, by name."""
    files = {file.stem: file for file in folder.glob("*.py") if file.stem != "__init__"}
    return {**files, **{path.name: path for path in folder.glob("*/") if any(path.glob("*.py"))}}


def _distribution(name: str) -> set[str]:
    """Return the names and versions of the installed distributions that contain a top-level module."""
    names = metadata.packages_distributions().get(name, ())
    return {f"{distribution} {metadata.version(distribution)}" for distribution in names}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the shortened hash of a file that may be large."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:DIGITS]
