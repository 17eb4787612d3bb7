"""The solution of an ordinary differential equation whose right-hand side is a network, by torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.errors import ConfigError

Field = Callable[[Tensor, Tensor], Tensor]  # (time, state) -> derivative of the state
MAX_STEPS = 10_000


class SolverFailure(ConfigError, RuntimeError):
    """A solver that cannot reach the end of the interval."""


@dataclass(frozen=True)
class Solver:
    """A method of torchdiffeq on [0, 1]: adaptive with tolerances, or with `points` equally spaced points.

    `adjoint`: training integrates the gradient backwards instead of keeping all evaluations.
    """

    method: str = "dopri5"
    adjoint: bool = True
    points: int = 2
    atol: float = 1e-5
    rtol: float = 1e-5


PROBE = Solver("euler", adjoint=False, points=3)
"""Two steps: every channel of a field depends on the same others as with any solver, whatever the weights."""


@cache
def torchdiffeq() -> Any:
    """Return the module; raises ConfigError if it is not installed."""
    try:
        import torchdiffeq as module
    except ImportError:
        raise ConfigError(
            "network.name: networks of continuous depth need the package torchdiffeq: pip install 'luigi-prune[ode]'"
        ) from None
    return module


def integrate(
    field: Field, state: Tensor, solver: Solver, parameters: Sequence[nn.Parameter], *, training: bool
) -> Tensor:
    """Return the state at time 1 that starts as `state` (samples, ...) at time 0, in at least single precision.

    An adaptive solver takes the same steps for all samples of a batch, so a sample's result depends on the others,
    within the tolerance. Only training uses adjoint gradients: others are those of the solver's steps, which hooks
    observe. Raises SolverFailure if the steps become too small or too many.
    """
    library = torchdiffeq()
    if not len(state):
        return state
    adaptive = solver.method == "dopri5"
    options: dict[str, Any] = (
        {"max_num_steps": MAX_STEPS}
        if adaptive
        else {"grid_constructor": lambda func, y0, t: torch.linspace(0, 1, solver.points).to(t) * (t[-1] - t[0]) + t[0]}
    )
    keywords: dict[str, Any] = {"method": solver.method, "options": options}
    if adaptive:
        keywords |= {"atol": solver.atol, "rtol": solver.rtol}
    with torch.autocast(state.device.type, enabled=False):
        state = state if state.dtype == torch.float64 else state.float()
        ends = torch.tensor([0.0, 1.0], dtype=state.dtype, device=state.device)
        try:
            if training and solver.adjoint and torch.is_grad_enabled():
                # The steps backwards follow the state, not the parameters' gradients, which no later step reads.
                keywords |= {"adjoint_params": tuple(parameters), "adjoint_options": {**options, "norm": "seminorm"}}
                solution = library.odeint_adjoint(field, state, ends, **keywords)
            else:
                # Adaptive times depend on the state: layers that read the time would count as reading the input.
                timed = field if training else lambda t, z: field(t.detach(), z)
                solution = library.odeint(timed, state, ends, **keywords)
        except AssertionError as error:
            reason = (str(error).splitlines() or ["no reason given"])[0][:80]
            raise SolverFailure(
                f"network.name: the solver {solver.method} fails ({reason}): the weights make the equation too stiff, "
                "or training has diverged; try a smaller learning rate"
            ) from error
    result: Tensor = solution[-1]
    return result
