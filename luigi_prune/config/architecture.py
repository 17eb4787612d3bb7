"""What only a built network tells, asked of another process: this one stays without torch."""

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
network = networks.build(name, tuple(shape), outputs, 0, kwargs)
print(json.dumps([layer.name for layer in pruning.layer_budgets(network)]))
"""


def compressible_layers(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of the layers that methods prune, in order; the first call takes as long as importing torch.

    () if the network cannot be built for images of its data set's own size: transforms may enlarge them.
    """
    network = experiment.network
    shape = registry.find("dataset", network.dataset).input_shape
    folder = experiment.directories.modules
    return _ask(json.dumps([folder, network.name, shape, network.output_size, network.kwargs]))


@functools.lru_cache(maxsize=64)
def _ask(question: str) -> tuple[str, ...]:
    done = subprocess.run([sys.executable, "-c", _BUILD, question], capture_output=True, text=True)
    return () if done.returncode else tuple(json.loads(done.stdout.splitlines()[-1]))
