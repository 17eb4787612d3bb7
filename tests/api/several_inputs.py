"""Networks of several inputs, each beside a network of one input that computes the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORDS, LENGTH, WIDTH, CLASSES = 20, 6, 16, 10


class Encoder(nn.Module):
    """Tokens and a mask of 0 and 1: embeddings, attention written out, a feed-forward block, the mean of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def classify(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(LENGTH, device=ids.device))
        y = self.norm1(x)
        scores = self.query(y) @ self.key(y).transpose(1, 2) / 4
        hidden = (1 - mask.to(x.dtype))[:, None] * torch.finfo(x.dtype).min
        x = x + self.out(torch.softmax(scores + hidden, dim=-1) @ self.value(y))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        kept = mask.to(x.dtype)[..., None]
        return self.head((x * kept).sum(1) / kept.sum(1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.classify(ids, mask)


class Named(Encoder):
    """Called by names, with an input that may be missing; returns a dictionary."""

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor, labels: None = None) -> dict[str, Any]:  # type: ignore[override]
        assert labels is None
        return {"logits": self.classify(input_ids, attention_mask), "hidden": None}


@dataclass
class Output:
    """What `Classifier` returns."""

    logits: Tensor
    loss: Tensor | None = None


class Classifier(Encoder):
    """Returns a dataclass, as transformers' networks do."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Output:  # type: ignore[override]
        return Output(self.classify(input_ids, attention_mask))


class Packed(Encoder):
    """The same of one input: tokens and mask as the two rows of a sample."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.classify(x[:, 0], x[:, 1])


class Fusion(nn.Module):
    """An image and a row of numbers, each with layers of its own, and a head on both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.row = nn.Linear(5, 12)
        self.both, self.head = nn.Linear(20, 16), nn.Linear(16, CLASSES)

    def fuse(self, image: Tensor, row: Tensor) -> Tensor:
        seen = F.relu(self.norm(self.conv(image))).mean((2, 3))
        return self.head(F.relu(self.both(torch.cat([seen, F.relu(self.row(row))], 1))))

    def forward(self, image: Tensor, row: Tensor) -> Tensor:
        return self.fuse(image, row)


class Flat(Fusion):
    """The same of one input: pixels and numbers in one row."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.fuse(x[:, :48].reshape(-1, 3, 4, 4), x[:, 48:])


def tokens(count: int = 4) -> tuple[Tensor, Tensor]:
    """Return tokens and their mask: 1 up to a length, 0 behind it."""
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(2, LENGTH + 1, (count, 1), generator=generator)
    return torch.randint(0, WORDS, (count, LENGTH), generator=generator), (torch.arange(LENGTH) < lengths).long()


def pictures(count: int = 4) -> tuple[Tensor, Tensor]:
    """Return images and rows of numbers."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 4, 4, generator=generator), torch.randn(count, 5, generator=generator)


def _by_name(values: tuple[Tensor, Tensor]) -> dict[str, Any]:
    return {"input_ids": values[0], "attention_mask": values[1]}


def logits_of(loss: Callable[..., Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Return `loss` for outputs that hold their logits by that name."""
    return lambda out, y: loss(out["logits"] if isinstance(out, dict) else out.logits, y)


@dataclass(frozen=True)
class Several:
    """A network of several inputs: how it is built, its inputs and loss, and its twin of one input."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Any]
    loss: Callable[[Any, Tensor], Tensor]
    twin: type[nn.Module]
    twin_inputs: Callable[[int], Tensor]


def _packed(count: int) -> Tensor:
    return torch.stack(tokens(count), 1)


SEVERAL = {
    "tuple": Several(Encoder, tokens, F.cross_entropy, Packed, _packed),
    "floats": Several(Encoder, lambda n: [tokens(n)[0], tokens(n)[1].float()], F.cross_entropy, Packed, _packed),
    "dict": Several(
        Named, lambda n: {**_by_name(tokens(n)), "labels": None}, logits_of(F.cross_entropy), Packed, _packed
    ),
    "logits": Several(
        Classifier, lambda n: _by_name(tokens(n)), logits_of(F.cross_entropy), Packed, _packed
    ),
    "fusion": Several(
        Fusion, pictures, F.cross_entropy, Flat, lambda n: torch.cat([part.flatten(1) for part in pictures(n)], 1)
    ),
}  # fmt: skip


def pair(kind: str) -> tuple[nn.Module, nn.Module]:
    """Return a network of several inputs and its twin, with the same weights."""
    case = SEVERAL[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = case.build()
    twin = case.twin()
    twin.load_state_dict(network.state_dict())
    return network.eval(), twin.eval()
