"""Small networks of kinds that no other test has: adapters, ties, a head of zeros, rows of numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rows(nn.Module):
    """Linear layers with BatchNorm over rows of numbers, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Linear(12, 24), nn.BatchNorm1d(24)
        self.second, self.norm2 = nn.Linear(24, 16, bias=False), nn.BatchNorm1d(16)
        self.head, self.drop = nn.Linear(16, 10), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.first(x)))
        return self.head(self.drop(F.relu(self.norm2(self.second(x)))))


class Tied(nn.Module):
    """A language model whose output layer has the weight of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(20, 12), nn.Linear(12, 32), nn.Linear(32, 12)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.norm(x + self.down(F.gelu(self.up(x)))))


class LowRankAdapter(nn.Module):
    """A frozen linear layer plus a trainable product of two thin ones, the second of which is zero at the start."""

    def __init__(self, inputs: int, outputs: int, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class Adapted(nn.Module):
    """Two adapted layers and a head that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = LowRankAdapter(12, 24), LowRankAdapter(24, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


class ZeroInitialised(nn.Module):
    """A residual block whose last scale is zero, and a head of zeros: the output is constant before any training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)
        nn.init.zeros_(self.norm2.weight)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


class Segmenter(nn.Module):
    """A U-Net of two levels: its output is an image of class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.down, self.norm2 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.deep, self.up = nn.Conv2d(16, 16, 3, padding=1), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.merge, self.out = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.first(x)))
        deep = F.relu(self.deep(F.relu(self.norm2(self.down(x)))))
        return self.out(F.relu(self.merge(torch.cat([x, F.relu(self.up(deep))], 1))))
