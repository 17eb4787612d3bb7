"""Result files: one immutable HDF5 file per task, complete or absent, with a checksum verified on reading.

Layout: a 512-byte user block with the SHA-256 of all bytes after it, then plain HDF5 with one dataset per array,
the JSON texts `about/spec`, `about/provenance`, `about/meta`, the group `measured` and, written last, the attribute
`complete`. Booleans are packed bits; an array with many zeros is a group of its non-zero `values` and a bitmap of their
positions; all other arrays are contiguous.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import luigi
import numpy as np

from luigi_prune.errors import DamagedResult

FORMAT = "luigi_prune result"
SCHEMA_VERSION = 1
_USER_BLOCK = 512
_SPARSE_BYTES = 1024  # for smaller arrays the overhead exceeds the savings
_SPARSE_SHARE = 0.75  # share of non-zeros below which values and bitmap are smaller than the dense array
_READING = {"locking": False}  # immutable files need no lock, and some shared file systems do not support them


@dataclass(frozen=True)
class Result:
    """Contents of a result file. `measured` (seconds, bytes) is excluded from comparisons and content hashes."""

    family: str
    key: str
    spec: dict[str, Any]
    provenance: dict[str, Any]
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    measured: dict[str, np.ndarray] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays below `prefix/`, in order, with the prefix removed from their names."""
        start = prefix + "/"
        return {name[len(start) :]: array for name, array in self.arrays.items() if name.startswith(start)}


def content_sha256(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
    """Return the hash of a task's output: names, types, shapes and bytes of its arrays, and its metadata."""
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_result(
    path: str | Path,
    *,
    family: str,
    key: str,
    spec: Mapping[str, Any],
    provenance: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any] | None = None,
    measured: Mapping[str, Any] | None = None,
) -> bool:
    """Write a result to a temporary file and rename it when complete; the first writer wins.

    Returns False if an intact result already exists (same key, so same content: the new file is discarded).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    meta = dict(meta or {})
    temporary = temporary_name(path)
    try:
        with h5py.File(
            temporary, "x", libver=("v110", "v110"), userblock_size=_USER_BLOCK, track_order=True, locking=False
        ) as file:
            for name, array in arrays.items():
                _write_array(file, name, array)
            for name, value in (measured or {}).items():
                _write_array(file, f"measured/{name}", np.asarray(value))
            for name, text in (("spec", spec), ("provenance", provenance), ("meta", meta)):
                _write_array(file, f"about/{name}", np.asarray(json.dumps(text, sort_keys=True)))
            file.attrs["format"] = FORMAT
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs["family"] = family
            file.attrs["key"] = key
            file.attrs["content_sha256"] = content_sha256(arrays, meta)
            file.attrs["complete"] = 1
        _seal(temporary)
        return _move_into_place(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def read_result(path: str | Path) -> Result:
    """Return the verified contents of a result file.

    Raises FileNotFoundError, or DamagedResult if the checksum does not match.
    """
    path = Path(path)
    verify(path)
    try:
        with h5py.File(path, "r", **_READING) as file:
            arrays: dict[str, np.ndarray] = {}
            _read_arrays(file, "", arrays)
            measured = {name[9:]: arrays.pop(name) for name in list(arrays) if name.startswith("measured/")}
            about = {name: json.loads(str(arrays.pop(f"about/{name}"))) for name in ("spec", "provenance", "meta")}
            return Result(str(file.attrs["family"]), str(file.attrs["key"]), arrays=arrays, measured=measured, **about)
    except (OSError, KeyError, ValueError) as error:
        raise DamagedResult(path, str(error)) from error


def read_about(path: str | Path) -> dict[str, Any]:
    """Return family, key, spec, provenance, meta and content hash of a result, unverified, without its arrays."""
    with h5py.File(path, "r", **_READING) as file:
        about = {name: json.loads(file[f"about/{name}"].asstr()[()]) for name in ("spec", "provenance", "meta")}
        return about | {name: str(file.attrs[name]) for name in ("family", "key", "content_sha256")}


def read_measured(path: str | Path) -> dict[str, float]:
    """Return the measured numbers (seconds, bytes) of a result, unverified."""
    with h5py.File(path, "r", **_READING) as file:
        values = {name: np.asarray(dataset) for name, dataset in file.get("measured", {}).items() if dataset.ndim == 0}
    return {name: float(value) for name, value in values.items() if value.dtype.kind in "iuf"}


def verify(path: str | Path) -> None:
    """Verify the checksum in the file's user block; raises DamagedResult or FileNotFoundError."""
    path = Path(path)
    with path.open("rb") as file:
        block = file.read(_USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
    if not block.startswith(FORMAT.encode()):
        raise DamagedResult(path, "not a luigi_prune result, or its header is damaged")
    if block != _user_block(digest.hexdigest()):
        raise DamagedResult(path, "checksum mismatch")


def set_aside(path: str | Path) -> Path:
    """Rename a damaged file, to free its path without deleting it, and return the new path."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.corrupt.{time.strftime('%Y%m%dT%H%M%S')}.{secrets.token_hex(2)}")
    os.rename(path, aside)
    return aside


def temporary_name(path: Path) -> Path:
    """Return a unique temporary path beside `path`, with the writer's host and process id in its name."""
    return path.with_name(f".{path.name}.tmp.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}")


class HDF5Target(luigi.Target):
    """A result as a Luigi target; it exists only if complete, since files are renamed last."""

    def __init__(self, path: str | Path):
        self.path = str(path)

    def exists(self) -> bool:
        """Return whether the result file exists (one `stat`)."""
        return os.path.exists(self.path)


def _write_array(file: h5py.File, name: str, array: np.ndarray) -> None:
    folder, _, leaf = name.rpartition("/")
    group = _ordered_group(file, folder)
    if array.dtype.kind in "UO":
        group.create_dataset(leaf, data=array.astype(object), dtype=h5py.string_dtype())
    elif array.dtype == bool and array.ndim:
        _write_bits(group, leaf, array)
    elif _mostly_zeros(array):
        nonzero = _bit_pattern(array) != 0  # bitwise, to keep negative zeros
        sparse = group.create_group(leaf, track_order=True)
        sparse.attrs["sparse"] = True
        _write_bits(sparse, "nonzero", nonzero)
        sparse.create_dataset("values", data=array[nonzero])
    else:
        group.create_dataset(leaf, data=array)


def _ordered_group(file: h5py.File, folder: str) -> h5py.Group:
    group: h5py.Group = file
    for part in filter(None, folder.split("/")):
        group = group[part] if part in group else group.create_group(part, track_order=True)
    return group


def _mostly_zeros(array: np.ndarray) -> bool:
    if array.nbytes < _SPARSE_BYTES or array.dtype.kind not in "fiu":
        return False
    return bool(np.count_nonzero(array) < _SPARSE_SHARE * array.size)


def _bit_pattern(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _write_bits(group: h5py.Group, leaf: str, array: np.ndarray) -> None:
    packed = np.packbits(array.reshape(-1))
    options: dict[str, Any] = (
        {"compression": "gzip", "compression_opts": 4, "chunks": packed.shape} if packed.nbytes >= _SPARSE_BYTES else {}
    )
    dataset = group.create_dataset(leaf, data=packed, **options)
    dataset.attrs["packed_shape"] = np.asarray(array.shape, dtype=np.int64)


def _read_arrays(group: h5py.Group, prefix: str, arrays: dict[str, np.ndarray]) -> None:
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            arrays[prefix + name] = _read_array(item)
        elif "sparse" in item.attrs:
            nonzero, values = _read_array(item["nonzero"]), _read_array(item["values"])
            array = np.zeros(nonzero.shape, dtype=values.dtype)
            array[nonzero] = values
            arrays[prefix + name] = array
        else:
            _read_arrays(item, f"{prefix}{name}/", arrays)


def _read_array(dataset: h5py.Dataset) -> np.ndarray:
    if h5py.check_string_dtype(dataset.dtype):
        return np.array(dataset.asstr()[()], dtype=str)
    if "packed_shape" in dataset.attrs:
        shape = tuple(int(size) for size in dataset.attrs["packed_shape"])
        return np.unpackbits(dataset[()], count=math.prod(shape)).astype(bool).reshape(shape)
    return np.asarray(dataset[()])


def _user_block(digest: str) -> bytes:
    return f"{FORMAT}\nsha256 of all bytes behind these {_USER_BLOCK}: {digest}\n".encode().ljust(_USER_BLOCK, b"\0")


def _digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(_USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
        file.seek(0)
        file.write(_user_block(digest.hexdigest()))
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
        written = True
    except FileExistsError:
        try:
            verify(path)
            written = False
        except DamagedResult:
            set_aside(path)
            os.replace(temporary, path)
            written = True
    except OSError:  # file system without hard links
        os.replace(temporary, path)
        written = True
    sync_folder(path.parent)
    return written


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
