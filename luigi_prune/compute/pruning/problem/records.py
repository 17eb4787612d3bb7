"""The records that scores, allocations, selections and the budget search exchange (see engine/pipeline.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs
from luigi_prune.compute.pruning.problem.layers import FindEnds, Layer
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

Batches = list[tuple[Inputs, Any]]  # inputs as in `network_inputs`, and targets: a tensor, or several likewise
Loss = Callable[[Any, Any], Tensor]  # of the network's output, as it is, and targets


@dataclass(frozen=True, eq=False)
class Problem:
    """The input of a method: the network at this step (never changed), its masks, and the data."""

    network: nn.Module
    layers: list[Layer]
    masks: Masks
    outputs: dict[str, int]  # per Conv2d and Linear: number of outputs for one sample
    example_input: Inputs
    batches: Batches
    loss: Loss | None
    seed: int
    rules: Rules
    ignored: frozenset[str] = frozenset()  # names of compressible layers that must not change
    delta: float = 1e-16  # the failure probability of sample sizes (SiPP, PFP)
    warnings: list[str] = field(default_factory=list)  # lines for the caller's user

    def generator(self, *parts: int | str) -> torch.Generator:
        """Return a CPU generator for one purpose: the same parts give the same draws."""
        return torch.Generator().manual_seed(derive_seed(self.seed, *parts))

    def kept(self, layer: Layer) -> Tensor:
        """Return the mask of the layer's weight at this step, in the shape of `layer.weight`."""
        return layer.by_unit(self.masks[layer.weight_name])


@dataclass(frozen=True)
class Decomposition:
    """A layer as two: an encoding with `groups` groups of `rank` features each, then a decoding (a folding, 0 to 3)."""

    rank: int
    groups: int = 1
    folding: int = 0


@dataclass(frozen=True)
class Mixed:
    """Numbers of best units to keep and of units to draw from the rest: two tensors of counts of one shape."""

    top: Tensor
    sampled: Tensor


# The kept part of one layer. A tensor of counts: shape () for units of the layer, (filters,) for entries of every
# filter, (filters, 2) for entries with positive and with negative score. A Decomposition for low-rank methods. None:
# the layer is unchanged.
Choice = Tensor | Mixed | Decomposition | None


@dataclass(frozen=True)
class Levels:
    """An allocation, prepared once per network: the choices at each of `count` levels, which keep more and more.

    `cost(level)`: the expected number of kept weights in compressible layers before propagation; cheap, and it never
    decreases from one level to the next. `empties_filters`: filters may keep nothing, so that propagation prunes much
    more, and a search that draws weights had better start from a level that was found without draws.
    """

    count: int
    choose: Callable[[int], list[Choice]]
    cost: Callable[[int], float]
    empties_filters: bool = field(default=False, kw_only=True)


Score = Callable[[Problem], "Scores"]
# One tensor per layer, with a number for each unit. Low-rank methods: per layer the spectra of each (folding, groups).
Scores = list[Any]
Allocation = Callable[[Problem, Scores, str], Levels]  # the string is the granularity
Selection = Callable[[Tensor, Tensor, Any, "LayerDraws"], "Selected"]  # score, alive units, counts or Mixed, draws


@dataclass(frozen=True)
class Rules:
    """The choices on which papers and the reference implementation differ; `engine.rules.RULES` holds both.

    `find_ends(network, compressible modules, example input)`: the names of the layers that read the network's input and
        of those that write its output.
    `takes_every_kind`: every layer with a weight matrix is pruned, as far as a method's units are defined for it; if
        not, the layers of the reference implementation are (`layers.of_reference`).
    `protects_ends`: no channel of the former, unless it is a feature of a vector, and no filter of the latter is ever
        pruned, whatever the allocation is.
    `zeros_are_pruned`: weights that are zero count as pruned already. If not, only masks remove entries, and a layer
        whose weights are all zero, as initialised, is not pruned: no score ranks them.
    `prunes_biases`: the bias of a pruned filter is pruned, too.
    `selections`: the functions by the name in a method's row.
    `propagate_by_data(network, masks, problem, structured, protected)`: prunes, in place, the entries that have lost
        their effect, by gradients of the loss on calibration data. None: propagation uses the network's structure.
    `thinet_samples(batch sizes, random numbers in [0, 1))`: per output position the number of the calibration sample
        that ThiNet reads, past the last one if there is none.
    `thinet_prunes_last`: ThiNet prunes last, not first, the channels that its greedy search leaves out first.
    `pca_adds_bias_twice`: PCA adds a layer's bias to the mean of its outputs, which holds it already.
    `scales_epsilon`: a sum counts as 0 in SiPP's and PFP's shares relative to the sample's largest sum, not absolutely.
    `keeps_last_of_equals`: of channels with equal sensitivity PFP keeps the last ones; otherwise those with the largest
        sum over samples.
    `ranks_channels_without_score`: PFP keeps channels of sensitivity 0 after all others, one by one; otherwise all of
        them or none.
    `spends_remainder`: the budget that a level leaves is spent by methods whose definition leaves open how (ALDS).
    """

    name: str
    find_ends: FindEnds
    takes_every_kind: bool
    protects_ends: bool
    zeros_are_pruned: bool
    prunes_biases: bool
    selections: Mapping[str, Selection]
    propagate_by_data: Callable[[nn.Module, Masks, Problem, bool, frozenset[str]], None] | None
    thinet_samples: Callable[[Tensor, Tensor], Tensor]
    thinet_prunes_last: bool
    pca_adds_bias_twice: bool
    scales_epsilon: bool
    keeps_last_of_equals: bool
    ranks_channels_without_score: bool
    spends_remainder: bool

    def needs_data(self, method: MethodRow) -> bool:
        """Return whether pruning by `method` reads calibration data and the loss: in its score or in propagation."""
        if method.granularity == "none":
            return False
        return method.needs_data or (self.propagate_by_data is not None and method.granularity != "rank")

    def data_reader(self, method: MethodRow) -> str:
        """Return the name of the reader of the data, for messages: the method, or the method under these rules."""
        return method.name if method.needs_data else f"{method.name} with rules={self.name!r}"


@dataclass(frozen=True)
class Selected:
    """The kept units of one layer (bool, the scores' shape) and, if re-weighted, the factors of their weights."""

    kept: Tensor
    factor: Tensor | None = None


class LayerDraws:
    """Uniform random numbers for one layer, row by row: the first rows do not depend on the number of rows.

    So the sample at a level contains the sample at every lower level, and the budget search stays monotone.
    """

    ROWS = 16

    def __init__(self, generator: torch.Generator, columns: int) -> None:
        self._generator = generator
        self._arrivals: Tensor | None = None
        self._numbers = torch.empty(0, columns)

    def rows(self, count: int) -> Tensor:
        """Return `count` rows of numbers in [0, 1), float32 of shape (count, columns), on the CPU."""
        if (missing := count - len(self._numbers)) > 0:
            shape = -(-missing // self.ROWS) * self.ROWS, self._numbers.shape[1]
            self._numbers = torch.cat([self._numbers, torch.rand(shape, generator=self._generator)])
        return self._numbers[:count]

    def arrivals(self, units: int) -> Tensor:
        """Return the time of each unit's first draw at rate 1, per row: exponential, (columns, units)."""
        if self._arrivals is None:
            uniform = torch.rand(self._numbers.shape[1], units, generator=self.another(0), dtype=torch.float64)
            self._arrivals = -torch.log1p(-uniform)
        return self._arrivals

    def parts(self, columns: Iterable[slice]) -> Iterator[DrawsPart]:
        """Yield the numbers of one slice of columns after the other; the result does not depend on the slicing."""
        late = self.another(1)
        for some in columns:
            yield DrawsPart(self, some, late)

    def another(self, number: int) -> torch.Generator:
        """Return a new generator, the same for the same number, independent of `rows`."""
        return torch.Generator().manual_seed(derive_seed(self._generator.initial_seed(), "another", number))


@dataclass(frozen=True)
class DrawsPart:
    """The random numbers of some rows of a layer. `late`: a generator shared by all parts, in their order."""

    draws: LayerDraws
    columns: slice
    late: torch.Generator

    def rows(self, count: int) -> Tensor:
        """Return what `LayerDraws.rows` returns, of these columns."""
        return self.draws.rows(count)[:, self.columns]

    def arrivals(self, units: int) -> Tensor:
        """Return what `LayerDraws.arrivals` returns, of these columns."""
        return self.draws.arrivals(units)[self.columns]
