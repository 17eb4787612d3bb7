"""The data sets of vectors: toys in the plane, which need no files, and tables."""

from __future__ import annotations

from luigi_prune.registry.rows import DatasetRow

_DATA = "luigi_prune.compute.data"


def _toy(name: str, classes: int, summary: str) -> DatasetRow:
    return DatasetRow(name, f"{_DATA}.toys:read_toy", classes, (2,), summary)


def _table(name: str, features: int, summary: str) -> DatasetRow:
    return DatasetRow(name, f"{_DATA}.tables:read_table", None, (features,), summary, labelled=False)


VECTOR_DATASETS = (
    _toy("ToyConcentric", 2, "Two noisy circles in the plane"),
    _toy("ToyMoons", 2, "Two half circles in the plane that reach into each other"),
    _toy("ToySpirals", 2, "Two spirals in the plane"),
    _toy("ToySpirals2", 2, "Two spirals in the plane, 16 times as many points"),
    _toy("ToyGaussians", 6, "Six Gaussians in the plane, on a circle"),
    _toy("ToyGaussiansSpiral", 10, "Ten Gaussians in the plane, on a spiral"),
    _toy("ToyDiffeqml", 1, "Three trajectories and their limit cycle in the plane"),
    _table("Power", 6, "UCI: power consumption of a household, for densities"),
    _table("Gas", 8, "UCI: gas sensors in ethylene and CO, for densities"),
    _table("Hepmass", 21, "UCI: particle collisions, for densities"),
    _table("Miniboone", 43, "UCI: neutrinos, for densities"),
    _table("Bsds300", 63, "Patches of the Berkeley segmentation images, for densities"),
)
