"""The zoo: networks of every kind that people prune, small, each with inputs and a loss.

OWN are those of this repository, which CI prunes by every method. TORCHVISION, TIMM and TRANSFORMERS are built by these
packages from small configurations; the last two packages are imported only when one of their networks is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import prediction
from tests.api.several_inputs import SEVERAL
from tests.compute.pruning.kinds_of_layers import Audio, Encoder, OwnForward, Pair, Recurrent, Video
from tests.compute.pruning.zoo import Concat, Grouped, Residual, Shared
from tests.zoo.own_networks import Adapted, Rows, Segmenter, Tied, ZeroInitialised

CLASSES = 10


@dataclass(frozen=True)
class Specimen:
    """A network of the zoo: how it is built, a batch of inputs of a size, and its size if that calls for patience.

    `large`: so large that every method would take minutes. `note`: what differs from the usual network of that name.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Any]
    large: bool = False
    note: str = ""

    def network(self) -> nn.Module:
        """Return the network with random weights, always the same ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build()

    def batches(self, count: int = 2, size: int = 4) -> list[tuple[Any, Tensor]]:
        """Return calibration batches."""
        return [(self.inputs(size + index), torch.arange(size + index) % CLASSES) for index in range(count)]


def loss_of(output: Any, targets: Tensor) -> Tensor:
    """Return the cross-entropy of the prediction, averaged over positions of an image or of a text."""
    scores = prediction(output)
    if scores.dim() == 3:  # (samples, words, classes)
        scores = scores.mean(1)
    return F.cross_entropy(scores.flatten(2).mean(2) if scores.dim() > 2 else scores, targets)


def noise(*shape: int) -> Callable[[int], Tensor]:
    """Return a function from a number of samples to as much noise of `shape`."""
    return lambda count: torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def words(length: int = 7, vocabulary: int = 20) -> Callable[[int], Tensor]:
    """Return a function from a number of samples to as many rows of token numbers."""
    return lambda count: torch.randint(
        0, vocabulary, (count, length), generator=torch.Generator().manual_seed(count)
    )  # fmt: skip


def sentences(count: int) -> dict[str, Tensor]:
    """Return tokens and a mask that hides the last two of the last sentence."""
    ids = words()(count)
    mask = torch.ones_like(ids)
    mask[-1, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def channels_last() -> nn.Module:
    """Return a residual network whose weights have their channels last in memory."""
    return Residual().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


IMAGES = noise(3, 8, 8)
OWN: dict[str, Specimen] = {
    "residual": Specimen(Residual, IMAGES),
    "channels last": Specimen(channels_last, IMAGES),
    "dense blocks": Specimen(Concat, IMAGES),
    "depthwise and grouped": Specimen(Grouped, IMAGES),
    "a layer used three times": Specimen(Shared, IMAGES),
    "rows with BatchNorm": Specimen(Rows, noise(12)),
    "tied weights": Specimen(Tied, words()),
    "LoRA": Specimen(Adapted, noise(12)),
    "zero-initialised": Specimen(ZeroInitialised, IMAGES),
    "layers with a forward of their own": Specimen(OwnForward, IMAGES),
    "LSTM": Specimen(Recurrent, words()),
    "GRU": Specimen(lambda: Recurrent(nn.GRU), words()),
    "attention": Specimen(Encoder, noise(5, 6)),
    "one axis": Specimen(Audio, noise(2, 24)),
    "three axes": Specimen(Video, noise(2, 4, 4, 4)),
    "bilinear": Specimen(Pair, noise(8)),
    "U-Net": Specimen(Segmenter, IMAGES),
    "two inputs": Specimen(SEVERAL["fusion"].build, SEVERAL["fusion"].inputs),
    "inputs by name": Specimen(SEVERAL["dict"].build, SEVERAL["dict"].inputs),
}
