"""Whether results can be written, and the line that says why not: disk full, quota used up, not permitted."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

_ROOM = 1 << 20  # bytes that have to be free; a full disk has a few
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = tuple(os.strerror(code) for code in (*_FULL, errno.EROFS))


def write_problem(folder: Path, room: int = _ROOM) -> str:
    """Return why files cannot be written to a folder, in one line; "" if they can. Makes a missing folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(room))
            file.flush()
    except OSError as error:
        return cannot_write(folder, error.strerror or str(error))
    return ""


def full_disk(error: BaseException, path: str | Path) -> str:
    """Return the line for an error that says that a disk is full or read-only; "" for other errors.

    Libraries such as HDF5 and torch put the reason into their messages only. `path`: that of the result.
    """
    if isinstance(error, OSError) and error.errno in (*_FULL, errno.EROFS):
        name = error.filename if isinstance(error.filename, str) else path
        return cannot_write(Path(name), os.strerror(error.errno or 0))
    if isinstance(error, OSError | RuntimeError):
        reason = next((reason for reason in _REASONS if reason in str(error)), "")
        return cannot_write(Path(path), reason) if reason else ""
    return ""


def cannot_write(path: Path, reason: str) -> str:
    """Return "cannot write to PATH: REASON (... MiB are free)"."""
    existing = next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(existing).free / 2**20
    return f"cannot write to {path}: {reason} ({free:,.1f} MiB are free)"
