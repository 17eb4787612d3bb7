"""Which channels are dead in every module that shares them, in blocks that are removed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from luigi_prune.compute.pruning.compaction.coupling import Places
from luigi_prune.compute.pruning.compaction.shrinking import HEADS, Cut, Plan
from luigi_prune.compute.pruning.compaction.taps_of_channels import INPUT, OUTPUT, passes_channels
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.compute.pruning.problem.split_attention import PROJECTIONS, SplitAttention
from luigi_prune.compute.pruning.structure.channel_hooks import Structure, is_reader

_NAMED = 3  # layers in a reason
_OF_HEADS = "attention removes whole heads only"
_ALONE = "one channel has to stay"
_ALIGNED = "align keeps the width a multiple"


@dataclass(frozen=True, eq=False)
class Block:
    """Places that the same sides of the same modules share: `removed` of them are dead and go.

    `sides`: (module, side) -> the place of every channel of that side, in other blocks, too.
    """

    sides: dict[tuple[str, str], np.ndarray]
    removed: np.ndarray
    left: np.ndarray
    why_left: str


def dead_blocks(network: nn.Module, places: Places, structure: Structure, align: int) -> list[Block]:
    """Return the blocks with places that no module needs, without those that stay for a width of `align` channels."""
    _fix_heads(network, places)
    count = max((int(place.max()) + 1 for place in places.of.values() if len(place)), default=0)
    needed, has_source = np.zeros(count, bool), np.zeros(count, bool)
    for (name, side), place in places.of.items():
        if side == OUTPUT and name in structure.reaching:
            reaching = structure.reaching[name].cpu().numpy()
            np.logical_or.at(needed, place, reaching)
            has_source[place] = True
    needed[list(places.fixed)] = True
    dead = ~needed & has_source
    signatures = _signatures(places, count)
    blocks = []
    for signature in np.unique(signatures[dead]):
        of_block = signatures == signature
        gone = np.flatnonzero(of_block & dead)
        total = int(of_block.sum())
        alive = total - len(gone)
        keep = min(total, max(1, -(-max(alive, 1) // align)) * align)
        left = gone[: keep - alive]
        sides = {key: place for key, place in places.of.items() if np.isin(place, gone).any()}
        if len(removed := gone[keep - alive :]) or len(left):
            blocks.append(Block(sides, removed, left, _ALONE if alive == 0 and align == 1 else _ALIGNED))
    return blocks


def _signatures(places: Places, count: int) -> np.ndarray:
    """Return a number for each place: equal if the same sides of the same modules have it."""
    signature = np.zeros(count, dtype=np.int64)
    for place in places.of.values():
        inside = np.zeros(count, dtype=np.int64)
        inside[place] = 1
        _, signature = np.unique(2 * signature + inside, return_inverse=True)
    return signature


def _fix_heads(network: nn.Module, places: Places) -> None:
    for name, module in network.named_modules():
        if isinstance(module, SplitAttention):
            for part in PROJECTIONS:
                place = places.of.get((f"{name}.{part}".lstrip("."), OUTPUT), ())
                places.fixed |= {int(each): _OF_HEADS for each in place}


def dead_heads(network: nn.Module, structure: Structure) -> dict[str, list[int]]:
    """Return, for attention with dead heads, those that stay: the values of the others change no output."""
    kept = {}
    for name, module in network.named_modules():
        if not isinstance(module, SplitAttention) or module.bias_k is not None or not module.is_whole():
            continue
        reaching = structure.reaching.get(f"{name}.v_proj".lstrip("."))
        if reaching is None:
            continue
        alive = reaching.view(module.num_heads, -1).any(1).nonzero()[:, 0].tolist()
        if len(alive) < module.num_heads:
            kept[name] = alive or [0]
    return {name: heads for name, heads in kept.items() if len(heads) < _head_count(network, name)}


def plan_of(network: nn.Module, blocks: Sequence[Block], heads: Mapping[str, Sequence[int]]) -> Plan:
    """Return the channels that each module keeps without the removed places of `blocks`."""
    removed = np.concatenate([np.empty(0, dtype=np.int64), *(block.removed for block in blocks)])
    sides = {key: place for block in blocks for key, place in block.sides.items()}
    plan = [Cut(name, HEADS, np.array(kept, dtype=np.int64)) for name, kept in heads.items()]
    for (name, side), place in sides.items():
        if side == INPUT and passes_channels(network.get_submodule(name)):
            continue  # the same channels as on the other side
        kept = np.flatnonzero(~np.isin(place, removed))
        if len(kept) < len(place):
            plan.append(Cut(name, side, kept))
    return plan


def reasons(
    network: nn.Module, masks: Masks, places: Places, structure: Structure, accepted: Sequence[Block],
    failed: Mapping[int, str], blocks: Sequence[Block], heads: Mapping[str, Sequence[int]],
) -> dict[str, tuple[int, str]]:  # fmt: skip
    """Return, for every layer with dead filters that stay, their number and why most of them do."""
    gone = np.concatenate([np.empty(0, dtype=np.int64), *(block.removed for block in accepted)])
    why_of: dict[int, str] = dict(places.fixed)
    for block in blocks:
        why_of |= dict.fromkeys(block.left.tolist(), block.why_left)
        if id(block) in failed:
            why_of |= dict.fromkeys(block.removed.tolist(), failed[id(block)])
    found = {}
    alive = _alive_filters(network, masks, structure)
    for name in alive:
        if (name, OUTPUT) not in places.of:
            continue
        owner, _, part = name.rpartition(".")
        dead = ~alive[name]
        if part in PROJECTIONS and owner in heads:
            dead.reshape(_head_count(network, owner), -1)[
                [head for head in range(_head_count(network, owner)) if head not in heads[owner]]
            ] = False
        place = places.of[name, OUTPUT]
        left = place[dead & ~np.isin(place, gone)]
        if len(left):
            texts = [why_of.get(int(each)) for each in left]
            common = max(texts, key=texts.count)
            found[name] = len(left), common or _needed_by(places, alive, left)
    return found


def _alive_filters(network: nn.Module, masks: Masks, structure: Structure) -> dict[str, np.ndarray]:
    """Return, for every layer, which filters have weights that the output depends on."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    alive = {}
    for name, module in network.named_modules():
        if is_reader(module) and name in structure.reaching:
            rows = masks[names[id(module.weight)]].flatten(1).any(1)
            alive[name] = (structure.reaching[name] & rows).cpu().numpy()
    return alive


def _needed_by(places: Places, alive: Mapping[str, np.ndarray], left: np.ndarray) -> str:
    """Return which layers write to the places `left` and are not dead there, through sums or by sharing weights."""
    names = [
        name
        for (name, side), place in places.of.items()
        if side == OUTPUT and name in alive and np.isin(left, place[alive[name]]).any()
    ]
    if not names:
        return "a normalisation makes a constant of them, which is read"
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"they are added to channels of {shown}, which are not dead"


def _head_count(network: nn.Module, name: str) -> int:
    module = network.get_submodule(name)
    assert isinstance(module, SplitAttention)
    return module.num_heads
