"""Sources of samples: what every data set is, whether in memory or in files that are read one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision import tv_tensors

from luigi_prune.compute.data.sample_order import Indices
from luigi_prune.compute.network_inputs import leaves, map_leaves
from luigi_prune.errors import ConfigError, first_line

Kind = Literal["images", "pairs", "tensors"]


class Source:
    """A data set: `len(source)` samples, `source[index]` is one of them, (input, target), before all transforms.

    Inputs by `kind`: "images": PIL images or uint8 arrays (height, width[, 3]); "pairs": a PIL image, whose target is
    a `tv_tensors.Mask`, and transforms get both; "tensors": an array, or a tuple or dictionary of arrays, that need no
    conversion. Targets of the other two are arrays or numbers, or a tuple or dictionary of them.

    `targets`: those of all samples, if they are known without reading samples. `validation`: the indices that the data
    set sets aside itself. `random`: whether samples are drawn anew at every access, from torch's global generator,
    which is seeded before each.
    """

    kind: Kind = "images"
    targets: Any = None
    validation: Indices | None = None
    random: bool = False

    def __len__(self) -> int:
        return len(next(leaves(self.targets))[1])

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        raise NotImplementedError

    def target(self, index: int) -> Any:
        """Return one target of `targets`."""
        return map_leaves(lambda array: array[index], self.targets)


@dataclass(frozen=True)
class RawData(Source):
    """Samples in memory: images (samples, height, width[, 3]) of uint8 and targets (samples,) of int64.

    Also inputs (samples, ...) of float32, int64 or bool, which need no ToTensor, or a tuple or dictionary of such
    inputs; and float32 targets (regression), or a tuple or dictionary of targets. Without targets all are 0.
    """

    images: Any
    targets: Any = None
    validation: Indices | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.targets is None:
            count = len(next(leaves(self.images))[1])
            object.__setattr__(self, "targets", np.zeros(count, dtype=np.int64))

    @property
    def are_images(self) -> bool:
        """Whether the inputs are images of bytes, to which the transforms of images apply."""
        return isinstance(self.images, np.ndarray) and self.images.dtype == np.uint8

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """The kind of the inputs."""
        return "images" if self.are_images else "tensors"

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return map_leaves(lambda array: array[index], self.images), self.target(index)


class ImageFiles(Source):
    """Image files with class numbers, decoded when they are read.

    `border`: pixels cut off on every side.
    """

    def __init__(self, paths: Sequence[Path | str], targets: Sequence[int] | np.ndarray, border: int = 0):
        # Arrays of bytes: a million Path objects take minutes and gigabytes, and are copied into every worker process.
        self._paths = np.array([str(path).encode() for path in paths])
        self.targets = np.asarray(targets, dtype=np.int64)
        self._border = border

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = read_image(self._paths[index].decode())
        if self._border:
            width, height = image.size
            image = image.crop((self._border, self._border, width - self._border, height - self._border))
        return image, self.target(index)


class MaskedImages(Source):
    """Image files, each with a file of class numbers per pixel."""

    kind: Kind = "pairs"

    def __init__(self, images: Sequence[Path], masks: Sequence[Path]):
        self._images, self._masks = list(images), list(masks)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, path = read_image(self._images[index]), self._masks[index]
        classes = read_matlab_mask(path) if path.suffix == ".mat" else read_mask(path)
        if classes.shape != image.size[::-1]:
            raise ConfigError(
                f"{path}: damaged: expected a mask of {image.size[1]}x{image.size[0]} like its image, got "
                f"{'x'.join(map(str, classes.shape))}"
            )
        return image, tv_tensors.Mask(classes)


def read_image(path: Path | str) -> Image.Image:
    """Return the decoded image as RGB; raises ConfigError naming a file that is missing or damaged."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise damaged(path, error) from error


def read_mask(path: Path) -> np.ndarray:
    """Return the class numbers of a picture with a palette, (height, width) of uint8."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise ValueError(f"expected one class number per pixel, got a picture of mode {image.mode}")
            return np.array(image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise damaged(path, error) from error


def read_matlab_mask(path: Path) -> np.ndarray:
    """Return the class numbers of a file of SBD, (height, width) of uint8."""
    from scipy.io import loadmat  # slow to import, used by one data set only

    try:
        return np.array(loadmat(path)["GTcls"][0]["Segmentation"][0], dtype=np.uint8)
    except Exception as error:  # loadmat raises anything for a damaged file
        raise damaged(path, error) from error


def damaged(path: Path | str, error: Exception | str) -> ConfigError:
    """Return the error for a file that cannot be read, in one line."""
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"{path}: there is no such file")
    reason = f"no {first_line(error)}" if isinstance(error, KeyError) else first_line(error)
    return ConfigError(f"{path}: damaged or of another format: {reason.replace(str(path), 'the file')}")
