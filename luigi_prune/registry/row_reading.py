"""Rows of import paths, parsed from the source, so that foreign modules need not be imported to list their parts.

An attribute is a row, or a function or class whose signature defines the keywords. A module is imported only if its row
is not written with literals (for instance one returned by a function).
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.colors import CSS_COLORS, is_color
from luigi_prune.registry.importing import load
from luigi_prune.registry.rows import (
    ClassRow,
    DatasetRow,
    Granularity,
    LossRow,
    MethodRow,
    MetricRow,
    NetworkRow,
    OptimizerRow,
    SchedulerRow,
    TransformRow,
    import_path,
)
from luigi_prune.registry.sources import gather, module_file, parse

KindName = Literal["method", "network", "dataset", "metric", "loss", "transform", "optimizer", "scheduler"]
REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
ROWS: Mapping[KindName, Any] = {
    "method": MethodRow,
    "network": NetworkRow,
    "dataset": DatasetRow,
    "metric": MetricRow,
    "loss": LossRow,
    "transform": TransformRow,
    "optimizer": OptimizerRow,
    "scheduler": SchedulerRow,
}
# Positional arguments that luigi_prune passes (without `self`); all others are keywords of the experiment file.
_FUNCTION_POSITIONALS = {"network": 2, "dataset": 2, "loss": 2, "metric": 2}
_CLASS_POSITIONALS = {"network": 2, "optimizer": 1, "scheduler": 1, "loss": 0, "metric": 0, "transform": 0}
_MAX_REEXPORTS = 10  # of re-exports


def read_row(kind: KindName, reference: str, folder: Path | None) -> Any:
    """Return the row at `reference` ("module:attribute"), with its functions as import paths.

    Raises ConfigError if the module or attribute does not exist or is not of the right kind.
    """
    if not REFERENCE.fullmatch(reference):
        raise ConfigError(f"{reference!r} is not an import path: expected module:attribute")
    module, node = _definition(reference, folder)
    row = _from_literals(kind, reference, module, node, folder)
    if row is None:
        row = _from_signature(kind, reference, node)
    if row is None:
        row = _from_object(kind, reference, folder)
    return _checked(kind, reference, row)


def _definition(reference: str, folder: Path | None) -> tuple[str, ast.stmt]:
    """Return the statement that defines an attribute, and its module, following re-exports."""
    module, _, attribute = reference.partition(":")
    first = attribute.partition(".")[0]
    for _ in range(_MAX_REEXPORTS):
        file = module_file(module, folder)
        names = _bindings(parse(file).body)
        if first not in names:
            raise ConfigError(f"{file.name} defines no {first!r}{nearest(first, names)}")
        node = names[first]
        if not isinstance(node, ast.ImportFrom):
            return module, node
        source = _absolute(node, module, file)
        try:
            module_file(source, folder)
        except ConfigError:
            return module, node  # compiled or missing: the import will show
        module, first = source, next(a.name for a in node.names if first in (a.asname, a.name))
    return module, node


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """Return the absolute name of the module that an import statement in `module` imports from."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _bindings(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return the statement that binds each name of a module, including those in `if` and `try`."""
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign):
            names |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.If | ast.Try):
            inner = [*node.body, *node.orelse, *(s for h in getattr(node, "handlers", ()) for s in h.body)]
            names |= _bindings(inner)
    return names


def _from_literals(kind: KindName, reference: str, module: str, node: ast.stmt, folder: Path | None) -> Any:
    """Return the row of an assignment `X = SomeRow(...)` with literal arguments, None for anything else."""
    call = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name | ast.Attribute):
        return None
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
    classes = {row.__name__: row for row in ROWS.values()}
    if name not in classes:
        return None
    names = _bindings(parse(module_file(module, folder)).body)
    try:
        positional = [_value(argument, module, names) for argument in call.args]
        keywords = {str(k.arg): _value(k.value, module, names) for k in call.keywords}
    except ValueError:
        return None
    try:
        return _with_keywords(kind, classes[name](*positional, **keywords), folder)
    except TypeError as error:
        raise ConfigError(f"{reference!r}: {str(error).replace('.__init__()', '')}") from None


def _value(node: ast.expr, module: str, names: Mapping[str, ast.stmt]) -> Any:
    """Return the value of a literal or the import path of a function; raises ValueError for anything else."""
    if isinstance(node, ast.Name):
        if isinstance(names.get(node.id), ast.FunctionDef | ast.ClassDef | ast.ImportFrom):
            return f"{module}:{node.id}"
        raise ValueError(node.id)
    return ast.literal_eval(node)


def _from_signature(kind: KindName, reference: str, node: ast.stmt) -> Any:
    """Return a row for a function or class, from its signature."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return None
    name = reference.partition(":")[2]
    is_class = isinstance(node, ast.ClassDef)
    if kind == "method":
        raise ConfigError(f"{reference!r} is a {'class' if is_class else 'function'}, not a MethodRow")
    if kind not in (_CLASS_POSITIONALS if is_class else _FUNCTION_POSITIONALS):
        expected = "a function" if is_class else "a class"
        raise ConfigError(f"{reference!r} is {'a class' if is_class else 'a function'}: expected {expected}")
    if kind == "metric" and not is_class:
        raise ConfigError(f"{reference!r} is a function: expected a MetricRow, which sets higher_is_better")
    if kind == "dataset":
        return DatasetRow(name, reference)
    required, optional, open_ended = _keywords(kind, node)
    more = {"epochs": (*required, *optional)} if kind == "scheduler" else {}
    return ROWS[kind](name, reference, required, optional, open_ended=open_ended, **more)


def _keywords(kind: KindName, node: ast.FunctionDef | ast.ClassDef) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return the required and the optional keywords, and whether others are accepted."""
    if isinstance(node, ast.ClassDef):
        constructors = [s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"]
        if not constructors:
            return (), (), bool(node.bases or node.decorator_list)
        function, skipped = constructors[0].args, 1 + _CLASS_POSITIONALS[kind]
    else:
        function, skipped = node.args, _FUNCTION_POSITIONALS[kind]
    positional = [argument.arg for argument in (*function.posonlyargs, *function.args)]
    without_default = positional[: len(positional) - len(function.defaults)][skipped:]
    only = zip(function.kwonlyargs, function.kw_defaults, strict=True)
    required = [*without_default, *(argument.arg for argument, default in only if default is None)]
    known = [*positional[skipped:], *(argument.arg for argument in function.kwonlyargs)]
    optional = [name for name in known if name not in required and name != "last_epoch"]
    return tuple(required), tuple(optional), function.kwarg is not None


def _from_object(kind: KindName, reference: str, folder: Path | None) -> Any:
    """Return the imported row, or a row for the imported function or class."""
    target: Any = load(reference, gather([reference.partition(":")[0]], folder))
    if type(target) in ROWS.values():
        fields = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
        functions = {name: import_path(value) for name, value in fields.items() if callable(value)}
        return _with_keywords(kind, dataclasses.replace(target, **functions), folder)
    if kind == "method" or not callable(target):
        return target
    name = reference.partition(":")[2]
    return DatasetRow(name, reference) if kind == "dataset" else ROWS[kind](name, reference, open_ended=True)


def _with_keywords(kind: KindName, row: Any, folder: Path | None) -> Any:
    """Return the row, with the keywords of its class or function if it lists none."""
    if not isinstance(row, ClassRow) or row.keywords or not REFERENCE.fullmatch(str(row.path)):
        return row
    _, node = _definition(str(row.path), folder)
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return dataclasses.replace(row, open_ended=True)
    supported = _CLASS_POSITIONALS if isinstance(node, ast.ClassDef) else _FUNCTION_POSITIONALS
    if kind not in supported:
        return row
    required, optional, open_ended = _keywords(kind, node)
    return dataclasses.replace(row, required=required, optional=optional, open_ended=open_ended)


def _checked(kind: KindName, reference: str, row: Any) -> Any:
    if not isinstance(row, ROWS[kind]):
        raise ConfigError(f"{reference!r} is a {type(row).__name__}, not a {ROWS[kind].__name__}")
    if isinstance(row, MethodRow) and row.granularity not in get_args(Granularity):
        hint = nearest(row.granularity, get_args(Granularity))
        raise ConfigError(f"{reference!r}: unknown granularity {row.granularity!r}{hint}")
    if isinstance(row, MethodRow) and row.color and not is_color(row.color):
        raise ConfigError(f"{reference!r}: {row.color!r} is not a colour{nearest(row.color, CSS_COLORS)}")
    return row
