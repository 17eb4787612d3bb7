"""The scores of low-rank methods: the decompositions that each layer allows, as spectra, and how to build them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from luigi_prune.compute.pruning.low_rank.clusters import cluster_spectrum, decompose_clusters
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, decompose, square
from luigi_prune.compute.pruning.low_rank.principal import decompose_principal, observe_outputs, principal_spectrum
from luigi_prune.compute.pruning.low_rank.spectra import (
    Spectrum,
    distinct_foldings,
    divisors,
    nearest_divisor,
    spectra_of,
)
from luigi_prune.compute.pruning.problem.layers import Layer
from luigi_prune.compute.pruning.problem.records import Decomposition, Problem, Score
from luigi_prune.compute.zeros import to_numbers
from luigi_prune.errors import ConfigError

FEW = 1024  # entries of a weight that nearly always have one that is not zero


@dataclass(frozen=True, eq=False)
class Candidates:
    """The decompositions of one layer: a spectrum for every (folding, groups), and the function that builds them.

    `spectra` is empty for a layer that cannot be decomposed. `kept`: non-zero weights of the layer at this step (in a
    cascade, those of its factors). `total`: weights of the undecomposed layer. `patches`: output positions of one
    sample. `extra`: parameters that a decomposition adds to its weights (a bias). `of_outputs`: the layer's outputs are
    approximated, not its weight.
    """

    kept: int
    total: int
    patches: int
    spectra: list[Spectrum]
    build: Callable[[Decomposition], Decomposed]
    extra: int = 0
    of_outputs: bool = False


def one_spectrum(problem: Problem, *, folding: int, groups: int) -> list[Candidates]:
    """Return one spectrum per layer; if `groups` does not divide the channels, the nearest divisor is used."""
    return _candidates(problem, lambda size, channels: [(folding, nearest_divisor(channels, groups))])


def all_groups(problem: Problem) -> list[Candidates]:
    """Return the spectra of folding 0 for every number of groups."""
    return _candidates(problem, lambda size, channels: [(0, k) for k in divisors(channels)])


def all_foldings(problem: Problem) -> list[Candidates]:
    """Return the spectra of every folding for every number of groups."""

    def pairs(size: tuple[int, int], channels: int) -> list[tuple[int, int]]:
        return [(folding, k) for folding in distinct_foldings(size) for k in divisors(channels)]

    return _candidates(problem, pairs)


def clusters(problem: Problem, *, count: int) -> list[Candidates]:
    """Return the spectra of folding 0 for MESSI: the rank is the dimension of each of `count` subspaces."""
    candidates, is_replaceable = [], _replaceable(problem)
    for layer in problem.layers:
        weight, generator = _finite_weight(layer), partial(problem.generator, "clusters", layer.name)
        spectra = [cluster_spectrum(weight, count)] if is_replaceable(layer) else []
        build = partial(decompose_clusters, layer.module, generator=generator)
        candidates.append(_candidates_of(problem, layer, spectra, build))
    return candidates


def principal_components(problem: Problem) -> list[Candidates]:
    """Return the eigenvalues of the covariance of every layer's outputs over the calibration set."""
    is_replaceable = _replaceable(problem)
    moments = observe_outputs(problem, [layer for layer in problem.layers if is_replaceable(layer)])
    double_bias = problem.rules.pca_adds_bias_twice
    candidates = []
    for layer in problem.layers:
        weight = _finite_weight(layer)
        if layer.name not in moments:
            candidates.append(_candidates_of(problem, layer, [], partial(decompose, layer.module)))
            continue
        spectrum, directions, mean = principal_spectrum(weight, moments[layer.name])
        build = partial(decompose_principal, layer.module, directions, mean, double_bias=double_bias)
        extra = 0 if isinstance(layer.module.bias, Tensor) else weight.shape[0]
        candidates.append(replace(_candidates_of(problem, layer, [spectrum], build, extra), of_outputs=True))
    return candidates


def _candidates(
    problem: Problem, pairs_of: Callable[[tuple[int, int], int], list[tuple[int, int]]]
) -> list[Candidates]:
    """Return the candidates of every layer; `pairs_of(kernel size, input channels)`: the (folding, groups) to try."""
    candidates, is_replaceable = [], _replaceable(problem)
    for layer in problem.layers:
        weight = _finite_weight(layer)
        pairs = pairs_of((weight.shape[2], weight.shape[3]), weight.shape[1]) if is_replaceable(layer) else []
        spectra = spectra_of(weight, pairs)
        bases = {(spectrum.folding, spectrum.groups): spectrum.basis for spectrum in spectra}
        candidates.append(_candidates_of(problem, layer, spectra, partial(decompose, layer.module, bases=bases)))
    return candidates


def _candidates_of(
    problem: Problem,
    layer: Layer,
    spectra: list[Spectrum],
    build: Callable[[Decomposition], Decomposed],
    extra: int = 0,
) -> Candidates:
    weight = layer.weight
    patches = problem.outputs.get(layer.name, 0) // max(1, weight.shape[0])
    return Candidates(int(problem.kept(layer).sum()), weight.numel(), patches, spectra, build, extra)


def _replaceable(problem: Problem) -> Callable[[Layer], bool]:
    """Return the test whether a layer may be replaced: not ignored, called, its weight neither tied nor zero.

    Attention reads the weight of its output layer without calling it; a tied weight would stay in the network. Factors
    of zero would never change: each is multiplied by the other in its gradient.
    """
    parameters = (parameter for module in problem.network.modules() for parameter in module._parameters.values())
    owners = Counter(id(parameter) for parameter in parameters)
    doubtful = _without_nonzero([(layer.name, layer.weight.flatten()[:FEW]) for layer in problem.layers])
    zero = _without_nonzero([(layer.name, layer.weight) for layer in problem.layers if layer.name in doubtful])

    def is_replaceable(layer: Layer) -> bool:
        if layer.name in problem.ignored or layer.name in zero:
            return False
        return problem.outputs.get(layer.name, 0) > 0 and owners[id(layer.weight)] <= 1

    return is_replaceable


def _without_nonzero(named: list[tuple[str, Tensor]]) -> set[str]:
    """Return the names of the tensors that are all zero."""
    some = to_numbers(values.any() for _, values in named)
    return {name for (name, _), has_some in zip(named, some, strict=True) if not has_some}


def _finite_weight(layer: Layer) -> Tensor:
    weight = square(layer.module)
    # Checking the sum is several times faster than checking every entry, but the sum may overflow.
    if not bool(torch.isfinite(weight.sum())) and not bool(torch.isfinite(weight).all()):
        raise ConfigError(f"layer {layer.name!r} cannot be decomposed: its weight has NaN or infinite entries")
    return weight


SPECTRA: dict[str, Score] = {
    "singular_values": partial(one_spectrum, folding=0, groups=1),
    "singular_values_folding_1": partial(one_spectrum, folding=1, groups=1),
    "singular_values_3_groups": partial(one_spectrum, folding=0, groups=3),
    "singular_values_5_groups": partial(one_spectrum, folding=0, groups=5),
    "singular_values_all_groups": all_groups,
    "singular_values_all_foldings": all_foldings,
    "principal_components": principal_components,
    "subspace_clusters_3": partial(clusters, count=3),
    "subspace_clusters_5": partial(clusters, count=5),
}
