"""The size of a pruned network's result file relative to that of the dense network.

python benchmarks/file_size.py [--network resnet20]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from luigi_prune.compute import pruning
from luigi_prune.compute.networks import build
from luigi_prune.compute.state import to_arrays
from luigi_prune.registry import METHODS
from luigi_prune.results.hdf5_file import write_result

SHAPES = {"lenet300_100": (1, 28, 28), "lenet5_caffe": (1, 28, 28)}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    name = parser.parse_args().network
    shape = SHAPES.get(name, (3, 32, 32))
    network = build(name, shape, 10, seed=0)
    size = pruning.count_size(network)
    with tempfile.TemporaryDirectory() as folder:
        dense = bytes_of(Path(folder) / "dense.h5", network, {})
        print(f"{name}: {size} parameters, dense result {dense} bytes")
        for method in ("ThresNet", "FilterThresNet"):
            for ratio in (0.5, 0.2, 0.1):
                pruned = pruning.prune(
                    network,
                    METHODS[method],
                    ratio,
                    example_input=torch.randn(1, *shape),
                    calibration=None,
                    loss=None,
                    seed=0,
                    original_size=size,
                )
                pruned_bytes = bytes_of(Path(folder) / f"{method}{ratio}.h5", pruned.network, pruned.masks)
                print(f"{method} keep {ratio}: pruned / dense = {pruned_bytes / dense:.3f}")


def bytes_of(path: Path, network: torch.nn.Module, masks: dict[str, torch.Tensor]) -> int:
    """Return the size of a result file with the network and its masks."""
    arrays, types = to_arrays(network.state_dict())
    contents = {f"weights/{name}": array for name, array in arrays.items()}
    contents |= {f"masks/{name}": mask.numpy() for name, mask in masks.items()}
    write_result(path, family="Prune", key="0" * 64, spec={}, provenance={}, arrays=contents, meta={"types": types})
    return path.stat().st_size


if __name__ == "__main__":
    main()
