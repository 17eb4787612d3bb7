"""The progress of a training: its records and result, and the state that a checkpoint has to contain."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.config.schema import Component

State = dict[str, Tensor]


@dataclass(frozen=True)
class EpochRecord:
    """The results of an epoch, counted from 0: the rate of its last step, the losses, and metrics by label."""

    epoch: int
    num_epochs: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    train: dict[str, float]
    validation: dict[str, float]
    seconds: float


@dataclass
class TrainResult:
    """The trained network's state and the rewind state, both on the CPU, and one array per series of the history.

    `precision`: of the computation; "float32" if mixed precision was requested but is not available.
    """

    state: State
    rewind_state: State | None
    history: dict[str, np.ndarray]
    precision: str


@dataclass
class Progress:
    """The position of a training, `step` steps into `epoch`, with its history, best weights and rewind weights."""

    epoch: int
    step: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    best_value: float = -float("inf")
    best_state: State | None = None
    best_epoch: int | None = None
    rewind_state: State | None = None

    def record(self, record: EpochRecord) -> None:
        """Append an epoch to the history."""
        row = {
            "epoch": float(record.epoch),
            "learning_rate": record.learning_rate,
            "train_loss": record.train_loss,
            "validation_loss": record.validation_loss,
            **{f"train/{label}": value for label, value in record.train.items()},
            **{f"validation/{label}": value for label, value in record.validation.items()},
        }
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)


def history_arrays(progress: Progress, metrics: Sequence[Component]) -> dict[str, np.ndarray]:
    """Return the history as arrays over epochs (float64, `epoch` int64), empty if no epoch was trained.

    And `kept_epoch` (int64, one number): the epoch whose weights are the result, -1 if no epoch was trained.
    """
    history = progress.history
    labels = [registry.metric_label(component) for component in metrics]
    names = ["epoch", "learning_rate", "train_loss", "validation_loss"]
    names += [f"{split}/{label}" for split in ("train", "validation") for label in labels]
    arrays = {
        name: np.asarray(history.get(name, []), dtype=np.int64 if name == "epoch" else np.float64) for name in names
    }
    last = arrays["epoch"][-1] if len(arrays["epoch"]) else -1
    return {**arrays, "kept_epoch": np.asarray(last if progress.best_epoch is None else progress.best_epoch)}


def snapshot(network: nn.Module) -> State:
    """Return a copy of the network's state on the CPU, in the order of its `state_dict`."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def fingerprint(settings: Sequence[object], tensors: Sequence[dict[str, Tensor]]) -> str:
    """Return a hash of the settings and weights that a training starts from; only its own checkpoints are resumed."""
    digest = hashlib.sha256(repr(tuple(settings)).encode())
    for group in tensors:
        for name, tensor in group.items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Restore torch's and Python's global generators after the block: training reseeds them at every step.

    Inside the block `device` is the current GPU, whose generator training seeds.
    """
    on_gpu = device.type == "cuda"
    states = torch.get_rng_state(), random.getstate(), torch.cuda.get_rng_state(device) if on_gpu else None
    try:
        with torch.cuda.device(device) if on_gpu else contextlib.nullcontext():
            yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        if states[2] is not None:
            torch.cuda.set_rng_state(states[2], device)
