"""Making modules smaller, given the channels that each keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.compaction.taps_of_channels import (
    INPUT,
    OUTPUT,
    SIDES,
    entries,
    passes_channels,
    resize,
    width,
)
from luigi_prune.compute.pruning.problem.equivalents import Equivalent
from luigi_prune.compute.pruning.problem.split_attention import SplitAttention

HEADS = "heads"


@dataclass(frozen=True, eq=False)
class Cut:
    """The channels that a module keeps, by side: "input", "output"; "heads" are those of attention."""

    name: str
    side: str
    kept: np.ndarray


Plan = list[Cut]


def as_entries(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan for a file: numbers and names only."""
    return [{"module": cut.name, "side": cut.side, "kept": cut.kept.tolist()} for cut in plan]


def from_entries(stored: list[dict[str, Any]]) -> Plan:
    """Return the plan that `as_entries` wrote; raises KeyError, TypeError or ValueError for anything else."""
    return [Cut(str(e["module"]), str(e["side"]), np.array(e["kept"], dtype=np.int64)) for e in stored]


@torch.no_grad()
def shrink(network: nn.Module, plan: Plan, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the modules of `network`, a result of `in_layers`, smaller, in place; return the masks, as small.

    Raises AttributeError, IndexError or ValueError if the plan is one of another network.
    """
    masks = dict(masks)
    sides: dict[str, dict[str, np.ndarray]] = {}
    for cut in plan:
        sides.setdefault(cut.name, {})[cut.side] = cut.kept
    done: set[int] = set()
    for name, kept in sides.items():
        module = network.get_submodule(name)
        if HEADS in kept:
            assert isinstance(module, SplitAttention)
            for part, side, rows in _parts_of_heads(module, kept[HEADS]):
                _shrink_tap(f"{name}.{part}".lstrip("."), module.get_submodule(part), {side: rows}, masks, done)
            module.keep_heads(len(kept[HEADS]))
        else:
            _shrink_tap(name, module, kept, masks, done)
    return masks


def _shrink_tap(
    name: str, module: nn.Module, kept: Mapping[str, np.ndarray], masks: dict[str, Tensor], done: set[int]
) -> None:
    for side in SIDES:
        if side not in kept:
            continue
        if len(kept[side]) and kept[side].max() >= width(module, side):
            raise ValueError(f"{name!r} has {width(module, side)} {side} channels, not {kept[side].max() + 1}")
    changed: dict[str, Tensor] = {}
    for side, chosen in kept.items():
        for key, axis in entries(module, side):
            tensor = changed.get(key, getattr(module, key))
            rows = torch.from_numpy(chosen).to(tensor.device)
            changed[key] = tensor.detach().index_select(axis, rows)
            if (full := f"{name}.{key}".lstrip(".")) in masks:
                masks[full] = masks[full].index_select(axis, rows.to(masks[full].device))
    widths = {side: len(kept[side]) if side in kept else width(module, side) for side in SIDES}
    if passes_channels(module):
        widths[INPUT] = widths[OUTPUT]
    resize(module, widths[INPUT], widths[OUTPUT])
    if isinstance(module, Equivalent):
        resize(module._shell[0], widths[INPUT], widths[OUTPUT])
    for key, tensor in changed.items():
        parameter = getattr(module, key)
        if id(parameter) in done:
            continue
        if isinstance(parameter, nn.Parameter):
            parameter.data = tensor.contiguous()  # the same parameter object, so that ties stay ties
            parameter.grad = None
            done.add(id(parameter))
        else:
            setattr(module, key, tensor.contiguous())


def _parts_of_heads(module: SplitAttention, heads: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (layer, side, features) that attention keeps with these heads."""
    features = (heads[:, None] * module.head_dim + np.arange(module.head_dim)).reshape(-1)
    for part in ("q_proj", "k_proj", "v_proj"):
        yield part, OUTPUT, features
    yield "out_proj", INPUT, features
