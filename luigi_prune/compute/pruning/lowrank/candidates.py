"""The scores of low-rank methods: what every layer can be decomposed into, as spectra, and how that is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from luigi_prune.compute.pruning.layers import Layer
from luigi_prune.compute.pruning.lowrank.clusters import cluster_spectrum, decompose_clusters
from luigi_prune.compute.pruning.lowrank.decomposed import Decomposed, decompose, square
from luigi_prune.compute.pruning.lowrank.principal import decompose_principal, observe_outputs, principal_spectrum
from luigi_prune.compute.pruning.lowrank.spectra import (
    Spectrum,
    distinct_foldings,
    divisors,
    nearest_divisor,
    spectra_of,
)
from luigi_prune.compute.pruning.protocol import Decomposition, Problem, Score
from luigi_prune.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Candidates:
    """What one layer may become: a spectrum for every (folding, groups), and the function that decomposes it.

    `spectra` is empty for a layer that must stay as it is. `kept`: its weights as it stands (in a cascade, those of
    its factors). `total`: its weights if it were whole. `patches`: output positions of one sample. `extra`: entries
    that a decomposition adds beside its weights. `of_outputs`: not the weight is approximated but what it computes.
    """

    kept: int
    total: int
    patches: int
    spectra: list[Spectrum]
    build: Callable[[Decomposition], Decomposed]
    extra: int = 0
    of_outputs: bool = False


def one_spectrum(problem: Problem, *, folding: int, groups: int) -> list[Candidates]:
    """Return one spectrum per layer; where `groups` do not divide the channels, the nearest number that does."""
    return _candidates(problem, lambda size, channels: [(folding, nearest_divisor(channels, groups))])


def all_groups(problem: Problem) -> list[Candidates]:
    """Return the spectra of folding 0 for every number of groups."""
    return _candidates(problem, lambda size, channels: [(0, k) for k in divisors(channels)])


def all_foldings(problem: Problem) -> list[Candidates]:
    """Return the spectra of every folding for every number of groups."""

    def wanted(size: tuple[int, int], channels: int) -> list[tuple[int, int]]:
        return [(folding, k) for folding in distinct_foldings(size) for k in divisors(channels)]

    return _candidates(problem, wanted)


def clusters(problem: Problem, *, count: int) -> list[Candidates]:
    """Return the spectra of folding 0 for MESSI: the rank stands for the dimension of each of `count` subspaces."""
    found, free = [], _free(problem)
    for layer in problem.layers:
        weight, generator = _checked(layer), partial(problem.generator, "clusters", layer.name)
        spectra = [cluster_spectrum(weight, count)] if free(layer) else []
        build = partial(decompose_clusters, layer.module, generator=generator)
        found.append(_one(problem, layer, spectra, build))
    return found


def principal_components(problem: Problem) -> list[Candidates]:
    """Return the eigenvalues of the covariance of every layer's outputs over the calibration set."""
    free = _free(problem)
    moments = observe_outputs(problem, [layer for layer in problem.layers if free(layer)])
    double_bias = problem.rules.pca_adds_bias_twice
    found = []
    for layer in problem.layers:
        weight = _checked(layer)
        if layer.name not in moments:
            found.append(_one(problem, layer, [], partial(decompose, layer.module)))
            continue
        spectrum, directions, mean = principal_spectrum(weight, *moments[layer.name])
        build = partial(decompose_principal, layer.module, directions, mean, double_bias=double_bias)
        extra = 0 if isinstance(layer.module.bias, Tensor) else weight.shape[0]
        found.append(replace(_one(problem, layer, [spectrum], build, extra), of_outputs=True))
    return found


def _candidates(problem: Problem, wanted: Callable[[tuple[int, int], int], list[tuple[int, int]]]) -> list[Candidates]:
    found, free = [], _free(problem)
    for layer in problem.layers:
        weight = _checked(layer)
        pairs = wanted((weight.shape[2], weight.shape[3]), weight.shape[1]) if free(layer) else []
        spectra = spectra_of(weight, pairs)
        bases = {(spectrum.folding, spectrum.groups): spectrum.basis for spectrum in spectra}
        found.append(_one(problem, layer, spectra, partial(decompose, layer.module, bases=bases)))
    return found


def _one(
    problem: Problem,
    layer: Layer,
    spectra: list[Spectrum],
    build: Callable[[Decomposition], Decomposed],
    extra: int = 0,
) -> Candidates:
    weight = layer.weight
    patches = problem.outputs.get(layer.name, 0) // max(1, weight.shape[0])
    return Candidates(int(problem.kept(layer).sum()), weight.numel(), patches, spectra, build, extra)


def _free(problem: Problem) -> Callable[[Layer], bool]:
    """Return whether a layer may be replaced: it is called, and its weight belongs to it alone and is not empty.

    Attention reads the weight of its output layer without calling it, and a tied weight would not go away.
    """
    parameters = (parameter for module in problem.network.modules() for parameter in module._parameters.values())
    owners = Counter(id(parameter) for parameter in parameters)

    def free(layer: Layer) -> bool:
        return problem.outputs.get(layer.name, 0) > 0 and owners[id(layer.weight)] <= 1 and layer.weight.numel() > 0

    return free


def _checked(layer: Layer) -> Tensor:
    weight = square(layer.module)
    # A sum is several times faster to look at than all entries, but it may overflow.
    if not bool(torch.isfinite(weight.sum())) and not bool(torch.isfinite(weight).all()):
        raise ConfigError(f"layer {layer.name!r} cannot be decomposed: its weight holds NaN or infinite entries")
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
