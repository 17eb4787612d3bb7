"""`new method NAME`: a file with a method of one's own, ready to be named in an experiment, and a test for it."""

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
    """Return for each layer a number per filter, larger = keep. Here: the L2 norm of its weights; write your own."""
    return [layer.weight.flatten(1).norm(dim=1) for layer in problem.layers]


{row} = MethodRow(
    name="{name}",
    granularity="filter",  # weight, filter or channel: what a unit is, and what shape a layer's scores have
    score={score},
    allocation="uniform",  # global_top for weights, or a function of your own
    summary="Filters of smallest norm go",
)
'''

_TEST = '''\
"""{name} prunes to the size it is asked for, and keeps the filters of largest score."""

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
    parser = commands.add_parser("new", help="a file with a part of your own to begin with")
    parser.add_argument("kind", choices=["method"], help="what it is")
    parser.add_argument("name", help="its name, as in SpreadNet")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Write both files into the working directory; raises ConfigError rather than overwrite one."""
    name = given.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(f"{name!r} cannot be the name of a method: expected letters, digits and _, as in SpreadNet")
    if name in METHODS:
        raise ConfigError(f"there is a method {name!r} already")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    words = {"name": name, "module": module, "row": module.upper(), "score": f"score_{module}"}
    files = {Path(f"{module}.py"): _METHOD, Path(f"test_{module}.py"): _TEST}
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already, and is not overwritten")
    for path, text in files.items():
        path.write_text(text.format(**words))
    print(f'{module}.py: name it in an experiment file beside it as methods: ["{module}:{words["row"]}"]')
    print(f"test_{module}.py: python -m pytest test_{module}.py")
    return 0
