"""The tables of density estimation (Papamakarios et al. 2017, arXiv 1705.07057), from the files of Zenodo 1161203.

Each loader returns (train, validation, test) as float arrays, prepared as in that paper. No file is unpickled.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from luigi_prune.compute.data.archives import unpacked_from
from luigi_prune.compute.data.data_files import DataFiles, data_root
from luigi_prune.compute.data.samples import RawData
from luigi_prune.errors import ConfigError

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
_ARCHIVE, _FROM = Path("data.tar.gz"), "https://zenodo.org/records/1161203"
_PICKLE = Path("data/gas/ethylene_CO.pickle")


def read_table(name: str, split: str, training_data: str, local_data: str) -> RawData:
    """Return the "train" or "test" rows of a table: float32 (samples, features), all of target 0.

    The validation rows of the table follow the training rows, and are held out.
    """
    features, names, prepare = TABLES[name]
    needed = tuple(Path("data", file) for file in names)
    files = DataFiles(name, Path("data"), needed, (_ARCHIVE,), unpacked_from(needed), _FROM)
    if name == "Gas":
        _refuse_pickle(files, training_data, local_data)
    root = data_root(files, training_data, local_data) / "data"
    try:
        parts = prepare(root)
    except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"network.dataset: {name}: {', '.join(names)} in {root}: {reason}") from error
    for part, rows in zip(("train", "validation", "test"), parts, strict=True):
        if rows.ndim != 2 or rows.shape[1] != features or not len(rows):
            raise ConfigError(
                f"network.dataset: {name}: {', '.join(names)} in {root}: expected rows of {features} features for "
                f"{part}, got the shape {rows.shape} after preparation"
            )
        if not np.isfinite(rows).all():
            raise ConfigError(f"network.dataset: {name}: {', '.join(names)} in {root}: {part} rows are NaN or infinite")
    train, validation, test = parts
    rows = test if split == "test" else np.concatenate([train, validation])
    held_out = np.arange(len(train), len(rows)) if split == "train" else None
    return RawData(np.ascontiguousarray(rows, dtype=np.float32), validation=held_out)


def _refuse_pickle(files: DataFiles, training_data: str, local_data: str) -> None:
    """Raise ConfigError, with the command that converts it, unless the table is present in a form that is only data."""
    folders = [Path(folder).expanduser() for folder in (local_data, training_data) if folder]
    if any(files.complete(folder) for folder in folders):
        return
    pickled = next((folder / _PICKLE for folder in folders if (folder / _PICKLE).is_file()), None)
    if pickled is None:
        raise ConfigError(
            f"directories.training_data: Gas: {files.needed[0]} is not in {folders[-1]}; unpack {_PICKLE} of "
            f"{_ARCHIVE} ({_FROM}) there and run again for the command that converts it"
        )
    raise ConfigError(
        f"network.dataset: Gas: {pickled} is a pickle, which can run code when it is read; convert it once: python -c "
        f"\"import pandas; pandas.read_pickle('{pickled}').to_csv('{pickled.with_suffix('.csv')}', index=False)\""
    )


def _numbers(path: Path, columns: int) -> np.ndarray:
    """Return a matrix of an .npy file; raises ValueError for anything else."""
    array = np.load(path, allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] != columns:
        raise ValueError(f"expected {columns} columns of numbers, got {array.dtype} of shape {array.shape}")
    return array.astype(np.float64)


def _tenths(rows: np.ndarray) -> Parts:
    """Return the rows with the last tenth as test, and the last tenth of the others as validation."""
    cut = len(rows) - int(0.1 * len(rows))
    rest = cut - int(0.1 * cut)
    return rows[:rest], rows[rest:cut], rows[cut:]


def _standardised(parts: Parts) -> Parts:
    """Return the parts, standardised by the mean and spread of training and validation rows."""
    known = np.concatenate(parts[:2])
    mean, spread = known.mean(0), known.std(0)
    train, validation, test = ((part - mean) / spread for part in parts)
    return train, validation, test


def _power(root: Path) -> Parts:
    rows = _numbers(root / "power/data.npy", 8)
    generator = np.random.RandomState(42)
    generator.shuffle(rows)
    rows = np.delete(np.delete(rows, 3, axis=1), 1, axis=1)
    # Measurements are rounded, and noise fills the gaps. The order of the draws is that of the paper.
    voltage = 0.01 * generator.rand(len(rows), 1)
    gap = 0.001 * generator.rand(len(rows), 1)
    metering = generator.rand(len(rows), 3)
    rows += np.hstack([gap, voltage, metering, np.zeros((len(rows), 1))])
    return _standardised(_tenths(rows))


def _gas(root: Path) -> Parts:
    with open(root / "gas/ethylene_CO.csv", newline="") as file:
        names = next(csv.reader(file), [])
        rows = np.loadtxt(file, delimiter=",", ndmin=2)
    if rows.shape[1] != len(names):
        raise ValueError(f"expected a header and {len(names)} columns, got {rows.shape[1]}")
    rows = rows[:, [index for index, name in enumerate(names) if name not in ("Meth", "Eth", "Time")]]
    while (crowded := (np.atleast_2d(np.corrcoef(rows, rowvar=False)) > 0.98).sum(1) > 1).any():
        rows = np.delete(rows, int(np.argmax(crowded)), axis=1)
    return _tenths((rows - rows.mean(0)) / rows.std(0, ddof=1))


def _hepmass(root: Path) -> Parts:
    train, test = (
        np.loadtxt(root / f"hepmass/1000_{part}.csv", delimiter=",", ndmin=2, skiprows=1) for part in ("train", "test")
    )
    train, test = train[train[:, 0] == 1][:, 1:], test[test[:, 0] == 1][:, 1:]
    test = test[:, : train.shape[1]]  # that file has one column more
    mean, spread = train.mean(0), train.std(0, ddof=1)
    train, test = (train - mean) / spread, (test - mean) / spread
    repeated = (train == train.min(0)).sum(0) > 5
    train, test = train[:, ~repeated], test[:, ~repeated]
    cut = len(train) - int(0.1 * len(train))
    return train[:cut], train[cut:], test


def _miniboone(root: Path) -> Parts:
    return _standardised(_tenths(_numbers(root / "miniboone/data.npy", 43)))


def _bsds300(root: Path) -> Parts:
    import h5py  # compute otherwise does without

    with h5py.File(root / "BSDS300/BSDS300.hdf5", "r") as file:
        train, validation, test = (np.asarray(file[part]) for part in ("train", "validation", "test"))
    return train, validation, test


TABLES: dict[str, tuple[int, tuple[str, ...], Callable[[Path], Parts]]] = {
    "Power": (6, ("power/data.npy",), _power),
    "Gas": (8, ("gas/ethylene_CO.csv",), _gas),
    "Hepmass": (21, ("hepmass/1000_train.csv", "hepmass/1000_test.csv"), _hepmass),
    "Miniboone": (43, ("miniboone/data.npy",), _miniboone),
    "Bsds300": (63, ("BSDS300/BSDS300.hdf5",), _bsds300),
}
"""Name -> features after preparation, files below `data`, and the function that prepares them."""
