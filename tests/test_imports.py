"""The light half stays light, and the heavy half knows nothing of what carries it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import luigi_prune

PACKAGE = Path(luigi_prune.__file__).parent
HEAVY = {"torch", "torchvision", "torchmetrics", "matplotlib", "sklearn", "tensorboard"}


def imported_at_module_level(path: Path) -> set[str]:
    """Return the top-level packages that a file imports outside functions and `if TYPE_CHECKING`."""
    found: set[str] = set()
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Try):
            pending.extend(node.body)
    return found


def test_importing_the_package_loads_no_heavy_library():
    code = f"import sys, luigi_prune; print(*({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_importing_the_package_costs_less_than_importing_torch():
    code = (
        "import time; a = time.perf_counter(); import luigi_prune; b = time.perf_counter(); import torch;"
        "print((b - a) / (time.perf_counter() - b))"
    )
    ratio = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert ratio < 1


def test_compute_knows_neither_luigi_nor_submitit_nor_hdf5():
    files = list((PACKAGE / "compute").rglob("*.py"))
    wrong = [file.name for file in files if imported_at_module_level(file) & {"luigi", "submitit", "h5py"}]
    assert len(files) > 5
    assert wrong == []


def test_no_heavy_import_at_module_level_in_the_light_half():
    heavy = [
        *PACKAGE.glob("compute/**/*.py"),
        *PACKAGE.glob("report/**/*.py"),
        *PACKAGE.glob("api/**/*.py"),
    ]
    heavy += [file for file in PACKAGE.glob("jobs/*.py") if file.name != "__init__.py"]
    light = sorted(set(PACKAGE.rglob("*.py")) - set(heavy))
    wrong = [str(file) for file in light if imported_at_module_level(file) & HEAVY]
    assert len(light) > 15
    assert wrong == []
