"""The largest mean over patches, of all samples, of a filter's reciprocal sum times an input.

For every filter i and entry j of it the mean over the patches p of a sample of r_i(p) a_j(p), where r_i(p) >= 0 is a
factor of the patch and a_j(p) >= 0 its input at entry j, is an ordinary product of matrices per sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from luigi_prune.compute.pruning.selection.drawing import IN_CACHE

JOINED = 64  # filters up to which one convolution for the factors of both signs is faster than one for each
FEW = 8  # patches from which on a product takes longer to compute than to write to memory
PRODUCTS = 2**24  # products that are held at a time on a GPU


def raise_by_convolution(best: Sequence[Tensor], module: nn.Conv2d, image: Tensor, factors: Sequence[Tensor]) -> None:
    """Raise each of `best` (filters, entries) to the largest means of `image`, padded, and its factors.

    `factors`: over the number of patches, (samples, filters, height, width). The means are like the gradient of a
    convolution's weight.
    """
    filters = len(module.weight)
    if filters > JOINED:
        largest = [_largest_gradient(module, image, of_sign) for of_sign in factors]
    else:
        largest = list(_largest_gradient(module, image, torch.cat(list(factors), 1)).split(filters))
    for of_sign, means in zip(best, largest, strict=True):
        torch.maximum(of_sign, means.reshape(of_sign.shape), out=of_sign)


def _largest_gradient(module: nn.Conv2d, image: Tensor, factors: Tensor) -> Tensor:
    """Return the largest mean of all samples for each filter and entry, in the shape of a weight."""
    shape = (factors.shape[1], *module.weight.shape[1:])
    largest = image.new_zeros(shape)
    for one, of_filters in zip(image.split(1), factors.split(1), strict=True):
        means = conv2d_weight(one, shape, of_filters, module.stride, 0, module.dilation)
        torch.maximum(largest, means, out=largest)
    return largest


def raise_by_products(best: Sequence[Tensor], entries: Tensor, factors: Sequence[Tensor]) -> None:
    """Raise each of `best` to the largest means of `entries` (samples, entries, patches) and its factors.

    `factors`: over the number of patches, (samples, filters, patches).
    """
    entries = entries.mT.contiguous()
    for of_sign, r in zip(best, factors, strict=True):
        means = torch.empty_like(of_sign)
        # With few patches writing the product dominates: it has to stay in a core's cache.
        rows = len(of_sign) if r.shape[2] >= FEW else max(1, IN_CACHE // of_sign.shape[1])
        for some, mean, of_filters in zip(of_sign.split(rows), means.split(rows), r.split(rows, 1), strict=True):
            for one, of_patch in zip(entries, of_filters, strict=True):
                torch.maximum(some, torch.mm(of_patch, one, out=mean), out=some)


def raise_by_tensors(best: Sequence[Tensor], entries: Tensor, factors: Sequence[Tensor]) -> None:
    """Raise `best` like `raise_by_products`, on any device, without a synchronisation."""
    for of_sign, r in zip(best, factors, strict=True):
        together = max(1, PRODUCTS // of_sign.numel())
        for some, of_filters in zip(entries.split(together), r.split(together), strict=True):
            torch.maximum(of_sign, torch.bmm(of_filters, some.mT).amax(0), out=of_sign)
