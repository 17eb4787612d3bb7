"""Reads files of a results folder, and no others: whatever path is asked for, whatever links lead out of it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

SHOWN = {  # kinds of files that a browser may ask for, with their types
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".csv": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".npz": "application/octet-stream",
    ".parquet": "application/octet-stream",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not block the server
_SETTLED = 2.5  # seconds after which a folder's time tells a further change, on file systems that store whole seconds


class ConfinedFiles:
    """The files below one folder. All methods raise FileNotFoundError for a file outside it, missing or not."""

    def __init__(self, root: str | Path):
        self.given = Path(root)
        self.root = Path(os.path.realpath(root))

    def path(self, relative: str | Path) -> Path:
        """Return the real path of a file or folder; links may lead elsewhere inside the root only."""
        text = str(relative)
        if "\0" in text or any(part == ".." for part in Path(text).parts):
            raise FileNotFoundError(text)
        real = Path(os.path.realpath(self.root / text))
        if not real.is_relative_to(self.root):
            raise FileNotFoundError(text)
        return real

    def open(self, relative: str | Path, kinds: Collection[str]) -> BinaryIO:
        """Open a regular file whose name, and that of a link's target, ends in one of `kinds`; hidden files never."""
        real = self.path(relative)
        parts = (*Path(str(relative)).parts, *real.relative_to(self.root).parts)
        named = str(relative).endswith(tuple(kinds)) and real.name.endswith(tuple(kinds))
        if not named or any(part.startswith(".") for part in parts):
            raise FileNotFoundError(str(relative))
        try:
            descriptor = os.open(real, _OPEN)
        except OSError:
            raise FileNotFoundError(str(relative)) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(str(relative))
        return os.fdopen(descriptor, "rb")

    def tail(self, relative: str | Path, limit: int) -> str:
        """Return the end of a log, at most `limit` bytes from a whole line on; "" if there is none."""
        try:
            with self.open(relative, (".log",)) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - limit))
                data = file.read(limit)
        except FileNotFoundError:
            return ""
        if size > limit:
            data = data[data.find(b"\n") + 1 :]
        return data.decode(errors="replace")


class FolderListings:
    """The names in folders, read again only if a folder has changed."""

    def __init__(self, files: ConfinedFiles):
        self._files = files
        self._known: dict[str, tuple[int, frozenset[str]]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of the files in a folder, hidden ones included; none if it is missing or outside."""
        try:
            real = self._files.path(folder)
            changed = os.stat(real).st_mtime_ns
            known = self._known.get(folder)
            if known is None or known[0] != changed:
                known = (changed, frozenset(os.listdir(real)))
                if time.time() - changed / 1e9 > _SETTLED:
                    self._known[folder] = known
            return known[1]
        except OSError:
            return frozenset()
