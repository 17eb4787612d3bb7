"""Gram matrices of a folded layer's chunks: products that several numbers of groups share are computed once."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import torch
from torch import Tensor

from luigi_prune.compute.pruning.low_rank.bounds import first_grams
from luigi_prune.compute.pruning.low_rank.factors import gram, short_side
from luigi_prune.compute.pruning.low_rank.foldings import fold, fold_chunks
from luigi_prune.compute.pruning.low_rank.norms import gram_of

BLOCK = 96  # columns of a block: products of many narrower chunks take longer than those of a few blocks


class ChunkGrams:
    """The Gram matrices of the shorter sides of a folded weight's chunks, for several numbers of groups.

    Lower triangles. The Gram matrix of a few columns lies on the diagonal of that of a block of columns, which is kept.
    """

    def __init__(self, weight: Tensor, folding: int, group_counts: Collection[int]) -> None:
        self._weight, self._folding, self._counts = weight, folding, group_counts
        self._blocks: dict[tuple[int, torch.dtype], Tensor] = {}

    def of(self, groups: int, dtype: torch.dtype) -> Tensor:
        """Return those of all chunks, (groups, s, s), computed in `dtype`."""
        rows, columns = fold(self._weight, self._folding).shape
        width = columns // groups
        wider = [k for k in self._counts if groups % k == 0 and columns // k < rows and columns // k <= BLOCK]
        if not wider:
            return self._product(groups, dtype)
        blocks = min(wider)
        parts = groups // blocks
        if (blocks, dtype) not in self._blocks:
            self._blocks[blocks, dtype] = self._product(blocks, dtype)
        corners = self._blocks[blocks, dtype].view(blocks, parts, width, parts, width).diagonal(0, 1, 3)
        return corners.movedim(-1, 1).reshape(groups, width, width)

    def _product(self, groups: int, dtype: torch.dtype) -> Tensor:
        return gram(short_side(fold_chunks(self._weight, self._folding, groups).to(dtype)))

    @cached_property
    def first(self) -> dict[int, Tensor]:
        """Those of the first chunk, by number of groups, in the precision of `first_grams`."""
        return first_grams(self._weight, self._folding, [*self._counts])

    @cached_property
    def whole(self) -> Tensor:
        """That of the shorter side of the matrix, in single precision if it is large.

        Its bits depend on the weight and the numbers of groups alone, not on which of them were read before.
        """
        return self.first[1] if 1 in self._counts else gram_of(fold(self._weight, self._folding))
