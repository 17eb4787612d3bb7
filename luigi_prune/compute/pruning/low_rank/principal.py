"""Decomposition by the principal components of a layer's outputs (Zhang et al., arXiv 1505.06798)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import call, sample_count
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, assemble, square
from luigi_prune.compute.pruning.low_rank.factors import LARGE, eigenpairs, gram
from luigi_prune.compute.pruning.low_rank.foldings import cost_per_rank, full_rank
from luigi_prune.compute.pruning.low_rank.spectra import Spectrum
from luigi_prune.compute.pruning.problem.batches import merge_batches
from luigi_prune.compute.pruning.problem.layers import Layer, evaluating
from luigi_prune.compute.pruning.problem.records import Decomposition, Problem
from luigi_prune.errors import ConfigError

SAMPLED_OUTPUTS = 30_000  # of each layer, over all calibration samples and output positions
SINGLE = 128  # channels from which on products are computed in single precision
FAINT = 1e-5  # relative to the largest energy: components below need double precision
FORWARD_BATCH = 16  # samples in one pass: more are no faster and take more memory


def observe_outputs(problem: Problem, layers: list[Layer]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return per layer the mean (f,) and covariance (f, f) of its outputs over the calibration set, double precision.

    Up to 30,000 outputs, sampled uniformly. Products of wide layers are computed in single precision.
    """
    samples = sum(sample_count(inputs) for inputs, _ in problem.batches)
    modules = dict(problem.network.named_modules())
    sums: dict[str, tuple[int, Tensor, Tensor, Tensor]] = {}  # count, first and second moment around `center`, `center`

    def note(layer: Layer) -> Callable[..., None]:
        total = samples * problem.outputs[layer.name] // layer.weight.shape[0]
        share = min(1.0, SAMPLED_OUTPUTS / max(1, total))
        generator = problem.generator("outputs", layer.name)

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            axis = output.dim() - 1 - len(getattr(layer.module, "kernel_size", ()))
            rows = output.detach().movedim(axis, -1)
            if share < 1:
                drawn = torch.rand(rows.shape[:-1].numel(), generator=generator) < share
                rows = rows[drawn.view(rows.shape[:-1]).to(rows.device)]  # before `rows` are copied
            rows = rows.reshape(-1, layer.weight.shape[0])
            wide = rows.shape[1] >= SINGLE
            if layer.name not in sums:
                zero = rows.new_zeros((), dtype=torch.float64)
                sums[layer.name] = 0, zero, zero, rows.double().mean(0).nan_to_num().to(rows) if wide else zero
            count, first, second, center = sums[layer.name]
            # Centred, so that single precision does not cancel a small covariance.
            rows = rows - center if wide else rows.double()
            product = gram(rows.T[None])[0].double()
            sums[layer.name] = count + len(rows), first + rows.sum(0, dtype=torch.float64), second + product, center

        return hook

    with ExitStack() as stack, torch.no_grad(), evaluating(problem.network):
        for layer in layers:
            stack.callback(modules[layer.name].register_forward_hook(note(layer)).remove)
        for inputs, _ in merge_batches(problem.batches, FORWARD_BATCH):
            call(problem.network, inputs)
    moments = {}
    for name, (count, first, second, center) in sums.items():
        mean = first / max(1, count)
        covariance = (second - count * torch.outer(mean, mean)) / max(1, count - 1)  # lower triangle
        mean = mean + center
        if not bool(torch.isfinite(covariance).all()):
            raise ConfigError(f"layer {name!r} computes NaN or infinite outputs on the calibration data")
        moments[name] = (mean, covariance)
    return moments


class Directions:
    """The eigenpairs of a covariance (f, f), of which the lower triangle is read.

    A large one is decomposed in single precision first, which gives the energies of all components that matter.
    Directions of faint components are recomputed in double precision.
    """

    def __init__(self, covariance: Tensor) -> None:
        self._covariance = covariance

    @cached_property
    def _first(self) -> tuple[Tensor, Tensor]:
        large = len(self._covariance) >= LARGE
        return eigenpairs(self._covariance.to(torch.float32 if large else torch.float64)[None])

    @cached_property
    def _exact(self) -> tuple[Tensor, Tensor]:
        return eigenpairs(self._covariance[None])

    def energies(self) -> Tensor:
        """Return the eigenvalues, descending, (f,)."""
        return self._first[0][0].double()

    def leading(self, rank: int) -> Tensor:
        """Return the eigenvectors of the largest eigenvalues as columns, (f, rank), in double precision."""
        values, vectors = self._first
        if values.dtype != torch.float64 and not bool(values[0, rank - 1] > FAINT * values[0, 0]):
            _, vectors = self._exact
        return vectors[0, :, :rank].double()


def principal_spectrum(weight: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Spectrum, Directions, Tensor]:
    """Return the eigenvalues of the covariance, (1, full rank), its eigenvectors, and the mean."""
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    directions = Directions(covariance)

    def measure() -> tuple[np.ndarray, float]:
        energy = directions.energies()[: full_rank(shape, 1, 0)].cpu().numpy()
        return energy[None], float(energy.max(initial=0.0))

    spectrum = Spectrum(0, 1, cost_per_rank(shape, 1, 0), full_rank(shape, 1, 0), measure)
    return spectrum, directions, mean


def decompose_principal(
    layer: nn.Module, directions: Directions, mean: Tensor, choice: Decomposition, *, double_bias: bool
) -> Decomposed:
    """Return `layer` with its outputs projected onto the leading directions U around their mean.

    Decoding U, encoding U^T W, bias (I - U U^T) mean + U U^T b: dropped components of the outputs are
    replaced by their mean. `double_bias`: (I - U U^T) mean + b, although the mean holds b already.
    """
    weight = square(layer)
    leading = directions.leading(choice.rank)
    encoder = (leading.T.to(weight) @ weight.flatten(1)).unflatten(1, weight.shape[1:])
    old_bias = layer.bias.detach().double() if isinstance(layer.bias, Tensor) else torch.zeros_like(mean)
    offset = old_bias if double_bias else leading @ (leading.T @ old_bias)
    bias = mean - leading @ (leading.T @ mean) + offset
    return assemble(layer, choice, encoder, leading[:, :, None, None], bias)
