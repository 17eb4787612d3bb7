"""Noise that spreads pixels over the gaps between grey values, so that images have a density."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from luigi_prune.compute.counted_noise import uniforms_of


class RandomNoise:
    """x -> (x n + u) / (n + 1) for u uniform in [0, 1), drawn for every element; n = `normalization`, 255 for bytes."""

    def __init__(self, normalization: float = 255.0):
        if not normalization > 0:
            raise ValueError(f"normalization: expected a positive number, got {normalization}")
        self._normalization = float(normalization)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the image with noise from torch's generator."""
        return self._mixed(image, torch.rand_like(image))

    def of_batch(self, images: Tensor, uniform: np.ndarray) -> Tensor:
        """Return images (samples, ...) with noise that is a function of a number in [0, 1) per sample."""
        seeds = torch.from_numpy((uniform * 2**53).astype(np.int64)).to(images.device, non_blocking=True)
        return self._mixed(images, uniforms_of(seeds, images[0].numel()).view(images.shape).to(images))

    def _mixed(self, values: Tensor, noise: Tensor) -> Tensor:
        return (values * self._normalization + noise) / (self._normalization + 1)
