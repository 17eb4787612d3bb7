"""Decomposition by the principal components of a layer's outputs (Zhang et al., arXiv 1505.06798)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import call_on_copy, sample_count
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, assemble, square
from luigi_prune.compute.pruning.low_rank.factors import LARGE, eigenpairs, gram
from luigi_prune.compute.pruning.low_rank.foldings import cost_per_rank, full_rank
from luigi_prune.compute.pruning.low_rank.spectra import Spectrum
from luigi_prune.compute.pruning.problem.batches import merge_batches
from luigi_prune.compute.pruning.problem.call_hooks import after_calls
from luigi_prune.compute.pruning.problem.layers import Layer, evaluating
from luigi_prune.compute.pruning.problem.records import Decomposition, Problem
from luigi_prune.errors import ConfigError

SAMPLED_OUTPUTS = 30_000  # of each layer, over all calibration samples and output positions
CENTERED = 4096  # outputs whose mean is subtracted from all, so that their squares stay small
SINGLE = 128  # channels from which on products are computed in single precision
EXACT_TYPES = (torch.float32, torch.float64)  # of weights whose columns have an orthonormal basis
FAINT = 1e-5  # relative to the largest energy: components below need double precision
FORWARD_BATCH = 16  # samples in one pass: more are no faster and take more memory


class Moments:
    """The mean (f,) and covariance of a layer's outputs, double precision. `name`: of the layer, for messages.

    `span`: orthonormal columns (f, s) that span the deviations from the mean, in whose coordinates the covariance
    (s, s) is; None: those of the outputs, (f, f). While the outputs take less memory than the covariance, they are kept
    instead, and summed when it is asked for.
    """

    def __init__(self, name: str, some: Tensor, span: Tensor | None = None) -> None:
        """`some`: the first outputs, not counted yet."""
        self._name, self._wide, self.span = name, some.shape[1] >= SINGLE, span
        self._count = 0
        self._first = some.new_zeros((), dtype=torch.float64)  # first and
        self._second: Tensor | None = None  # second moment around
        self._center = self._first  # if wide, so that single precision does not cancel a small covariance
        if self._wide:
            few = some[:: -(-len(some) // CENTERED) or 1]
            self._center = few.double().mean(0).nan_to_num().to(some)
        self._waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Take outputs (n, f) into account."""
        rows = rows - self._center if self._wide else rows.double()
        self._count += len(rows)
        self._first = self._first + rows.sum(0, dtype=torch.float64)
        rows = rows if self.span is None else rows @ self.span
        self._waiting.append(rows)
        if self._second is not None or self._count * rows.element_size() > rows.shape[1] * self._first.element_size():
            self._second, self._waiting = self._summed(), []

    def _summed(self) -> Tensor:
        second = self._first.new_zeros(()) if self._second is None else self._second
        for rows in self._waiting:
            second = second + gram(rows.T[None])[0].double()
        return second

    @property
    def mean(self) -> Tensor:
        """The mean of the outputs, (f,)."""
        return self._first / max(1, self._count) + self._center

    def covariance(self) -> Tensor:
        """Return the covariance, of which only the lower triangle is set; raise ConfigError if it is not finite."""
        mean = self._first / max(1, self._count)
        mean = mean if self.span is None else mean @ self.span.double()
        covariance = (self._summed() - self._count * torch.outer(mean, mean)) / max(1, self._count - 1)
        if not bool(torch.isfinite(covariance).all()):
            raise ConfigError(f"layer {self._name!r} computes NaN or infinite outputs on the calibration data")
        return covariance


def span_of(layer: Layer) -> Tensor | None:
    """Return an orthonormal basis (f, s) of all outputs of a layer up to its bias, if they fill half of f or less."""
    columns = square(layer.module).flatten(1)
    if len(columns) < SINGLE or 2 * columns.shape[1] > len(columns) or columns.dtype not in EXACT_TYPES:
        return None
    return torch.linalg.qr(columns)[0]


def observe_outputs(problem: Problem, layers: list[Layer]) -> dict[str, Moments]:
    """Return per layer the moments of its outputs over the calibration set.

    Up to 30,000 outputs, sampled uniformly. Products of wide layers are computed in single precision.
    """
    samples = sum(sample_count(inputs) for inputs, _ in problem.batches)
    modules = dict(problem.network.named_modules())
    moments: dict[str, Moments] = {}

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
            if layer.name not in moments:
                moments[layer.name] = Moments(layer.name, rows, span_of(layer))
            moments[layer.name].add(rows)

        return hook

    with ExitStack() as stack, torch.no_grad(), evaluating(problem.network):
        for layer in layers:
            stack.callback(after_calls(modules[layer.name], note(layer)).remove)
        for inputs, _ in merge_batches(problem.batches, FORWARD_BATCH):
            call_on_copy(problem.network, inputs)
    return moments


class Directions:
    """The eigenpairs of a covariance, of which the lower triangle is read.

    A large one is decomposed in single precision first, which gives the energies of all components that matter.
    Directions of faint components are recomputed in double precision.
    """

    def __init__(self, moments: Moments) -> None:
        self._moments = moments

    @cached_property
    def _first(self) -> tuple[Tensor, Tensor]:
        covariance = self._moments.covariance()
        return eigenpairs(covariance.to(torch.float32 if len(covariance) >= LARGE else torch.float64)[None])

    @cached_property
    def _exact(self) -> tuple[Tensor, Tensor]:
        return eigenpairs(self._moments.covariance()[None])

    def energies(self) -> Tensor:
        """Return the eigenvalues, descending: of those that may differ from 0."""
        return self._first[0][0].double()

    def leading(self, rank: int) -> Tensor:
        """Return the eigenvectors of the largest eigenvalues as columns, (f, rank), in double precision."""
        values, vectors = self._first
        if values.dtype != torch.float64 and not bool(values[0, rank - 1] > FAINT * values[0, 0]):
            _, vectors = self._exact
        leading, span = vectors[0, :, :rank].double(), self._moments.span
        return leading if span is None else span.double() @ leading


def principal_spectrum(weight: Tensor, moments: Moments) -> tuple[Spectrum, Directions, Tensor]:
    """Return the eigenvalues of the covariance, (1, full rank), its eigenvectors, and the mean."""
    f, c, *size = weight.shape
    shape = (f, c, size[0], size[1])
    directions = Directions(moments)

    def measure() -> tuple[np.ndarray, float]:
        energy = directions.energies()[: full_rank(shape, 1, 0)].cpu().numpy()
        return energy[None], float(energy.max(initial=0.0))

    spectrum = Spectrum(0, 1, cost_per_rank(shape, 1, 0), full_rank(shape, 1, 0), measure)
    return spectrum, directions, moments.mean


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
