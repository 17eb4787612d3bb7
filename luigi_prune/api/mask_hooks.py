"""Masks enforced by hooks: pruned entries of a network stay exactly zero in any training loop.

Every parameter with pruned entries has three mechanisms. A hook zeroes their gradients, so that neither momentum nor
second moments accumulate. After the step of any torch optimizer they are set to zero again, for optimizers that mix
entries or update entries without gradients. The owning module does the same when called in training mode and after
`load_state_dict`, for hand-written loops.

The parameters are ordinary ones and the state dict has no additional keys, so that state dicts of the pruned and the
unpruned network are interchangeable. The masks are stored in hooks of the modules, which `copy.deepcopy` and pickle
copy, unlike hooks on parameters, and follow the parameter to its device.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from luigi_prune.compute.masked import MaskedParameter, masked_parameters

# By id, since tensors compare elementwise. A value lives as long as a module or a gradient hook refers to it.
_HELD: weakref.WeakValueDictionary[int, _HeldParameter] = weakref.WeakValueDictionary()
_step_hooks: list[Any] = []


class _HeldParameter:
    """A masked parameter, tied to the module that owns it under `name`."""

    def __init__(self, masked: MaskedParameter, name: str) -> None:
        if not _step_hooks:  # no overhead in processes without masks
            _step_hooks.append(register_optimizer_step_post_hook(_after_step))
        self.masked, self.name = masked, name
        self._bind(masked.parameter)

    @property
    def parameter(self) -> nn.Parameter:
        return self.masked.parameter

    def _bind(self, parameter: nn.Parameter) -> None:
        self.masked.parameter = parameter
        self._handle: Any = None
        _HELD[id(parameter)] = self
        self._mask_gradient()
        self.masked.clear_weight()

    def _mask_gradient(self) -> None:
        if self._handle is None and self.parameter.requires_grad:
            self._handle = self.parameter.register_hook(self._clear_gradient)

    def _clear_gradient(self, gradient: Tensor) -> Tensor:
        # Out of place, as tensor hooks require, and differentiable, for gradients of gradients.
        return gradient.masked_fill(~self.masked.mask_on(gradient.device), 0)

    def unbind(self) -> None:
        """Stop masking the parameter."""
        _HELD.pop(id(self.parameter), None)
        if self._handle is not None:
            self._handle.remove()

    def before_forward(self, module: nn.Module, _: Any) -> None:
        """Rebind the mask if the module's parameter was replaced, and zero entries that a training loop changed."""
        if torch.compiler.is_compiling():  # do not trace; gradients and steps are masked anyway
            return
        current = module._parameters.get(self.name)
        if current is not self.parameter:
            # A plain tensor belongs to a functional call or a replica, another shape to another layer.
            if not isinstance(current, nn.Parameter) or current.shape != self.masked.mask.shape:
                return
            self.unbind()
            self._bind(current)
        elif module.training:
            self._mask_gradient()
            self.masked.clear_weight()

    def after_load(self, module: nn.Module, _: Any) -> None:
        """Set pruned entries to zero in loaded weights."""
        self.before_forward(module, None)
        self.masked.clear_weight()

    def __deepcopy__(self, memo: dict[int, Any]) -> _HeldParameter:
        parameter = copy.deepcopy(self.parameter, memo)
        return _HeldParameter(MaskedParameter(parameter, self.masked.mask), self.name)  # masks are immutable

    def __reduce__(self) -> tuple[type[_HeldParameter], tuple[MaskedParameter, str]]:
        return _HeldParameter, (self.masked, self.name)


def _after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            held = _HELD.get(id(parameter))
            if held is not None and held.parameter is parameter:
                held.masked.clear_weight()


def hold(network: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return `network` with hooks that enforce `masks` (parameter name -> bool tensor of its shape, True = kept).

    They replace earlier masks. Raises ConfigError for a mask that matches no parameter.
    """
    release(network)
    copies = {name: mask.clone() for name, mask in masks.items()}
    for full_name, masked in zip(copies, masked_parameters(network, copies), strict=True):
        owner, _, name = full_name.rpartition(".")
        module = network.get_submodule(owner)
        held = _HeldParameter(masked, name)
        module.register_forward_pre_hook(held.before_forward)
        module.register_load_state_dict_post_hook(held.after_load)
    return network


def release(network: nn.Module) -> nn.Module:
    """Return `network` without its masks: zeros remain, but training may change them."""
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._load_state_dict_post_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(held := getattr(hook, "__self__", None), _HeldParameter):
                    held.unbind()
                    del hooks[number]
    return network


def held_masks(network: nn.Module) -> dict[str, Tensor]:
    """Return the masks enforced on `network`: parameter name -> bool tensor of its shape, True = kept."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(held.parameter)]: held.masked.mask_on(held.parameter.device).clone()
        for held in _holders(network)
        if id(held.parameter) in names
    }


def _holders(network: nn.Module) -> Iterator[_HeldParameter]:
    for module in network.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(held := getattr(hook, "__self__", None), _HeldParameter):
                yield held
