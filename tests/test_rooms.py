"""The order of the rooms: an import goes down, never up, never in a circle; no name stands for two things."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import luigi_prune

PACKAGE = Path(luigi_prune.__file__).parent

# From the ground up: a room imports only from rooms that stand before it. CONTRIBUTING.md says what each is for.
ROOMS = [
    "errors", "seeds", "registry", "config", "identity", "results",
    "compute", "analysis", "report", "execution", "jobs",
    "scheduling", "workflow", "api", "web", "commands", "__main__",
]  # fmt: skip
PRUNING_ROOMS = [
    "problem", "selection", "structure", "scores", "low_rank", "sizes_and_flops", "allocations", "torchprune", "engine",
    "compaction",
]  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package, by dotted name."""
    files = {".".join(("luigi_prune", *path.relative_to(PACKAGE).with_suffix("").parts)): path
             for path in PACKAGE.rglob("*.py")}  # fmt: skip
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


@cache
def imports() -> dict[str, set[str]]:
    """Return what each module imports of the package, inside functions too."""
    found: dict[str, set[str]] = {}
    for name, path in modules().items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: relative import"
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= {module if module in modules() else str(node.module) for module in inner}
        found[name] = (found[name] & set(modules())) - {name}
    return found


def room(module: str, below: str = "luigi_prune") -> str:
    """Return the folder or file right below the package `below` that holds `module`; "" for `below` itself."""
    return module.removeprefix(below).lstrip(".").partition(".")[0]


def upward(order: list[str], below: str) -> list[str]:
    """Return the imports, between rooms below `below`, of a room that stands later in `order`."""
    inside = [name for name in modules() if name.startswith(f"{below}.")]
    assert {room(name, below) for name in inside} == set(order)
    place = {name: index for index, name in enumerate(order)}
    return [
        f"{name} -> {target}"
        for name in inside
        for target in imports()[name]
        if target.startswith(f"{below}.") and place[room(target, below)] > place[room(name, below)]
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return a circle of the graph, or []."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def test_no_import_runs_upward() -> None:
    assert upward(ROOMS, "luigi_prune") == []


def test_no_import_runs_upward_inside_pruning() -> None:
    assert upward(PRUNING_ROOMS, "luigi_prune.compute.pruning") == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circle(imports()) == []


def test_no_two_files_have_the_same_name() -> None:
    assert repeated(path.stem for path in modules().values() if path.stem != "__init__") == []


def test_no_two_public_classes_have_the_same_name() -> None:
    trees = [ast.parse(path.read_text()) for path in modules().values()]
    assert repeated(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)) == []


def test_networks_are_called_in_one_place_which_takes_inputs_of_every_form() -> None:
    direct = [
        f"{name}:{node.lineno}"
        for name, path in modules().items()
        if name != "luigi_prune.compute.network_inputs"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "network"
    ]
    assert direct == []
