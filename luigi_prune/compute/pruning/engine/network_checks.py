"""Checks of a network before it is pruned: what cannot be pruned is refused, what deserves a word gets a line."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from luigi_prune.compute.pruning.problem.layers import READERS
from luigi_prune.compute.pruning.problem.masks import Masks, mostly_zero_weights
from luigi_prune.errors import ConfigError

SHOWN = 3  # names in a message


def listed(names: Collection[str]) -> str:
    """Return names of modules or parameters for a message: the first few and how many there are."""
    shown = ", ".join(repr(name) if name else "the network" for name in list(names)[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_kinds(method: str, network: nn.Module) -> None:
    """Raise ConfigError, naming the module or parameter, for a network whose weights are not plain numbers."""
    for name, module in network.named_modules():
        where = f"module {name!r}" if name else "the network"
        if isinstance(module, torch.jit.ScriptModule):
            raise ConfigError(f"{method}: {where} is TorchScript: prune the module that it was made from")
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise ConfigError(
                f"{method}: {where}, a {type(module).__name__}, is quantised: prune the float network, then quantise it"
            )
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(value):
            raise ConfigError(f"{method}: {name!r} has no shape yet: run the network on a batch first")
        if value.is_meta:
            raise ConfigError(
                f"{method}: {name!r} is on the meta device and has no values: load the weights first "
                "(`load_state_dict(..., assign=True)`)"
            )
    for name, value in network.named_parameters():
        if type(value.data) is not Tensor or value.layout != torch.strided:
            kind = str(value.layout) if type(value.data) is Tensor else f"a {type(value.data).__name__}"
            raise ConfigError(f"{method}: parameter {name!r} is {kind}, not a plain tensor: convert it first")


def check_finite(method: str, network: nn.Module) -> None:
    """Raise ConfigError for a parameter, or statistics of a normalisation, with NaN or infinite entries."""
    values = dict(network.named_parameters())
    for name, module in network.named_modules():
        if isinstance(module, _NormBase):
            values |= {f"{name}.{key}".lstrip("."): value for key, value in module.named_buffers(recurse=False)}  # type: ignore[misc]
    for name, value in values.items():
        # A sum is several times as fast as a check of every entry, but it may overflow.
        if value.is_floating_point() and not bool(torch.isfinite(value.detach().sum())):
            wrong = int(value.numel() - torch.isfinite(value).sum())
            if wrong:
                raise ConfigError(f"{method}: {name!r} has {wrong} NaN or infinite of {value.numel()} entries")


def peculiarities(network: nn.Module, masks: Masks | None) -> list[str]:
    """Return lines about layers that are not pruned, or not as one may expect."""
    lines = []
    computed = [
        name
        for name, module in network.named_modules()
        if isinstance(module, READERS) and not isinstance(module._parameters.get("weight"), nn.Parameter)
    ]
    if computed:
        lines.append(
            f"{listed(computed)}: not pruned, because the weight is computed from other parameters (weight_norm, "
            "spectral_norm or another parametrisation); remove the parametrisation first"
        )
    if shares := mostly_zero_weights(network, masks):
        how = f"{min(shares.values()):.0%} or more" if min(shares.values()) < 1 else "all"
        lines.append(
            f"{listed(shares)}: {how} of the entries are zero and not removed by a mask, so they count as trainable "
            'parameters; api.prune(..., zeros="pruned") takes zeros as removed'
        )
    return lines
