"""Decomposition by the principal components of a layer's outputs (Zhang et al., arXiv 1505.06798)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.layers import Layer, evaluating
from luigi_prune.compute.pruning.lowrank.decomposed import Decomposed, assemble, square
from luigi_prune.compute.pruning.lowrank.factors import LARGE, eigenpairs, gram, trusted
from luigi_prune.compute.pruning.lowrank.foldings import cost_per_rank, full_rank
from luigi_prune.compute.pruning.lowrank.spectra import Spectrum
from luigi_prune.compute.pruning.protocol import Decomposition, Problem
from luigi_prune.compute.pruning.reference_rules import merge_batches
from luigi_prune.errors import ConfigError

SAMPLED_OUTPUTS = 30_000  # of each layer, over all calibration samples and output positions
TOGETHER = 16  # samples in one pass: more are no faster, and take more memory


def observe_outputs(problem: Problem, layers: list[Layer]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return per layer the mean (f,) and covariance (f, f) of its outputs over the calibration set, double precision.

    Up to 30,000 outputs, all equally likely to be among them.
    """
    samples = sum(len(inputs) for inputs, _ in problem.batches)
    modules = dict(problem.network.named_modules())
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def note(layer: Layer) -> Callable[..., None]:
        total = samples * problem.outputs[layer.name] // layer.weight.shape[0]
        share = min(1.0, SAMPLED_OUTPUTS / max(1, total))
        generator = problem.generator("outputs", layer.name)

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            axis = -1 if isinstance(layer.module, nn.Linear) else output.dim() - 3
            rows = output.detach().movedim(axis, -1)
            if share < 1:
                drawn = torch.rand(rows.shape[:-1].numel(), generator=generator) < share
                rows = rows[drawn.view(rows.shape[:-1]).to(rows.device)]  # before anything is copied
            rows = rows.reshape(-1, layer.weight.shape[0]).double()
            count, first, second = sums.get(layer.name, (0, rows.new_zeros(()), rows.new_zeros(())))
            sums[layer.name] = count + len(rows), first + rows.sum(0), second + gram(rows.T[None])[0]

        return hook

    with ExitStack() as stack, torch.no_grad(), evaluating(problem.network):
        for layer in layers:
            stack.callback(modules[layer.name].register_forward_hook(note(layer)).remove)
        for inputs, _ in merge_batches(problem.batches, TOGETHER):
            problem.network(inputs)
    found = {}
    for name, (count, first, second) in sums.items():
        mean = first / max(1, count)
        covariance = (second - count * torch.outer(mean, mean)) / max(1, count - 1)  # its lower triangle
        if not bool(torch.isfinite(covariance).all()):
            raise ConfigError(f"layer {name!r} computes NaN or infinite outputs on the calibration data")
        found[name] = (mean, covariance)
    return found


def principal_spectrum(weight: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Spectrum, Tensor, Tensor]:
    """Return the eigenvalues of the covariance, (1, full rank), its eigenvectors as columns, and the mean."""
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    values, vectors = _eigenpairs(covariance, min(f, weight.numel() // cost_per_rank(shape, 1, 0) + 1))
    energy = values[: full_rank(shape, 1, 0)].cpu().numpy()
    measured = (energy[None], float(energy.max(initial=0.0)))
    spectrum = Spectrum(0, 1, cost_per_rank(shape, 1, 0), len(energy), lambda: measured)
    return spectrum, vectors, mean


def _eigenpairs(covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, descending, and eigenvectors, in double precision; `rank` of them are going to be used."""
    for dtype in (torch.float32, torch.float64) if len(covariance) >= LARGE else (torch.float64,):
        values, vectors = eigenpairs(covariance.to(dtype)[None])
        if trusted(values, rank):
            break
    return values[0].double(), vectors[0].double()


def decompose_principal(
    layer: nn.Module, directions: Tensor, mean: Tensor, choice: Decomposition, *, double_bias: bool
) -> Decomposed:
    """Return `layer` with its outputs projected onto the leading directions U around their mean.

    Decoding U, encoding U^T W, bias (I - U U^T) mean + U U^T b, which is the mean where nothing else is left of the
    outputs. `double_bias`: (I - U U^T) mean + b as in the reference, although the mean holds b already.
    """
    weight = square(layer)
    leading = directions[:, : choice.rank]
    encoder = (leading.T.to(weight) @ weight.flatten(1)).unflatten(1, weight.shape[1:])
    own = layer.bias.detach().double() if isinstance(layer.bias, Tensor) else torch.zeros_like(mean)
    offset = own if double_bias else leading @ (leading.T @ own)
    bias = mean - leading @ (leading.T @ mean) + offset
    return assemble(layer, choice, encoder, leading[:, :, None, None], bias)
