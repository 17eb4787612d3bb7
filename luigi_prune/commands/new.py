"""`new method NAME`: a template of a pruning method, ready for use in an experiment, and a test of it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError
from luigi_prune.registry import METHODS

_METHOD = '''\
"""{name}: a pruning method. In an experiment file: `methods: ["{module}:{row}"]`."""

from luigi_prune.registry import MethodRow


def {score}(problem):
    """Return one number per filter for each layer, larger = keep. Here: the L2 norm of its weights; write your own."""
    return [layer.weight.flatten(1).norm(dim=1) for layer in problem.layers]


{row} = MethodRow(
    name="{name}",
    granularity="filter",  # weight, filter or channel: the pruned unit, and so the shape of a layer's scores
    score={score},
    allocation="uniform",  # global_top for weights, or your own function
    summary="Prunes the filters of smallest norm",
)
'''

_TEST = '''\
"""{name} prunes to the target keep ratio and keeps the filters of largest score."""

import torch
from torch import nn

from luigi_prune import api
from {module} import {row}


def test_the_filters_of_largest_score_stay():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 3))
    pruned = api.prune(network, {row}, keep_ratio=0.5, example_input=torch.randn(4, 8))
    assert abs(pruned.keep_ratio - 0.5) < 0.05
    kept = pruned.layers[0].mask.any(1)
    score = network[0].weight.norm(dim=1)
    assert 0 < int(kept.sum()) < 20
    assert score[kept].min() >= score[~kept].max()
'''


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("new", help="write a template of a part of your own")
    parser.add_argument("kind", choices=["method"], help="kind of part")
    parser.add_argument("name", help="its name, as in SpreadNet")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write both files into the working directory; raises ConfigError if one exists."""
    name = options.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(f"method name: expected letters, digits and _, as in SpreadNet, got {name!r}")
    if name in METHODS:
        raise ConfigError(f"the method {name!r} exists already")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    words = {"name": name, "module": module, "row": module.upper(), "score": f"score_{module}"}
    files = {Path(f"{module}.py"): _METHOD, Path(f"test_{module}.py"): _TEST}
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already and is not overwritten")
    for path, text in files.items():
        path.write_text(text.format(**words))
    print(f'{module}.py: name it in an experiment file beside it as methods: ["{module}:{words["row"]}"]')
    print(f"test_{module}.py: python -m pytest test_{module}.py")
    return 0
