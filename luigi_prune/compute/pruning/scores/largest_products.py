"""The largest product of a filter's reciprocal sum and an input, over all patches: a search that skips most of them.

For every filter i and entry j of it, max over patches p of r_i(p) a_j(p), where r_i(p) >= 0 is a factor of the patch
and a_j(p) >= 0 its input at entry j: a product of matrices in which max replaces the sum. Sums over many entries differ
little between filters, so max_i r_i(p) a_j(p) bounds the products of all filters closely, and few patches can raise any
of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.patches import padded
from luigi_prune.compute.zeros import places

PRODUCTS = 2**18  # products computed at a time: about the size of a core's cache
SEEDS = 8  # products per entry that are computed first, for thresholds that rule out most others
INDEX_BYTES = 64  # memory of one candidate's index and bound
EPSILON = torch.finfo(torch.float32).eps  # sums at most this large, alone or relative to others, have no shares
LEAST = 2.0**-120  # the reciprocals of smaller sums, times an input, would overflow


@dataclass(frozen=True)
class Windows:
    """The layout of a layer's patches in its padded input, per axis: kernel, dilation, stride, number of patches."""

    kernel: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    sizes: tuple[int, int] = (1, 1)

    @property
    def count(self) -> int:
        """The number of patches of a sample."""
        return self.sizes[0] * self.sizes[1]

    @property
    def reach(self) -> tuple[int, int]:
        """The distance of a patch's last pixel from its first, per axis."""
        return (self.kernel[0] - 1) * self.dilation[0], (self.kernel[1] - 1) * self.dilation[1]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """The distance of every pixel of a patch from its first, in the order of a filter's entries."""
        (high, wide), (down, right) = self.kernel, self.dilation
        return [(y * down, x * right) for y in range(high) for x in range(wide)]


def images(layer: Layer, value: Tensor) -> Tensor:
    """Return a layer's padded input as (samples, channels, height, width); a linear layer's has one pixel."""
    if isinstance(layer.module, nn.Conv2d):
        return padded(layer, value)
    return value.reshape(-1, value.shape[-1], 1, 1)


def windows(layer: Layer, image: Tensor) -> Windows:
    """Return the layout of the patches of `image`, a result of `images`."""
    module = layer.module
    if not isinstance(module, nn.Conv2d):
        return Windows()
    (high, wide), (below, right), (rows, columns) = module.kernel_size, module.dilation, module.stride
    height, width = image.shape[2] - below * (high - 1), image.shape[3] - right * (wide - 1)
    return Windows(
        (high, wide), (below, right), (rows, columns), ((height - 1) // rows + 1, (width - 1) // columns + 1)
    )


def reciprocal_sums(layer: Layer, image: Tensor, weight: Tensor, *, relative: bool) -> Tensor:
    """Return 1 over the sums for `weight` (filters, entries), as `reciprocals`: (samples, filters, height, width)."""
    module = layer.module
    if isinstance(module, nn.Conv2d):
        kernel = weight.view(module.weight.shape)
        sums = F.conv2d(image, kernel, None, module.stride, 0, module.dilation)
    else:
        sums = F.linear(image.flatten(1), weight)[:, :, None, None]
    return reciprocals(sums, relative=relative)


def reciprocals(sums: Tensor, *, relative: bool) -> Tensor:
    """Return 1 over non-negative sums, four axes of which the first runs over samples, and 0 where they are nearly 0.

    `sums` may be overwritten. `relative`: nearly 0 compared with the sample's largest sum, so that the scale of inputs
    and weights has no effect.
    """
    least: Tensor | float = EPSILON
    if relative and sums.numel():
        least = (EPSILON * sums.amax((1, 2, 3), keepdim=True)).clamp_min(LEAST)
    if sums.device.type == "cpu" and sums.numel() and bool((sums.amin((1, 2, 3), keepdim=True) > least).all()):
        return sums.reciprocal_()  # most often
    return sums.reciprocal().masked_fill_(sums <= least, 0)


def raise_largest(
    best: Tensor, image: Tensor, r: Tensor, window: Windows, needed: Callable[[], Tensor], memory: int
) -> None:
    """Raise `best` (entries, filters) to the largest products of `image` and `r` (samples, height, width, filters).

    `needed()`: per entry the threshold that a product must exceed to count, (entries,); it rises with `best`. Products
    below it may be left out. About `memory` bytes are held at a time.
    """
    most = _spread(r.amax(3), window, image)
    nearby = F.max_pool2d(most[:, None], window.kernel, stride=1, dilation=window.dilation)
    bound = (image * nearby).flatten(2)  # over all patches that contain a pixel
    values, peaks = bound.max(2)
    samples = values.topk(min(SEEDS, len(values)), dim=0).indices
    channels = torch.arange(bound.shape[1], device=bound.device)
    seeds = (samples * bound.shape[1] + channels) * bound.shape[2] + peaks.gather(0, samples)
    numbers = torch.arange(len(r) * window.count, device=r.device).view(r.shape[:3])
    search = _Search(best, image, r.flatten(0, 2), most, _spread(numbers, window, image), window)
    search.raise_by(seeds.flatten(), needed())
    lowest = needed().view(bound.shape[1], -1).amin(1)
    remaining = places(bound > lowest[:, None])
    for some in remaining.split(max(1, memory // (INDEX_BYTES * len(window.offsets)))):
        search.raise_by(some, needed())


def _spread(most: Tensor, window: Windows, image: Tensor) -> Tensor:
    """Return one number per patch at the position of its first pixel in the padded input, zeros elsewhere."""
    (rows, columns), (down, right), (above, left) = window.sizes, window.stride, window.reach
    spread = most.new_zeros(len(most), image.shape[2] + above, image.shape[3] + left)
    spread[:, above : above + (rows - 1) * down + 1 : down, left : left + (columns - 1) * right + 1 : right] = most
    return spread


@dataclass(frozen=True, eq=False)
class _Search:
    """The factors of the products: the padded input and `r` (patches, filters).

    `most` and `patches`: per patch the largest entry of `r` and the patch's index, spread by `_spread`.
    """

    best: Tensor
    image: Tensor
    r: Tensor
    most: Tensor
    patches: Tensor
    window: Windows

    def raise_by(self, pixels: Tensor, limit: Tensor) -> None:
        """Raise `best` by the products of `pixels`, indices into the flat image, whose bounds exceed `limit`."""
        patch, entry, value = self._candidates(pixels, limit)
        filters = self.r.shape[1]
        chunk = max(1, PRODUCTS // filters)
        for rows, entries, factors in zip(patch.split(chunk), entry.split(chunk), value.split(chunk), strict=True):
            products = self.r.index_select(0, rows).mul_(factors[:, None])
            self.best.scatter_reduce_(0, entries[:, None].expand_as(products), products, "amax")

    def _candidates(self, pixels: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return patch, entry and value of every (pixel, patch that contains it) whose bound exceeds `limit`."""
        _, channels, height, width = self.image.shape
        _, rows, columns = self.most.shape
        above, left = self.window.reach
        line = pixels // width
        plane = line // height
        sample = plane // channels
        channel, x, y = plane - sample * channels, pixels - line * width, line - plane * height
        place = (sample * rows + y + above) * columns + x + left
        (high, wide), (down, right) = self.window.kernel, self.window.dilation
        back = (  # of each offset, made on the device
            torch.arange(high, device=pixels.device)[:, None] * (down * columns)
            + torch.arange(wide, device=pixels.device) * right
        ).flatten()
        first = place[:, None] - back  # first pixels of the patches
        value = self.image.take(pixels)
        limits = limit.view(channels, -1).index_select(0, channel)
        indices = places(self.most.take(first).mul_(value[:, None]) > limits)
        chosen = indices // len(back)
        entry = channel.take(chosen).mul_(len(back)).add_(indices).sub_(chosen * len(back))
        return self.patches.take(first.take(indices)), entry, value.take(chosen)
