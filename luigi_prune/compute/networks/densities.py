"""Continuous normalising flows: log p(x) = log N(z(1); 0, I) - a(1) for dz/dt = f(t, z), da/dt = -tr(df/dz).

A flow returns one tensor (samples, 1 + features): a, then z. Losses and metrics of densities read that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from luigi_prune.compute.counted_noise import normals_of, seeds_of
from luigi_prune.compute.networks.ode import PROBE, Solver, integrate


class FlowBlock(nn.Module):
    """One integration of `field`, from time 0 to 1 or, with `trainable_time`, to the square of a parameter.

    `exact`: the trace is the sum of derivatives, one backward pass per feature; else Hutchinson's estimate with one
    normal vector per sample and integration.
    """

    def __init__(self, field: nn.Module, solver: Solver, *, exact: bool = False, trainable_time: bool = False):
        super().__init__()
        self.field, self.solver, self.exact = field, solver, exact
        self.root_of_time = nn.Parameter(torch.ones(1)) if trainable_time else None
        self.evaluations = 0

    def forward(self, state: Tensor, shape: Sequence[int], seeds: Tensor | None) -> Tensor:
        """Return the state (samples, 1 + features) at the end; `shape`: that of z without the samples.

        `seeds`: of the noise, one per sample; None draws it from torch's generator.
        """
        noise = None
        if not self.exact:
            z = state[:, 1:]
            noise = torch.randn_like(z) if seeds is None else normals_of(seeds, z.shape[1]).to(z)
        self.evaluations = 0

        def derivative(t: Tensor, state: Tensor) -> Tensor:
            self.evaluations += 1
            return self._derivative(t, state, shape, noise)

        return integrate(derivative, state, self.solver, list(self.parameters()), training=self.training)

    def simplify_for_probe(self) -> None:
        """Take few steps from now on."""
        self.solver = PROBE

    def _derivative(self, t: Tensor, state: Tensor, shape: Sequence[int], noise: Tensor | None) -> Tensor:
        needed = torch.is_grad_enabled()
        with torch.enable_grad():
            z = state[:, 1:]
            z = z if z.requires_grad else z.detach().requires_grad_(True)
            end = None if self.root_of_time is None else self.root_of_time**2
            flow = self.field(t if end is None else t * end, z.unflatten(1, shape)).flatten(1)
            flow = flow if end is None else flow * end
            trace = _trace(flow, z, noise, create_graph=needed)
        result = torch.cat([-trace[:, None], flow], dim=1)
        return result if needed else result.detach()


def _trace(flow: Tensor, z: Tensor, noise: Tensor | None, *, create_graph: bool) -> Tensor:
    """Return the trace of d flow / d z for every sample, exactly or by the estimate with `noise`."""

    def product(vectors: Tensor, last: bool) -> Tensor:
        """Return vectors^T (d flow / d z)."""
        if not flow.requires_grad:  # a hook cut the layers off
            return torch.zeros_like(z)
        (gradient,) = torch.autograd.grad(
            flow, z, vectors, create_graph=create_graph, retain_graph=create_graph or not last, allow_unused=True
        )
        return torch.zeros_like(z) if gradient is None else gradient

    if noise is not None:
        return (product(noise, last=True) * noise).sum(1)
    features = z.shape[1]
    units = torch.eye(features, dtype=z.dtype, device=z.device)
    columns = [product(units[i].expand_as(z), last=i == features - 1)[:, i] for i in range(features)]
    return torch.stack(columns, dim=1).sum(1)


class Flow(nn.Module):
    """Blocks in a row. In evaluation mode the noise of traces is a function of the sample, so that results repeat.

    A trace by noise in evaluation, too, is the reference's choice: the exact one takes a backward pass per feature.
    """

    def __init__(self, blocks: Iterable[FlowBlock]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return (samples, 1 + features) for x (samples, features)."""
        state = torch.cat([x.new_zeros(len(x), 1), x], dim=1)
        for index, block in enumerate(self.blocks):
            state = block(state, x.shape[1:], self.seeds(x, index))
        return state

    def seeds(self, x: Tensor, block: int) -> Tensor | None:
        """Return the seeds of a block's noise; None in training."""
        return None if self.training else seeds_of(x) + block

    @property
    def evaluations(self) -> int:
        """How often the last forward evaluated the fields of all blocks."""
        return sum(block.evaluations for block in self.modules() if isinstance(block, FlowBlock))
