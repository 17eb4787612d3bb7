"""Cutting one copy of the network at one level after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from luigi_prune.compute.copied_modules import cloned, copy_all
from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.freed_memory import return_freed_memory
from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.network_inputs import (
    Inputs,
    call_on_copy,
    form,
    join,
    network_device,
    same_samples,
    sample_count,
    select,
    tensors_in,
)
from luigi_prune.compute.own_draws import own_draws
from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES, cut, is_protected
from luigi_prune.compute.pruning.problem.layers import Layer, evaluating, groups_of, protected_parameters
from luigi_prune.compute.pruning.problem.masks import Masks, kept_of
from luigi_prune.compute.pruning.problem.records import LayerDraws, Levels, Mixed, Problem, Scores, Selection
from luigi_prune.compute.pruning.sizes_and_flops import count_size
from luigi_prune.compute.pruning.structure.channel_hooks import Structure
from luigi_prune.compute.pruning.structure.probes import Probes
from luigi_prune.compute.pruning.structure.propagation import propagate, silence
from luigi_prune.compute.zeros import all_true

CHECKED = 2  # samples of each kind of input, data and noise, on which propagation is checked
KEPT_DRAWS = 2**22  # weights of layers whose random numbers are kept; those of further layers are drawn at every level


class Trial:
    """A copy of the problem's network that is cut and propagated again at every level that is tried.

    `probes` None: no propagation by structure (the rules propagate by data, or the probe misjudges the network).
    """

    quick = False  # propagate by the probe on smaller images if there is one, for levels that are only tried

    def __init__(
        self,
        problem: Problem,
        scores: Scores,
        levels: Levels,
        selection: Selection,
        granularity: str,
        probes: Probes | None,
    ) -> None:
        self.problem, self.levels, self.probes = problem, levels, probes
        self.network = duplicate(problem.network)
        self.masks: Masks = {}
        self._structure: Structure | None = None
        self._scores, self._granularity = scores, granularity
        self._own_selection = self._selection = selection
        self._modules = dict(self.network.named_modules())
        self._tensors = changing_tensors(self.network)
        self._protected = protected_parameters(self.network, problem.ignored)
        self._draws: dict[str, LayerDraws] = {}
        self._kept_draws = 0  # weights of their layers
        self._level: int | None = None  # at which the network is cut,
        self._is_exact = True  # and whether it is propagated by the exact probe
        self.outputs: list[Tensor] = []  # of the network for samples of the problem's example, if `is_sound` ran it
        self._cut_masks: Masks = {}  # the masks at this level before propagation,
        self._reweighted: dict[str, Tensor] = {}  # and the kept weights that the cut has multiplied by factors

    def size_at(self, level: int) -> int:
        """Return the size of the network cut at `level` and propagated; `network` and `masks` keep that state.

        Return 0 for a network that has become constant: no weight of a compressible layer is left.
        """
        if level != self._level or not (self.quick or self._is_exact):
            if level == self._level:
                self._cut_again()
            else:
                self._reset()
                self._cut(level)
                return_freed_memory(self.network)
            self._propagate()
            self._level = level
        size = count_size(self.network, self.masks)
        return size if any(kept_of(self.masks[layer.weight_name] for layer in self.problem.layers)) else 0

    def select_with(self, selection: Selection | None) -> None:
        """Cut by another selection from now on; None: by the method's."""
        self._selection, self._level = selection or self._own_selection, None

    def _reset(self) -> None:
        copy_all(self._tensors, changing_tensors(self.problem.network))
        self.masks = dict(self.problem.masks)

    def _cut(self, level: int) -> None:
        unit = GRANULARITIES[self._granularity]
        rules = self.problem.rules
        choices = self.levels.choose(level)
        self._reweighted.clear()
        for layer, score, choice in zip(self.problem.layers, self._scores, choices, strict=True):
            if choice is None or is_protected(self._granularity, layer, self.problem):
                continue
            assert isinstance(choice, (Tensor, Mixed))
            alive = unit.alive(self.problem.kept(layer))
            rows = (choice.top if isinstance(choice, Mixed) else choice).numel()
            selected = self._selection(score, alive, choice, self._draws_of(layer, rows, score.numel()))
            cut(
                self._granularity, layer, self._modules[layer.name], selected, self.masks, with_bias=rules.prunes_biases
            )
            if selected.factor is not None and self.probes is not None:
                weight = self._modules[layer.name].get_parameter("weight").detach()
                self._reweighted[layer.weight_name] = weight[self.masks[layer.weight_name]]
        self._cut_masks = dict(self.masks)

    def _draws_of(self, layer: Layer, rows: int, units: int) -> LayerDraws:
        """Return the layer's random numbers; those of some layers take several times the memory of their weights."""
        draws = self._draws.get(layer.name) or LayerDraws(self.problem.generator("draws", layer.name), rows)
        if layer.name not in self._draws and self._kept_draws + units <= KEPT_DRAWS:
            self._draws[layer.name] = draws
            self._kept_draws += units
        return draws

    def _cut_again(self) -> None:
        """Restore the network and the masks as `_cut` left them: without new draws, which take longer than a score."""
        copy_all(self._tensors, changing_tensors(self.problem.network))
        for name, kept in self._reweighted.items():
            self.network.get_parameter(name).masked_scatter_(self._cut_masks[name], kept)
        self.masks = dict(self._cut_masks)
        self._apply(self.masks)

    def _apply(self, masks: Masks) -> None:
        """Set to zero what `masks` remove, in a network with the weights of the problem's: it is masked already."""
        before = self.problem.masks
        apply_masks(self.network, {name: mask for name, mask in masks.items() if mask is not before[name]})

    def _propagate(self) -> None:
        problem, structured = self.problem, GRANULARITIES[self._granularity].structured
        self._structure, self._is_exact = None, True
        if problem.rules.propagate_by_data is not None:
            problem.rules.propagate_by_data(self.network, self.masks, problem, structured, self._protected)
        elif self.probes is not None and not self._all_channels_live():
            probe, example = self.probes.smaller if self.quick else self.probes.exact
            self._is_exact = probe is self.probes.exact[0]
            self._structure = propagate(
                self.network, self.masks, probe, example, structured=structured, protected=self._protected
            )

    def _all_channels_live(self) -> bool:
        """Return whether every filter and channel still has weights: then no other parameter has become useless.

        The problem's network is propagated already, so each of its living channels has a living source and reader.
        """
        before = self.problem.masks
        cut = [layer for layer in self.problem.layers if self.masks[layer.weight_name] is not before[layer.weight_name]]
        uncut = [before[layer.weight_name] for layer in cut]
        had_all = [count == mask.numel() for mask, count in zip(uncut, kept_of(uncut), strict=True)]

        def lives() -> Iterator[Tensor]:
            for layer, all_lived in zip(cut, had_all, strict=True):
                channels = self._channels(self.masks, layer)
                if all_lived:
                    yield from channels
                else:
                    yield from (now | ~then for now, then in zip(channels, self._channels(before, layer), strict=True))

        return all_true(lives())

    @staticmethod
    def _channels(masks: Masks, layer: Layer) -> list[Tensor]:
        """Return which filters and which channels, of every group, of a layer have weights left."""
        mask = masks[layer.weight_name]
        matrix = mask.flatten(2).any(2) if mask.dim() > 2 else mask
        return [matrix.any(1), matrix.unflatten(0, (groups_of(layer.module), -1)).any(1)]

    def is_sound(self, level: int) -> bool:
        """Return whether propagation at `level` leaves the outputs of the cut network unchanged."""
        self.size_at(level)
        if self._structure is None:
            return True
        inputs, masks = check_inputs(self.problem), self.masks
        after = outputs_of(self.network, inputs)
        self.outputs = by_sample(after, inputs[0]) if len(inputs) == 1 else []
        # Propagation moves constants into vectors; in weights it only prunes entries, which the masks tell.
        vectors = [tensor for tensor in self._tensors if tensor.dim() < 2]
        propagated = cloned(vectors)
        self._cut_again()
        silence(self.network, self.masks, self._structure)
        before = outputs_of(self.network, inputs)
        copy_all(vectors, propagated)
        self._apply(masks)
        self.masks = masks
        return same_outputs(before, after)

    def release(self) -> None:
        """Free everything but the network, the masks and the outputs: several times the memory of the network."""
        self._scores, self._level = [], None
        self._draws.clear()
        self._reweighted.clear()
        self._cut_masks.clear()
        self.levels = Levels(0, lambda level: [], lambda level: 0.0)  # its functions hold sums of the scores


def changing_tensors(network: nn.Module) -> list[Tensor]:
    """Return the tensors that cuts and propagation change: parameters, and running means of normalisations."""
    means = [module.running_mean for module in network.modules() if isinstance(module, _NormBase)]
    return [*(value.detach() for value in network.parameters()), *(mean for mean in means if isinstance(mean, Tensor))]


def check_inputs(problem: Problem) -> list[Inputs]:
    """Return the inputs on which propagation is checked, a few samples of each kind.

    They are the first of the example, which are data, its last, which are noise, and the first of the calibration data,
    if these are others. A wrong structure changes the outputs for nearly every sample.
    """
    example = problem.example_input
    batches = [select(batch, slice(CHECKED)) for batch, _ in problem.batches[:1]]
    few = [example]
    if sample_count(example) > 2 * CHECKED:
        few = [select(example, slice(CHECKED)), select(example, slice(-CHECKED, None))]
    inputs = [*few, *(batch for batch in batches if not same_samples(batch, example))]
    alike = all(form(inputs[0], dtypes=True) == form(other, dtypes=True) for other in inputs[1:])
    return [join(inputs)] if alike else inputs


@torch.no_grad()
def outputs_of(network: nn.Module, inputs: list[Inputs]) -> list[Tensor]:
    """Return all output tensors of a network for the inputs, in evaluation mode."""
    with own_draws(network_device(network, inputs[0])), evaluating(network):
        return [tensor.clone() for value in inputs for tensor in tensors_in(call_on_copy(network, value))]


def by_sample(outputs: Sequence[Tensor], inputs: Inputs) -> list[Tensor]:
    """Return those of a network's outputs for `inputs` whose first axis runs over samples."""
    count = sample_count(inputs)
    return [value for value in outputs if value.dim() and len(value) == count]


def same_outputs(one: list[Tensor], other: list[Tensor]) -> bool:
    """Return whether two networks' outputs are equal except for rounding."""
    if [value.shape for value in one] != [value.shape for value in other]:
        return False
    for left, right in zip(one, other, strict=True):
        slack = max(1e-4, 30 * torch.finfo(left.dtype).eps)
        scale = float(left.abs().nan_to_num(0, 0, 0).amax()) if left.numel() else 0.0
        if not torch.allclose(left, right, rtol=slack, atol=slack * scale, equal_nan=True):
            return False
    return True
