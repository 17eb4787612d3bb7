"""Properties of the built network, computed in a subprocess to keep torch out of this one."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

from luigi_prune import registry
from luigi_prune.config.schema import Experiment

_BUILD = """
import json, sys
from luigi_prune import errors, registry
from luigi_prune.compute import networks, pruning
folder, name, shape, outputs, kwargs = json.loads(sys.argv[1])
registry.look_in(folder)
def shaped(value):  # JSON has no tuples
    if isinstance(value, dict):
        return {key: shaped(part) for key, part in value.items()}
    return tuple(map(shaped, value)) if isinstance(value, list) else value
try:
    network = networks.build(name, shaped(shape), outputs, 0, kwargs)
except errors.ConfigError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([[layer.name for layer in pruning.layer_budgets(network)], list(pruning.embeddings(network))]))
"""


def layers_and_embeddings(experiment: Experiment) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the names of the compressible layers and of the embeddings, in order; the first call imports torch.

    None if the network cannot be built for the data set's image size, which transforms may change.
    """
    built = _built(experiment)
    return None if isinstance(built, str) else (tuple(built[0]), tuple(built[1]))


def refusal(experiment: Experiment) -> str:
    """Return why the network cannot be built, "key: reason", or "": names and keywords that only a library can check.

    Other failures are left to the job, whose images may have another size; the first call imports torch.
    """
    built = _built(experiment)
    return built if isinstance(built, str) else ""


def _built(experiment: Experiment) -> Any:
    network = experiment.network
    shape = registry.find("dataset", network.dataset).input_shape
    folder = experiment.directories.modules
    return _built_in_subprocess(json.dumps([folder, network.name, shape, network.output_size, network.kwargs]))


@functools.lru_cache(maxsize=64)
def _built_in_subprocess(request: str) -> Any:
    """Return [names of layers, names of embeddings], or the reason of a refusal; "" for any other failure."""
    done = subprocess.run([sys.executable, "-c", _BUILD, request], capture_output=True, text=True)
    return "" if done.returncode else json.loads(done.stdout.splitlines()[-1])
