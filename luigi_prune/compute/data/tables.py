"""The tables of density estimation (Papamakarios et al. 2017, arXiv 1705.07057), from the files of Zenodo 1161203.

Each loader returns (train, validation, test) as float arrays, prepared as in that paper. No file is unpickled.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from luigi_prune.compute.data.samples import RawData
from luigi_prune.errors import ConfigError

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
_ARCHIVE = "https://zenodo.org/records/1161203/files/data.tar.gz"
_CONVERT = "python -c \"import pandas; pandas.read_pickle('{0}').to_hdf('{1}', key='data', format='table')\""


def read_table(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the "train" or "test" rows of a table: float32 (samples, features), all of label 0.

    The validation rows of the table follow the training rows, and are held out (`RawData.validation`).
    """
    train, validation, test = _parts(name, training_data, local_data)
    rows = test if split == "test" else np.concatenate([train, validation])
    held_out = np.arange(len(train), len(rows)) if split == "train" else None
    return RawData(np.ascontiguousarray(rows, dtype=np.float32), np.zeros(len(rows), dtype=np.int64), held_out)


@lru_cache(maxsize=1)  # of the same table, the test rows are read after the training rows
def _parts(name: str, training_data: str, local_data: str) -> Parts:
    """Return the three parts; raises ConfigError for missing and malformed files."""
    features, prepare = TABLES[name]
    root = _root(name, training_data, local_data)
    try:
        parts = prepare(root)
    except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"network.dataset: {name}: a file in {root} cannot be read: {reason}") from error
    for part, rows in zip(("train", "validation", "test"), parts, strict=True):
        if rows.ndim != 2 or rows.shape[1] != features or not len(rows):
            raise ConfigError(
                f"network.dataset: {name}: {root}: expected rows of {features} features for {part}, got the shape "
                f"{rows.shape} after preparation"
            )
        if not np.isfinite(rows).all():
            raise ConfigError(f"network.dataset: {name}: {root}: {part} rows are NaN or infinite")
    return parts


def _root(name: str, training_data: str, local_data: str) -> Path:
    """Return the folder with the table's folder; raises ConfigError that says where to get the files."""
    folder = FOLDERS[name]
    for given in (local_data, training_data):
        for root in (Path(given).expanduser(), Path(given).expanduser() / "data") if given else ():
            if (root / folder).is_dir():
                return root
    target = Path(training_data).expanduser()
    raise ConfigError(
        f"directories.training_data: {name}: there is no folder {folder} in {target}; download {_ARCHIVE} and unpack it "
        f"there (it contains data/{folder})"
    )


def _numbers(path: Path, columns: int = 0) -> np.ndarray:
    """Return a matrix of an .npy file; raises ValueError naming the file for anything else."""
    array = np.load(_present(path), allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or (columns and array.shape[1] != columns):
        wanted = f"{columns} columns" if columns else "rows of numbers"
        raise ValueError(f"{path.name}: expected {wanted}, got {array.dtype} of shape {array.shape}")
    return array.astype(np.float64)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise OSError(f"{path.parent.name}/{path.name} is missing; it is part of {_ARCHIVE}")
    return path


def _tenths(rows: np.ndarray) -> Parts:
    """Return the rows with the last tenth as test, and the last tenth of the others as validation."""
    rest, test = rows[: len(rows) - len(rows) // 10], rows[len(rows) - len(rows) // 10 :]
    return rest[: len(rest) - len(rest) // 10], rest[len(rest) - len(rest) // 10 :], test


def _standardised(parts: Parts) -> Parts:
    """Return the parts, standardised by the mean and spread of training and validation rows."""
    known = np.concatenate(parts[:2])
    mean, spread = known.mean(0), known.std(0)
    train, validation, test = ((part - mean) / spread for part in parts)
    return train, validation, test


def _power(root: Path) -> Parts:
    rows = _numbers(root / "power/data.npy", 9)
    generator = np.random.RandomState(42)
    generator.shuffle(rows)
    rows = np.delete(np.delete(rows, 3, axis=1), 1, axis=1)
    # Drawn in this order; measured values are rounded, and noise fills the gaps.
    voltage = 0.01 * generator.rand(len(rows), 1)
    gap = 0.001 * generator.rand(len(rows), 1)
    metering = generator.rand(len(rows), 3)
    noise = np.hstack([gap, voltage, metering, np.zeros((len(rows), 1))])
    if rows.shape[1] > noise.shape[1]:  # the time of day stays without noise
        noise = np.hstack([noise, np.zeros((len(rows), rows.shape[1] - noise.shape[1]))])
    return _standardised(_tenths(rows + noise))


def _gas(root: Path) -> Parts:
    names, rows = _gas_table(root / "gas")
    kept = [index for index, name in enumerate(names) if name not in ("Meth", "Eth", "Time")]
    rows = rows[:, kept]
    while (crowded := (np.corrcoef(rows, rowvar=False) > 0.98).sum(1) > 1).any():
        rows = np.delete(rows, int(np.argmax(crowded)), axis=1)
    return _tenths((rows - rows.mean(0)) / rows.std(0, ddof=1))


def _gas_table(folder: Path) -> tuple[list[str], np.ndarray]:
    """Return the names of the columns and the rows, from a converted file: .csv with a header, or pandas' .h5."""
    table, stored, pickled = (folder / f"ethylene_CO.{ending}" for ending in ("csv", "h5", "pickle"))
    if table.is_file():
        with open(table, newline="") as file:
            names = next(csv.reader(file))
            return names, np.loadtxt(file, delimiter=",", ndmin=2)
    if pickled.is_file():
        command = f"python -c \"import pandas; pandas.read_pickle('{pickled}').to_csv('{table}', index=False)\""
        raise OSError(f"{pickled.name} is a pickle, which can run code and is not read; convert it once: {command}")
    del stored
    raise OSError(f"gas/{table.name} is missing; it is made from gas/{pickled.name} of {_ARCHIVE}")


def _hepmass(root: Path) -> Parts:
    train, test = (_csv(root / f"hepmass/1000_{part}.csv") for part in ("train", "test"))
    train, test = train[train[:, 0] == 1][:, 1:], test[test[:, 0] == 1][:, 1:]
    test = test[:, : train.shape[1]]  # the test file has a column more
    mean, spread = train.mean(0), train.std(0, ddof=1)
    train, test = (train - mean) / spread, (test - mean) / spread
    repeated = (train == train.min(0)).sum(0) > 5
    train, test = train[:, ~repeated], test[:, ~repeated]
    cut = len(train) - len(train) // 10
    return train[:cut], train[cut:], test


def _csv(path: Path) -> np.ndarray:
    """Return the numbers of a file with a header."""
    with open(_present(path)) as file:
        file.readline()
        try:
            return np.loadtxt(file, delimiter=",", ndmin=2, usecols=None)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error


def _miniboone(root: Path) -> Parts:
    return _standardised(_tenths(_numbers(root / "miniboone/data.npy")))


def _bsds300(root: Path) -> Parts:
    with h5py.File(_present(root / "BSDS300/BSDS300.hdf5"), "r") as file:
        train, validation, test = (np.asarray(file[part]) for part in ("train", "validation", "test"))
    return train, validation, test


FOLDERS = {"Power": "power", "Gas": "gas", "Hepmass": "hepmass", "Miniboone": "miniboone", "Bsds300": "BSDS300"}
TABLES: dict[str, tuple[int, Callable[[Path], Parts]]] = {
    "Power": (6, _power),
    "Gas": (8, _gas),
    "Hepmass": (21, _hepmass),
    "Miniboone": (43, _miniboone),
    "Bsds300": (63, _bsds300),
}
