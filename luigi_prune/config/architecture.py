"""What only a built network tells, asked of another process: this one stays without torch."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

from luigi_prune import catalogue
from luigi_prune.config.schema import NetworkConfig

_BUILD = """
import json, sys
from luigi_prune.compute import networks, pruning
name, shape, outputs = json.loads(sys.argv[1])
print(json.dumps([layer.name for layer in pruning.layer_budgets(networks.build(name, tuple(shape), outputs, 0))]))
"""


def compressible_layers(network: NetworkConfig) -> tuple[str, ...]:
    """Return the names of the layers that methods prune, in order; the first call takes as long as importing torch.

    () if the network cannot be built for images of its data set's own size: transforms may enlarge them.
    """
    shape = catalogue.find("dataset", network.dataset).input_shape
    return _ask(json.dumps([network.name, shape, network.output_size]))


@functools.lru_cache(maxsize=64)
def _ask(question: str) -> tuple[str, ...]:
    done = subprocess.run([sys.executable, "-c", _BUILD, question], capture_output=True, text=True)
    return () if done.returncode else tuple(json.loads(done.stdout.splitlines()[-1]))
