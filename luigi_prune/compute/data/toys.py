"""Points in the plane, drawn from a fixed seed: the toy data sets of torchprune's continuous networks.

Where the reference's files are present, torchdyn_toy_<tag>/{x,y}_data_{train,test}.npy below the folder of the training
data, they are read instead: its points were drawn without a seed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from luigi_prune.compute.data.archives import unpacked_from
from luigi_prune.compute.data.data_files import DataFiles, data_root
from luigi_prune.compute.data.samples import RawData
from luigi_prune.errors import ConfigError

log = logging.getLogger("luigi_prune")
Points = tuple[np.ndarray, np.ndarray]  # float64 (samples, 2), int64 labels (samples,)
_SEED = 2 * 1024  # fixed: the points are part of the data set, not of an experiment


def read_toy(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the "train" or "test" points of a toy: float32 (samples, 2), each split normalised by itself.

    Normalisation is by one mean and one standard deviation over both coordinates.
    """
    tag, count, draw = TOYS[name]
    stored, archive = Path(f"torchdyn_toy_{tag}"), Path(f"torchdyn_toy_{tag}.tar.gz")
    folders = [Path(folder).expanduser() for folder in (local_data, training_data) if folder]
    if any((folder / stored).is_dir() or (folder / archive).is_file() for folder in folders):
        needed = tuple(stored / f"{axis}_data_{part}.npy" for axis in "xy" for part in ("train", "test"))
        files = DataFiles(name, stored, needed, (archive,), unpacked_from(needed), "torchprune")
        folder = data_root(files, training_data, local_data) / stored
        log.info("%s is read from %s", name, folder)
        return _stored(name, folder, split)
    size = count if split == "train" else count // 2
    points, labels = draw(size, np.random.default_rng([_SEED, *name.encode(), split == "test"]))
    points = (points - points.mean()) / points.std(ddof=1)
    return RawData(points.astype(np.float32), labels.astype(np.int64))


def _stored(name: str, folder: Path, split: str) -> RawData:
    """Return the points in the reference's files; raises ConfigError for files that cannot be them."""
    arrays = []
    for axis in "xy":
        path = folder / f"{axis}_data_{split}.npy"
        try:
            arrays.append(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ConfigError(
                f"network.dataset: {name}: {path} cannot be read ({reason}); without the folder {folder.name} the "
                "points are generated"
            ) from error
    points, labels = arrays
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != (len(points),) or not len(points):
        raise ConfigError(
            f"network.dataset: {name}: {folder}: expected points (samples, 2) and as many labels, got the shapes "
            f"{points.shape} and {labels.shape}"
        )
    if not np.isfinite(points).all():
        raise ConfigError(f"network.dataset: {name}: {folder / f'x_data_{split}.npy'}: points are NaN or infinite")
    return RawData(points.astype(np.float32), labels.astype(np.int64))


def _concentric(n: int, rng: np.random.Generator) -> Points:
    inner = n // 2
    angles = rng.uniform(0, 2 * math.pi, n)
    radii = np.where(np.arange(n) < inner, 0.75, 1.5)[:, None]
    points = radii * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.1 * rng.standard_normal((n, 2))
    return points, (np.arange(n) < inner).astype(np.int64)


def _moons(n: int, rng: np.random.Generator) -> Points:
    upper = n // 2
    one, other = np.linspace(0, math.pi, upper), np.linspace(0, math.pi, n - upper)
    points = np.concatenate(
        [np.stack([np.cos(one), np.sin(one)], 1), np.stack([1 - np.cos(other), 0.5 - np.sin(other)], 1)]
    )
    # The same number for both coordinates of a point.
    return points + 0.1 * rng.random((n, 1)), np.repeat([0, 1], [upper, n - upper])


def _spirals(noise: float) -> Callable[[int, np.random.Generator], Points]:
    def draw(n: int, rng: np.random.Generator) -> Points:
        r = np.sqrt(rng.random(n)) * 780 * math.pi / 180
        arm = np.stack([-np.cos(r) * r, np.sin(r) * r], 1) + noise * rng.random((n, 2))
        return np.concatenate([arm, -arm]), np.repeat([0, 1], n)

    return draw


def _gaussians(
    components: int, radii: tuple[float, float], spreads: tuple[float, float]
) -> Callable[[int, np.random.Generator], Points]:
    """Return components at angles of sixths of a circle, whose radius and spread run linearly between two values."""

    def draw(n: int, rng: np.random.Generator) -> Points:
        angles = np.arange(1, components + 1) * 2 * math.pi / 6
        radius, spread = (np.linspace(*ends, components)[:, None] for ends in (radii, spreads))
        centres = radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        centres = centres + 0.001 * rng.standard_normal((components, 2))
        points = centres[:, None] + spread[:, None] * rng.standard_normal((components, n, 2))
        return points.reshape(-1, 2), np.repeat(np.arange(components), n)

    return draw


def _limit_cycle(n: int, rng: np.random.Generator) -> Points:
    """Return points around three trajectories of x' = -y + x (1 - r^2), y' = x + y (1 - r^2), and around a circle."""
    starts, steps, dt = np.array([(0, 2.0), (-1.6, -1.2), (1.6, -1.2)]), 499, 3.2 / 499

    def slope(z: np.ndarray) -> np.ndarray:
        turned, excess = np.stack([-z[:, 1], z[:, 0]], 1), 1 - (z * z).sum(1, keepdims=True)
        return turned + z * excess

    path = [starts]
    for _ in range(steps):  # the classical Runge-Kutta method
        z = path[-1]
        a = slope(z)
        b = slope(z + dt / 2 * a)
        c = slope(z + dt / 2 * b)
        path.append(z + dt / 6 * (a + 2 * b + 2 * c + slope(z + dt * c)))
    angles = np.linspace(0, 2 * math.pi, 1000)
    centres = np.concatenate([*path, 2 * np.stack([np.cos(angles), np.sin(angles)], 1)])
    chosen = centres[rng.integers(len(centres), size=n)]
    points = chosen + 0.01 * rng.standard_normal((n, 2)) + 0.05 * rng.standard_normal((n, 2))
    return points, np.zeros(n, dtype=np.int64)


TOYS: dict[str, tuple[str, int, Callable[[int, np.random.Generator], Points]]] = {
    "ToyConcentric": ("spheres", 1024, _concentric),
    "ToyMoons": ("moons", 1024, _moons),
    "ToySpirals": ("spirals", 1024, _spirals(0.9)),
    "ToySpirals2": ("spirals2", 16384, _spirals(0.5)),
    "ToyGaussians": ("gaussians", 2730, _gaussians(6, (4, 4), (0.5, 0.5))),
    "ToyGaussiansSpiral": ("gaussians_spiral", 1638, _gaussians(10, (4, 1), (0.3, 0.1))),
    "ToyDiffeqml": ("diffeqml", 16384, _limit_cycle),
}
