"""Sensitivities (see `sensitivity`) of layers that are neither linear nor ungrouped two-dimensional convolutions.

All their patches are written out, so that every kind of layer is a product of matrices per group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luigi_prune.compute.pruning.problem.layers import Layer, groups_of
from luigi_prune.compute.pruning.problem.patches import unfold
from luigi_prune.compute.pruning.scores.largest_products import reciprocals
from luigi_prune.compute.zeros import keep_only, nonzero

MEMORY = 32 * 2**20  # bytes of patches, and of products, that are held at a time


class UnfoldedShares:
    """The largest shares of a layer's weights in the sums of their filters, over the inputs seen so far."""

    def __init__(self, layer: Layer, *, mean: bool, relative: bool) -> None:
        """`mean`: over the patches of a sample a share is averaged, before the largest of all samples is taken.

        `relative`: see `reciprocals`.
        """
        self._layer, self._mean, self._relative = layer, mean, relative
        groups = groups_of(layer.module)
        weight = (
            layer.by_entry(layer.weight.detach()).float().flatten(1).unflatten(0, (groups, -1))
        )  # (groups, filters, entries)
        self._signs = [weight.clamp_min(0), (-weight).clamp_min(0)]
        self._best = [torch.zeros_like(weight) for _ in self._signs]

    def see(self, value: Tensor) -> None:
        """Raise the largest products by those of an input, which has one sign."""
        width = self._signs[0].shape[1] + self._signs[0].shape[2]
        for sample in value.split(1):
            entries = unfold(self._layer, sample)  # (1 or positions, groups, entries, patches)
            size = 4 * width * entries.shape[1] * entries.shape[3]
            for some in entries.split(max(1, MEMORY // size)):
                for weight, best in zip(self._signs, self._best, strict=True):
                    self._raise(weight, best, some)

    def _raise(self, weight: Tensor, best: Tensor, entries: Tensor) -> None:
        r = reciprocals(weight @ entries, relative=self._relative)
        if self._mean:
            torch.maximum(best, (r @ entries.mT).div_(entries.shape[3]).amax(0), out=best)
            return
        groups, filters, count = best.shape
        rows = max(1, MEMORY // (4 * groups * count * entries.shape[3]))
        for one, factor in zip(entries, r, strict=True):
            for first in range(0, filters, rows):
                some = best[:, first : first + rows]
                products = factor[:, first : first + rows, None, :] * one[:, None]
                torch.maximum(some, products.amax(3), out=some)

    def shares(self) -> Tensor:
        """Return the shares in the shape of `layer.weight`."""
        total = torch.zeros_like(self._best[0])
        for weight, best in zip(self._signs, self._best, strict=True):
            shares = weight * best
            keep_only(shares, nonzero(weight))
            total += shares.clamp_max_(1)
        return self._layer.by_unit(total.view(self._layer.module.get_parameter("weight").shape))
