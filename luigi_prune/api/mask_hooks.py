"""A network that keeps its own zeros: removed entries stay exactly zero however it is trained, by whatever loop.

Three things work together for every parameter with removed entries. A hook clears the gradients of removed entries, so
that no momentum and no second moment builds up there. After the step of any torch optimizer removed entries are set to
zero again, which covers optimizers that mix entries or move what has no gradient. And the module that owns the
parameter does the same when it is called in training mode and after `load_state_dict`, which covers hand-written loops.

The parameters are ordinary parameters and no key of the state dict is added, so a state dict fits the unpruned network
and back. The masks live in hooks of the modules: those are copied by `copy.deepcopy` and by pickle, where a hook on a
parameter alone is lost, and they follow the parameter to its device.
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

# By id: tensors compare entry by entry. A value lives as long as a module or its parameter's gradient hook holds it.
_HELD: weakref.WeakValueDictionary[int, _HeldParameter] = weakref.WeakValueDictionary()
_watching: list[Any] = []


class _HeldParameter:
    """A masked parameter, tied to the module that owns it under `name`."""

    def __init__(self, masked: MaskedParameter, name: str) -> None:
        if not _watching:  # only processes that hold a network pay for it
            _watching.append(register_optimizer_step_post_hook(_after_step))
        self.masked, self.name = masked, name
        self._bind(masked.parameter)

    @property
    def parameter(self) -> nn.Parameter:
        return self.masked.parameter

    def _bind(self, parameter: nn.Parameter) -> None:
        self.masked.parameter = parameter
        self._handle: Any = None
        _HELD[id(parameter)] = self
        self._watch_gradient()
        self.masked.clear_weight()

    def _watch_gradient(self) -> None:
        if self._handle is None and self.parameter.requires_grad:
            self._handle = self.parameter.register_hook(self._clear_gradient)

    def _clear_gradient(self, gradient: Tensor) -> Tensor:
        # A copy, as hooks of tensors must return, and by an operation of autograd's, for gradients of gradients.
        return gradient.masked_fill(~self.masked.mask_on(gradient.device), 0)

    def unbind(self) -> None:
        """Leave the parameter as it is from now on."""
        _HELD.pop(id(self.parameter), None)
        if self._handle is not None:
            self._handle.remove()

    def before_forward(self, module: nn.Module, _: Any) -> None:
        """Follow the module to a parameter that took the old one's place, and clear what a loop of one's own left."""
        if torch.compiler.is_compiling():  # nothing to trace: gradients and steps are watched all the same
            return
        now = module._parameters.get(self.name)
        if now is not self.parameter:
            # A plain tensor is a functional call's or a replica's; another shape is another layer.
            if not isinstance(now, nn.Parameter) or now.shape != self.masked.mask.shape:
                return
            self.unbind()
            self._bind(now)
        elif module.training:
            self._watch_gradient()
            self.masked.clear_weight()

    def after_load(self, module: nn.Module, _: Any) -> None:
        """Set removed entries to zero in weights that were loaded."""
        self.before_forward(module, None)
        self.masked.clear_weight()

    def __deepcopy__(self, memo: dict[int, Any]) -> _HeldParameter:
        parameter = copy.deepcopy(self.parameter, memo)
        return _HeldParameter(MaskedParameter(parameter, self.masked.mask), self.name)  # masks are never written to

    def __reduce__(self) -> tuple[type[_HeldParameter], tuple[MaskedParameter, str]]:
        return _HeldParameter, (self.masked, self.name)


def _after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            held = _HELD.get(id(parameter))
            if held is not None and held.parameter is parameter:
                held.masked.clear_weight()


def hold(network: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return `network`, which from now on keeps zero what `masks` (parameter name -> True where kept) removes.

    What it held before it holds no more. Raises ConfigError for a mask that fits no parameter.
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
    """Return `network` as an ordinary module: its zeros are still zero, but training may change them."""
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._load_state_dict_post_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(held := getattr(hook, "__self__", None), _HeldParameter):
                    held.unbind()
                    del hooks[number]
    return network


def held_masks(network: nn.Module) -> dict[str, Tensor]:
    """Return the masks that `network` holds: parameter name -> bool tensor of its shape, True where kept."""
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
