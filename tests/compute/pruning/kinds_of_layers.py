"""Networks with layers of every kind: attention, recurrence, transposed and grouped convolutions, and others."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer


class Encoder(nn.Module):
    """Torch's encoder, whose attention packs its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    """A classifier of token sequences by two bidirectional recurrent layers."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(16, 10)
        self.rnn = kind(6, 8, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(x))[0][:, -1])


class UNet(nn.Module):
    """An encoding, a transposed convolution and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.merge, self.out = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        merged = torch.cat([x, F.relu(self.up(F.relu(self.down(x))))], 1)
        return self.out(F.relu(self.merge(merged))).mean((2, 3))


class Conv1D(nn.Module):
    """The layer of that name in transformers, with a weight of shape (inputs, outputs)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) * 0.3), nn.Parameter(torch.randn(nf) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


class Decoder(nn.Module):
    """A block as in GPT-2: causal attention and a feed-forward part made of `Conv1D`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(20, 8), nn.LayerNorm(8), nn.Linear(8, 10, bias=False)
        self.c_attn, self.c_proj, self.up, self.down = Conv1D(24, 8), Conv1D(8, 8), Conv1D(16, 8), Conv1D(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.c_attn(self.norm(x)).unflatten(-1, (2, 12)).transpose(1, 2).chunk(3, -1)
        x = x + self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


class Audio(nn.Module):
    """Convolutions along one axis: dilated, grouped and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8)
        self.second, self.grouped = nn.Conv1d(8, 16, 3, stride=2, dilation=2), nn.Conv1d(16, 16, 3, groups=4, padding=1)
        self.up, self.head = nn.ConvTranspose1d(16, 12, 4, 2, 1), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.norm(self.first(x)))))
        return self.head(F.relu(self.up(F.relu(self.grouped(x)))).mean(-1))


class Video(nn.Module):
    """Convolutions along three axes, one of them transposed and grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv3d(2, 8, 3, padding=1), nn.ConvTranspose3d(8, 6, 2, 2, groups=2)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.up(F.relu(self.first(x)))).mean((2, 3, 4)))


class Pair(nn.Module):
    """A bilinear layer between two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 6), nn.Linear(8, 5)
        self.both, self.head = nn.Bilinear(6, 5, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.both(F.relu(self.one(x)), F.relu(self.other(x)))))


class Depthwise(nn.Module):
    """Depthwise and grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.pointwise, self.grouped = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, groups=4, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.pointwise(F.relu(self.depthwise(F.relu(self.stem(x))))))
        return self.head(F.relu(self.grouped(x)).mean((2, 3)))


class SameConv(nn.Conv2d):
    """A convolution that pads its input so that the output has 1 / stride of its positions."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):
            size, stride, kernel = x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)


class StandardisedConv(nn.Conv2d):
    """A convolution with the weights of each filter standardised."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (std + 1e-5), self.bias, self.stride, self.padding)


class ScaledLinear(nn.Linear):
    """A linear layer that halves its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.5, self.bias)


class QuantisedConv(nn.Conv2d):
    """A convolution that rounds its weight to 255 values, and lets gradients through."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        step = weight.detach().abs().amax() / 127
        rounded = (weight.detach() / step).round() * step
        return super()._conv_forward(x, weight + (rounded - weight.detach()), bias)


class OwnForward(nn.Module):
    """Layers that compute with their weight in a way of their own, before ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.standardised = SameConv(3, 8, 3, stride=2), StandardisedConv(8, 8, 3, padding=1)
        self.quantised, self.plain = QuantisedConv(8, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.scaled, self.head = ScaledLinear(12, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.quantised(F.relu(self.standardised(F.relu(self.same(x))))))
        return self.head(F.relu(self.scaled(F.relu(self.plain(x)).mean((2, 3)))))


def vision_transformer() -> nn.Module:
    """Return torchvision's, small, with a head as after training."""
    network = VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=10)
    nn.init.normal_(network.heads.head.weight, std=0.3)
    return network


def noise(*shape: int) -> Tensor:
    """Return reproducible noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def token_numbers(*shape: int) -> Tensor:
    """Return reproducible numbers below 20."""
    return torch.randint(0, 20, shape, generator=torch.Generator().manual_seed(len(shape)))


KINDS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "encoder": (Encoder, noise(6, 5, 6)),
    "vit": (vision_transformer, noise(6, 3, 16, 16)),
    "lstm": (Recurrent, token_numbers(6, 7)),
    "gru": (lambda: Recurrent(nn.GRU), token_numbers(6, 7)),
    "unet": (UNet, noise(6, 3, 8, 8)),
    "decoder": (Decoder, token_numbers(6, 7)),
    "audio": (Audio, noise(6, 2, 24)),
    "video": (Video, noise(6, 2, 4, 4, 4)),
    "pair": (Pair, noise(6, 8)),
    "depthwise": (Depthwise, noise(6, 3, 8, 8)),
    "own forward": (OwnForward, noise(6, 3, 8, 8)),
}


def seasoned(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network with biases that are not zero, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build()
        for name, parameter in network.named_parameters():
            if "bias" in name:
                nn.init.normal_(parameter, std=0.3)
    return network.eval()


def network_of_kind(kind: str) -> tuple[nn.Module, Tensor]:
    """Return a network of `KINDS` and a batch of its inputs."""
    build, inputs = KINDS[kind]
    return seasoned(build), inputs
