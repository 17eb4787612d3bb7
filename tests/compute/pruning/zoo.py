"""Small networks of every shape that pruning must understand, and the two of the golden results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[2] / "golden"


class MLP(nn.Module):
    """64-96-48-10 with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 96), nn.Linear(96, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class ConvNet(nn.Module):
    """Three 3x3 convolutions with bias, BatchNorm and ReLU, a global average, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean(dim=(2, 3)))


class Residual(nn.Module):
    """Two blocks with BatchNorm; the second's shortcut skips positions and pads channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        widths = [(8, 8, 1), (8, 16, 2)]
        self.first = nn.ModuleList(nn.Conv2d(a, b, 3, s, padding=1, bias=False) for a, b, s in widths)
        self.first_bn = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _ in widths)
        self.second = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1, bias=False) for _, b, _ in widths)
        self.second_bn = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _ in widths)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)), inplace=True)
        for c1, b1, c2, b2 in zip(self.first, self.first_bn, self.second, self.second_bn, strict=True):
            y = b2(c2(F.relu(b1(c1(x)), inplace=True)))
            if y.shape != x.shape:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
            x = F.relu(x + y)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Concat(nn.Module):
    """A dense block: every layer reads all that came before, through a BatchNorm over the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (6, 12, 18))
        self.convs = nn.ModuleList(nn.Conv2d(c, 6, 3, padding=1, bias=False) for c in (6, 12))
        self.head = nn.Linear(18, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(F.relu(norm(x)))], dim=1)
        return self.head(F.max_pool2d(F.relu(self.norms[-1](x)), 8).flatten(1))


class Grouped(nn.Module):
    """Depthwise separable convolutions with ReLU6, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.pointwise = nn.Sequential(nn.ReLU6(inplace=True), nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.grouped = nn.Conv2d(16, 16, 3, groups=4, padding=1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.pointwise(self.depthwise(self.stem(x))))
        return self.fc(F.relu(self.grouped(x)).mean((2, 3)))


class Shared(nn.Module):
    """One convolution and its BatchNorm, used three times in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for _ in range(3):
            x = self.block(x)
        return self.fc(x.mean((2, 3)))


class Sequence(nn.Module):
    """Token numbers, embeddings, LayerNorm, attention written out and a feed-forward block, both residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Embedding(20, 16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) / 4, dim=-1) @ v)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class Plain(nn.Module):
    """LeNet's kind: convolutions with bias, no BatchNorm, no padding, max-pooling, a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)), *(nn.Conv2d(6, 12, 2), nn.Sigmoid())
        )
        self.classifier = nn.Sequential(nn.Linear(48, 24), nn.ReLU(inplace=True), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def images(count: int = 4) -> Tensor:
    """Return noise of shape (count, 3, 8, 8)."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))


def tokens(count: int = 4) -> Tensor:
    """Return token numbers of shape (count, 7)."""
    return torch.randint(0, 20, (count, 7), generator=torch.Generator().manual_seed(count))


def golden(name: str) -> dict[str, np.ndarray]:
    """Return the golden arrays of "mlp" or "convnet"."""
    with np.load(GOLDEN / f"pruning_{name}.npz") as stored:
        return dict(stored)


def golden_network(name: str, arrays: dict[str, np.ndarray]) -> nn.Module:
    """Return the trained network behind golden arrays, in evaluation mode."""
    network = {"mlp": MLP, "convnet": ConvNet}[name]()
    prefix = "weights/"
    state = {key[len(prefix) :]: torch.from_numpy(v) for key, v in arrays.items() if key.startswith(prefix)}
    network.load_state_dict(state)
    return network.eval()


def golden_batches(arrays: dict[str, np.ndarray]) -> list[tuple[Tensor, Tensor]]:
    """Return the calibration set in batches of 4."""
    x, y = torch.from_numpy(arrays["data/calib_x"]), torch.from_numpy(arrays["data/calib_y"])
    return list(zip(x.split(4), y.split(4), strict=True))


ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "mlp": (MLP, lambda n: torch.rand(n, 64, generator=torch.Generator().manual_seed(n))),
    "convnet": (ConvNet, lambda n: images(n)[:, :1]),
    "residual": (Residual, images),
    "concat": (Concat, images),
    "grouped": (Grouped, images),
    "shared": (Shared, images),
    "sequence": (Sequence, tokens),
    "plain": (Plain, images),
}


def trained_like(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a network of the zoo whose biases and BatchNorm hold numbers as after training, and a batch of inputs."""
    build, inputs = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.bias, std=0.3)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval(), inputs(4)
