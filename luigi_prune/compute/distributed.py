"""Communication between the processes that train one network.

A global batch is split over the processes and their gradients are summed. Each is already divided by the *global*
number of samples, so that the sum is the mean over the global batch even if the shares are unequal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from luigi_prune.errors import ConfigError

ProcessGroup = dist.ProcessGroup
BatchNorm = nn.modules.batchnorm._BatchNorm


def open_group(rank: int, world_size: int, init_method: str, device: torch.device) -> ProcessGroup:
    """Join the `world_size` processes of a job and return their group: gloo on CPUs, NCCL on GPUs.

    `init_method` is the rendezvous, "tcp://host:port" or "file:///path". Call `close_group` at the end.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=init_method,
        rank=rank,
        world_size=world_size,
        device_id=device if on_gpu else None,
    )
    group: ProcessGroup | None = dist.group.WORLD
    assert group is not None
    return group


def close_group() -> None:
    """Leave the group of `open_group`, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@dataclass(frozen=True)
class Ranks:
    """The rank of this process and its communication with the others; with one process all methods are no-ops."""

    group: ProcessGroup | None = None
    rank: int = 0
    size: int = 1

    @classmethod
    def of(cls, group: ProcessGroup | None) -> Ranks:
        """Return the ranks of `group`; without a group, of this process alone."""
        return cls(group, dist.get_rank(group), dist.get_world_size(group)) if group is not None else cls()

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes files, logs and reports progress."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace `tensors` by their sums over all processes, with one all-reduce per dtype."""
        if self.size == 1:
            return
        for group in _by_dtype(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat, group=self.group)
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def spread_(self, tensors: Sequence[Tensor]) -> None:
        """Replace `tensors` by those of rank 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0, group=self.group)

    def spread_bytes(self, content: bytes | None) -> bytes | None:
        """Return rank 0's `content` on every process."""
        if self.size == 1:
            return content
        box = [content]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether `flag` is true on at least one process."""
        if self.size == 1:
            return flag
        count = torch.tensor(float(flag), device=device)
        dist.all_reduce(count, group=self.group)
        return bool(count > 0)

    def concatenate(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, (rows, columns), in the order of their ranks."""
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        self.sum_([counts])
        ends = counts.cumsum(0).tolist()
        joined = rows.new_zeros(ends[-1], *rows.shape[1:])
        joined[ends[self.rank] - len(rows) : ends[self.rank]] = rows
        self.sum_([joined])
        return joined


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def sum_gradients(network: nn.Module, ranks: Ranks) -> None:
    """Sum the gradients of all processes; a process that had no sample adds zeros."""
    if ranks.size == 1:
        return
    gradients = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    ranks.sum_(gradients)


def synchronise_batchnorm(network: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """Return the network with BatchNorm layers that normalise over the global batch.

    torch synchronises them on GPUs only. Raises ConfigError on CPUs, on which each process would normalise over its
    share, so that the weights would depend on the number of processes, which no key contains.
    """
    if ranks.size == 1 or not any(isinstance(module, BatchNorm) for module in network.modules()):
        return network
    if device.type != "cuda":
        raise ConfigError(
            f"[compute] processes: {ranks.size} processes cannot train a network with BatchNorm on CPUs, which do not "
            "synchronise it; use 1 process, GPUs, or a network without BatchNorm"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network, ranks.group)
