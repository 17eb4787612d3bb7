"""Removing from a network the channels that can no longer change its output.

`structure/` finds these channels for any weights and inputs, `coupling` the channels that have to go with each.
Channels are removed in blocks, sets of places that the same modules share; a block that the network's own code does not
allow (sizes written into a reshape, for instance) is found by trying, and stays. Nothing is returned whose outputs
differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.memory import DEVICE_ERRORS
from luigi_prune.compute.network_inputs import (
    Inputs,
    call_on_copy,
    copied,
    network_device,
    sample_count,
    select,
    tensors_in,
)
from luigi_prune.compute.own_draws import own_draws
from luigi_prune.compute.precision import full_precision, own_types
from luigi_prune.compute.pruning.compaction.coupling import find_places
from luigi_prune.compute.pruning.compaction.dead_blocks import Block, dead_blocks, dead_heads, plan_of, reasons
from luigi_prune.compute.pruning.compaction.shrinking import Plan, from_entries, shrink
from luigi_prune.compute.pruning.compaction.taps_of_channels import INPUT, OUTPUT, width
from luigi_prune.compute.pruning.engine.arguments import in_one_piece, with_noise
from luigi_prune.compute.pruning.engine.network_checks import listed
from luigi_prune.compute.pruning.low_rank.decomposed import restore
from luigi_prune.compute.pruning.problem.equivalents import without_equivalents
from luigi_prune.compute.pruning.problem.layers import evaluating
from luigi_prune.compute.pruning.problem.masks import Masks, initial_masks, removals
from luigi_prune.compute.pruning.problem.weight_matrices import in_layers, with_layers
from luigi_prune.compute.pruning.structure.channel_hooks import is_reader
from luigi_prune.compute.pruning.structure.hidden_dependence import unseen
from luigi_prune.compute.pruning.structure.propagation import propagate
from luigi_prune.compute.pruning.structure.structure_probe import StructureProbe
from luigi_prune.errors import ConfigError, DamagedResult, LuigiPruneError, first_line, reason_of

TOLERANCE = 1e-5  # of outputs, relative to the largest one if that is above 1
_COARSE = 1e-3  # relative difference that no rounding explains
_ROUNDINGS = 8  # of numbers with fewer digits: sums over fewer channels round differently
_SEEDS = range(1, 5)  # of more noise, for layers that only some inputs reach
_EXAMPLES, _TRACED = 16, 2  # samples that outputs are compared on, and that the structure is measured on


@dataclass(frozen=True)
class CompactLayer:
    """A layer before and after: numbers of filters and channels; the dead filters that are still there, and why."""

    name: str
    filters: int
    channels: int
    kept_filters: int
    kept_channels: int
    dead_filters: int = 0
    why: str = ""


@dataclass(eq=False)
class Compaction:
    """A smaller network, the masks of the zeros that it still has, and the channels that each module kept.

    `difference`: the largest difference from the masked network's outputs, relative to the largest output above 1.
    """

    network: nn.Module = field(repr=False)
    masks: Masks = field(repr=False)
    plan: Plan = field(repr=False)
    layers: list[CompactLayer] = field(repr=False)
    difference: float


def compact(network: nn.Module, example: Inputs, masks: Masks | None = None, *, align: int = 1) -> Compaction:
    """Return `network`, which does not change, without the dead channels that can be removed.

    `masks`: its pruned entries. `align`: blocks keep dead channels so that their width stays a multiple. Raises
    ConfigError if the network cannot be probed.
    """
    device = network_device(network, example)
    own = own_draws(device)
    with full_precision(device), own_types(device), own, torch.inference_mode(False), torch.no_grad():
        example = with_noise(copied(select(example, slice(_EXAMPLES)), device), 0)
        expected = _outputs(network, example)
        start, held = in_layers(in_one_piece(duplicate(network)), masks)
        held = initial_masks(start, held)
        traced = select(example, slice(min(_TRACED, sample_count(example))))
        try:
            probe = StructureProbe(start, traced)
            apply_masks(start, removals(held))
            if found := unseen(start, probe.baseline, example, (with_noise(example, seed) for seed in _SEEDS)):
                raise ConfigError(f"compact: the network cannot be probed: {found[0]} ({listed(found[1])})")
            propagate(start, held, probe, example, structured=False)
            if not _difference(expected, _outputs(start, example)) <= _tolerance(expected):
                raise ConfigError("compact: the network cannot be probed: propagation would change its outputs")
            structure = probe.observe(held, silence=False)  # a channel of zeros is dead once its readers are pruned
            with torch.enable_grad():
                places = find_places(start, traced)
        except (*DEVICE_ERRORS, LuigiPruneError):
            raise
        except Exception as error:  # of the network's own code
            raise ConfigError(f"compact: the network cannot be probed: {reason_of(error)}") from error
        blocks = dead_blocks(start, places, structure, align)
        heads = dead_heads(start, structure)
        trial = _Trial(start, held, example, expected, heads)
        accepted = trial.accept(blocks)
        small, small_masks, plan, difference = trial.built(accepted)
    why = reasons(start, held, places, structure, accepted, trial.failed, blocks, heads)
    rows = _rows(start, plan, why)
    small.train(network.training)
    return Compaction(small, removals(small_masks), plan, rows, difference)


def rebuild(network: nn.Module, structure: list[dict[str, object]], stored: list[dict[str, object]]) -> nn.Module:
    """Return `network`, freshly built, as small as a compact one; weights are not set: load the state dict next.

    `structure`: its decomposed layers; `stored`: its plan, of `shrinking.as_entries`. Raises DamagedResult if they do
    not fit the network.
    """
    network = restore(network, structure)
    if not stored:
        return network
    try:
        plan = from_entries(stored)
        names = [cut.name for cut in plan]
        inner = [f"{name}.{part}" for name in names for part in ("q_proj", "k_proj", "v_proj", "out_proj")]
        network = with_layers(network, names + inner)
        shrink(network, plan, {})
        return without_equivalents(network, {})[0]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DamagedResult("the channels that are left", f"the network does not have them: {error}") from error


class _Trial:
    """Builds smaller networks and compares their outputs with the given one's."""

    def __init__(
        self, start: nn.Module, masks: Masks, example: Inputs, expected: list[Tensor], heads: Mapping[str, list[int]]
    ) -> None:
        self._start, self._masks, self._example, self._expected = start, masks, example, expected
        self._heads = heads
        self._tolerance = _tolerance(expected)
        self.failed: dict[int, str] = {}  # by id of the block

    def accept(self, blocks: list[Block], accepted: tuple[Block, ...] = ()) -> tuple[Block, ...]:
        """Return `accepted` and those of `blocks` without which the network still computes the same."""
        if not blocks:
            return accepted
        try:
            self.built((*accepted, *blocks))
            return (*accepted, *blocks)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the network's own code
            if len(blocks) == 1:
                self.failed[id(blocks[0])] = f"without them the network's code fails: {first_line(error)}"
                return accepted
        half = len(blocks) // 2
        return self.accept(blocks[half:], self.accept(blocks[:half], accepted))

    def built(self, blocks: tuple[Block, ...]) -> tuple[nn.Module, Masks, Plan, float]:
        """Return the network without these blocks, its masks, the plan and the difference of its outputs.

        Raises ValueError if that is too large, and what the network raises.
        """
        plan = plan_of(self._start, blocks, self._heads)
        small = duplicate(self._start)
        masks = shrink(small, plan, self._masks)
        small, masks = without_equivalents(small, masks)
        difference = _difference(self._expected, _outputs(small, self._example))
        if not difference <= self._tolerance:
            raise ValueError(f"its outputs differ by {difference:.1e}")
        return small, masks, plan, difference


def _outputs(network: nn.Module, example: Inputs) -> list[Tensor]:
    with torch.no_grad(), own_draws(network_device(network, example)), evaluating(network):
        return [tensor.clone() for tensor in tensors_in(call_on_copy(network, example))]


def _tolerance(expected: list[Tensor]) -> float:
    """Return the largest `_difference` that rounding explains."""
    return max([TOLERANCE, *(_ROUNDINGS * torch.finfo(value.dtype).eps for value in expected)])


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Return the largest difference, relative to the largest finite output if above 1; NaN for other shapes.

    If all outputs are small it is a hundredth of the relative one, if that is more.
    """
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("nan")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if not one.numel():
            continue
        differences = torch.where(one == other, torch.zeros_like(one), (one - other).abs())
        largest = one[torch.isfinite(one)].abs()
        scale, largest_difference = float(largest.max()) if largest.numel() else 1.0, float(differences.max())
        worst = max(worst, largest_difference / max(1.0, scale))
        if scale:  # all outputs may be small: a thousandth of the largest counts as a difference of 1e-5
            worst = max(worst, TOLERANCE / _COARSE * largest_difference / scale)
    return worst


def _rows(network: nn.Module, plan: Plan, why: Mapping[str, tuple[int, str]]) -> list[CompactLayer]:
    kept = {(cut.name, cut.side): len(cut.kept) for cut in plan}
    rows = []
    for name, module in network.named_modules():
        if is_reader(module):
            filters, channels = width(module, OUTPUT), width(module, INPUT)
            left = kept.get((name, OUTPUT), filters), kept.get((name, INPUT), channels)
            rows.append(CompactLayer(name, filters, channels, *left, *why.get(name, (0, ""))))
    return rows
