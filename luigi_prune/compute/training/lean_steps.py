"""Steps of torch's fused optimizers on a CPU without bookkeeping that costs as much as a small network's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

_STATES = {
    SGD: ("momentum_buffer",),
    Adam: ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"),
    AdamW: ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"),
}
_KERNELS: dict[type, str] = {SGD: "_fused_sgd_", Adam: "_fused_adam_", AdamW: "_fused_adamw_"}


class OptimizerSteps:
    """`step` and `zero_grad` of an optimizer: by torch's kernel directly if it has one that can be called so.

    The states of all parameters are collected after the first step, and not again: an optimizer whose states are
    replaced later needs a new object.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self._kernel = _kernel_of(optimizer)
        self._parameters: list[nn.Parameter] = [*optimizer.param_groups[0]["params"]]
        self._states: list[list[Tensor]] | None = None

    def zero_grad(self) -> None:
        """Remove all gradients."""
        if self._kernel is None:
            self.optimizer.zero_grad(set_to_none=True)
            return
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        """Take a step."""
        gradients = [parameter.grad for parameter in self._parameters] if self._states is not None else []
        if self._kernel is None or self._states is None or any(gradient is None for gradient in gradients):
            self.optimizer.step()
            self._states = _states_of(self.optimizer, self._parameters) if self._kernel is not None else None
            return
        group = self.optimizer.param_groups[0]
        with torch.no_grad():
            self._kernel(self._parameters, gradients, self._states, group)


def _kernel_of(optimizer: Optimizer) -> Callable[..., None] | None:
    """Return the function of one step; None if torch's own `step` has to be called."""
    kind = type(optimizer)
    group = optimizer.param_groups[0]
    plain = (
        kind in _KERNELS
        and hasattr(torch, _KERNELS[kind])
        and len(optimizer.param_groups) == 1
        and group.get("fused") is True
        and not isinstance(group["lr"], Tensor)
        and not optimizer._optimizer_step_pre_hooks
        and not optimizer._optimizer_step_post_hooks
        and all(each.device.type == "cpu" and each.dtype is group["params"][0].dtype for each in group["params"])
    )
    if not plain:
        return None
    return _sgd if kind is SGD else _adam


def _states_of(optimizer: Optimizer, parameters: list[nn.Parameter]) -> list[list[Tensor]] | None:
    """Return the tensors of all parameters' states by name; None if a parameter has no state yet."""
    lists = []
    for name in _STATES[type(optimizer)]:
        values = [optimizer.state.get(parameter, {}).get(name) for parameter in parameters]
        if all(value is None for value in values) and name in ("momentum_buffer", "max_exp_avg_sq"):
            values = []
        if any(value is None for value in values):
            return None
        lists.append(values)
    if type(optimizer) is SGD and optimizer.param_groups[0]["momentum"] and not lists[0]:
        return None
    return lists


def _sgd(parameters: list[Any], gradients: list[Any], states: list[list[Tensor]], group: dict[str, Any]) -> None:
    torch._fused_sgd_(
        parameters,
        gradients,
        states[0] if group["momentum"] else [],
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        is_first_step=False,
    )


def _adam(parameters: list[Any], gradients: list[Any], states: list[list[Tensor]], group: dict[str, Any]) -> None:
    averages, squares, largest, steps = states
    torch._foreach_add_(steps, 1)
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    kernel(
        parameters,
        gradients,
        averages,
        squares,
        largest,
        steps,
        amsgrad=group["amsgrad"],
        lr=group["lr"],
        beta1=float(group["betas"][0]),
        beta2=float(group["betas"][1]),
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )
