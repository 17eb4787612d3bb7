"""`benchmarks/gpu/synchronisations.py` as a module: benchmarks are no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FILE = Path(__file__).parents[2] / "benchmarks" / "gpu" / "synchronisations.py"
_spec = importlib.util.spec_from_file_location("gpu_synchronisations", _FILE)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module  # dataclasses look their module up
_spec.loader.exec_module(_module)
count_synchronisations = _module.count_synchronisations
