"""Modules whose weight matrices are not called as layers, replaced by equivalents whose layers are.

Attention multiplies with a packed weight inside a function, a transposed convolution and transformers' `Conv1D` store
their weight the other way round, an LSTM runs in one kernel. Each has an equivalent: a module with the same outputs
whose weights are `Linear` layers or convolutions of shape (filters, entries of a filter, ...). Pruning works on a copy
of the network with equivalents (`weight_matrices.in_layers`), and returns modules in their own layout. The two layouts
differ by views and concatenations only, so that weights and masks convert exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import MaskedParameter
from luigi_prune.compute.pruning.problem.module_references import held_elsewhere, replace_modules
from luigi_prune.errors import ConfigError

Named = Mapping[str, Tensor]

_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)
_COMPUTE = ("forward", "_conv_forward")


class Equivalent:
    """A part of a module class: it replaces another module, and can return that module with its present weights.

    `fits(module)`: whether this class replaces the module. `split(module, values)`: values (weights, masks) by
    parameter name of the module, converted to the parameter names and layout of the equivalent; `join` is the inverse.
    Both only read settings of `module`, and handle any tensors of the right shapes.
    """

    _shell: tuple[nn.Module]  # the replaced module without tensors; in a tuple, so that it is no submodule
    shapes: dict[str, torch.Size]  # of the replaced module's parameters

    @staticmethod
    def fits(module: nn.Module) -> bool:
        raise NotImplementedError

    @staticmethod
    def split(module: nn.Module, values: Named) -> dict[str, Tensor]:
        raise NotImplementedError

    @staticmethod
    def join(module: nn.Module, values: Named) -> dict[str, Tensor]:
        raise NotImplementedError

    def is_whole(self) -> bool:
        """Return whether no layer of this module has been replaced by another one."""
        return True

    def adopt(self, module: nn.Module) -> None:
        """Take over the weights, mode and hooks of `module`; called when the layers exist."""
        own = cast("nn.Module", self)
        parameters = dict(module.named_parameters())
        self.shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._shell = (_shell_of(module),)
        needs = self.split(module, {n: p.new_full(p.shape, p.requires_grad, dtype=torch.bool)
                                    for n, p in parameters.items()})  # fmt: skip
        for name, value in self.split(module, {n: p.detach() for n, p in parameters.items()}).items():
            owner, _, key = name.rpartition(".")
            flag = needs[name]
            parameter = nn.Parameter(value.clone(), requires_grad=bool(flag.any()) if flag.numel() else False)
            own.get_submodule(owner).register_parameter(key, parameter)
        own.train(module.training)
        for name in _HOOKS:
            vars(own)[name] = _without_masks(vars(module)[name]) if name in vars(module) else vars(own)[name]

    def original(self) -> nn.Module:
        """Return the replaced module with the present weights."""
        own = cast("nn.Module", self)
        module = _shell_of(self._shell[0])
        parameters = dict(own.named_parameters())
        needs = {n: p.requires_grad for n, p in parameters.items()}
        flags = self.join(module, {n: p.new_full(p.shape, needs[n], dtype=torch.bool) for n, p in parameters.items()})
        for name, value in self.join(module, {n: p.detach() for n, p in parameters.items()}).items():
            owner, _, key = name.rpartition(".")
            parameter = nn.Parameter(value.contiguous().clone(), requires_grad=bool(flags[name].any()))
            setattr(module.get_submodule(owner), key, parameter)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
        return module.train(own.training)


def _without_masks(hooks: Any) -> Any:
    """Return hooks without those that enforce masks: these belong to parameters in the replaced module's layout."""
    if not isinstance(hooks, dict):
        return hooks
    held = [key for key, hook in hooks.items() if isinstance(getattr(_owner(hook), "masked", None), MaskedParameter)]
    return type(hooks)((key, hook) for key, hook in hooks.items() if key not in held)


def _owner(hook: object) -> object:
    return getattr(hook, "__self__", None)


def _shell_of(module: nn.Module) -> nn.Module:
    """Return a copy of `module` and its children without the tensors of their parameters."""
    shell = type(module).__new__(type(module))
    vars(shell).update(vars(module))
    vars(shell)["_parameters"] = dict.fromkeys(module._parameters)
    vars(shell)["_buffers"] = dict(module._buffers)
    vars(shell)["_modules"] = {
        name: None if child is None else _shell_of(child) for name, child in module._modules.items()
    }
    if "_flat_weights" in vars(shell):  # recurrent modules keep their parameters a second time
        nothing = [None] * len(vars(shell)["_flat_weights"])
        vars(shell).update(_flat_weights=nothing, _flat_weight_refs=list(nothing))
    return shell


class PartLinear(nn.Linear):
    """A `Linear` that stands for a part of another module.

    `is_linear`: the part is a `Linear` itself. `heads`: the number of equal groups of its outputs (`head_axis` 0) or
    inputs (1) that methods which prune filters or channels keep or remove together. `follows_heads`: filters are pruned
    with the head of another part only.
    """

    is_linear = False
    heads, head_axis, follows_heads = 1, 0, False


class RecurrentLinear(PartLinear):
    """A `Linear` of a recurrent module: the state that it reads may be zero in the first steps, so no entry is useless.

    Its rows are gates of hidden units, so a row is no unit that could be removed alone.
    """


def has_own_forward(module: nn.Module) -> bool:
    """Return whether `module` overrides the computation of torch's class of its kind."""
    if isinstance(module, Equivalent):
        return False
    base = next((kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn.modules")), nn.Module)
    overridden = (getattr(type(module), name, None) is not getattr(base, name, None) for name in _COMPUTE)
    return any(overridden) or any(name in vars(module) for name in _COMPUTE)


def has_hooks(module: nn.Module) -> bool:
    """Return whether forward hooks may change the inputs or outputs of `module`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def equivalents_of(
    network: nn.Module, kinds: Sequence[type[Equivalent]], allows: Callable[[nn.Module], bool]
) -> dict[int, type[Equivalent]]:
    """Return the kinds of equivalents for modules of `network`, by id.

    Modules with tied parameters have none, as their parts could not stay tied, nor those that the network also holds
    elsewhere, as they cannot be replaced there, nor those that `allows` refuses.
    """
    fitting = [
        (module, kind)
        for module in network.modules()
        if not isinstance(module, Equivalent)
        and (kind := next((kind for kind in kinds if kind.fits(module)), None)) is not None
    ]
    if not fitting:  # as for most networks; the rest takes a while, and every count of sizes asks for it
        return {}
    elsewhere = held_elsewhere(network)
    owners = Counter(id(p) for m in network.modules() for p in m._parameters.values() if p is not None)
    found: dict[int, type[Equivalent]] = {}
    for module, kind in fitting:
        tied = any(owners[id(p)] != 1 for p in module.parameters())
        if id(module) not in elsewhere and not tied and allows(module):
            found[id(module)] = kind
    return found


def has_equivalents(network: nn.Module) -> bool:
    """Return whether equivalents stand for modules of `network`, so that parameters have other names and layouts."""
    return any(isinstance(module, Equivalent) for module in network.modules())


def with_equivalents(
    network: nn.Module, kinds: Mapping[int, type[Equivalent]], masks: Named | None = None
) -> tuple[nn.Module, dict[str, Tensor] | None]:
    """Return `network`, changed in place, with the equivalents of `equivalents_of`, and its masks in their layout."""
    new: dict[int, nn.Module] = {}
    converted = None if masks is None else dict(masks)
    for name, module in network.named_modules():
        if (kind := kinds.get(id(module))) is not None:
            new[id(module)] = made = cast("Callable[[nn.Module], nn.Module]", kind)(module)
            if converted is not None:
                assert isinstance(made, Equivalent)
                _convert(converted, name, made.shapes, partial(kind.split, module))
    return replace_modules(network, new), converted


def without_equivalents(network: nn.Module, masks: Named) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return `network`, changed in place, and its masks in the layout of the replaced modules.

    An equivalent whose layers have been replaced (decomposed) stays.
    """
    new: dict[int, nn.Module] = {}
    converted = dict(masks)
    for name, module in network.named_modules():
        if isinstance(module, Equivalent) and module.is_whole():
            shapes = {key: parameter.shape for key, parameter in cast("nn.Module", module).named_parameters()}
            _convert(converted, name, shapes, partial(module.join, module._shell[0]))
            new[id(module)] = module.original()
    return replace_modules(network, new), converted


def _convert(
    masks: dict[str, Tensor], name: str, shapes: Mapping[str, torch.Size], convert: Callable[[Named], dict[str, Tensor]]
) -> None:
    """Replace the masks of one module, with parameters of these shapes, by the converted ones."""
    prefix = f"{name}." if name else ""
    given = {key: masks.pop(prefix + key) for key in shapes if prefix + key in masks}
    if not given:
        return
    for key, mask in given.items():
        if mask.shape != shapes[key]:
            shape = tuple(shapes[key])
            raise ConfigError(f"mask {prefix + key!r} of shape {tuple(mask.shape)} does not fit: its shape is {shape}")
    masks.update((prefix + key, mask.contiguous()) for key, mask in convert(full_masks(given, shapes)).items())


def full_masks(given: Named, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return a mask of each of these shapes: the given one, or one that keeps everything."""
    device = next(iter(given.values())).device
    return {key: given.get(key, torch.ones(shape, dtype=torch.bool, device=device)) for key, shape in shapes.items()}


def parameters_by_layer(module: nn.Module, kind: type[Equivalent]) -> dict[str, Tensor]:
    """Return the parameters of `module` by the names, and in the layout, that they have in its equivalent."""
    return kind.split(module, {name: parameter.detach() for name, parameter in module.named_parameters()})
