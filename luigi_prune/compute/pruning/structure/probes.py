"""The probes of a network: the exact one, and a faster one for the levels that a search only tries."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs
from luigi_prune.compute.pruning.structure.structure_probe import StructureProbe

SMALL = 48  # pixels; images at least twice as high and wide are made smaller for searches


class Probes:
    """The probe of a network on inputs like the example, and a faster one on smaller images, each with its example.

    How channels depend on each other hardly ever depends on the size of the images.
    """

    pruned_nothing = False  # whether propagation has found no mask and nothing to prune in the network as it was given

    def __init__(self, network: nn.Module, example_input: Inputs) -> None:
        """Raises RuntimeError, TypeError or ValueError if the network cannot be probed."""
        self._network = network
        self.exact = StructureProbe(network, example_input), example_input

    @cached_property
    def smaller(self) -> tuple[StructureProbe, Inputs]:
        """The probe on smaller images, or else the exact one: if inputs are no images, small, or of a fixed size."""
        probe, example = self.exact
        if not isinstance(example, Tensor) or example.dim() != 4 or not example.is_floating_point():
            return self.exact
        if (step := min(example.shape[2:]) // SMALL) < 2:
            return self.exact
        example = example[:, :, ::step, ::step].contiguous()
        try:
            smaller = StructureProbe(self._network, example)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, AssertionError):  # asserts of the size, in torchvision's networks
            return self.exact
        return (smaller, example) if smaller.baseline.same_as(probe.baseline) else self.exact
