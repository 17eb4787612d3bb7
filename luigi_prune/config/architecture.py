"""Properties of the built network, computed in a subprocess to keep torch out of this one."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

from luigi_prune import registry
from luigi_prune.config.schema import Experiment

_BUILD = """
import json, sys
from luigi_prune import registry
from luigi_prune.compute import networks, pruning
folder, name, shape, outputs, kwargs = json.loads(sys.argv[1])
registry.look_in(folder)
def shaped(value):  # JSON has no tuples
    if isinstance(value, dict):
        return {key: shaped(part) for key, part in value.items()}
    return tuple(map(shaped, value)) if isinstance(value, list) else value
network = networks.build(name, shaped(shape), outputs, 0, kwargs)
print(json.dumps([[layer.name for layer in pruning.layer_budgets(network)], list(pruning.embeddings(network))]))
"""


def layers_and_embeddings(experiment: Experiment) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the names of the compressible layers and of the embeddings, in order; the first call imports torch.

    None if the network cannot be built for the data set's image size, which transforms may change.
    """
    network = experiment.network
    shape = registry.find("dataset", network.dataset).input_shape
    folder = experiment.directories.modules
    return _layers_in_subprocess(json.dumps([folder, network.name, shape, network.output_size, network.kwargs]))


@functools.lru_cache(maxsize=64)
def _layers_in_subprocess(request: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    done = subprocess.run([sys.executable, "-c", _BUILD, request], capture_output=True, text=True)
    if done.returncode:
        return None
    layers, embeddings = json.loads(done.stdout.splitlines()[-1])
    return tuple(layers), tuple(embeddings)
