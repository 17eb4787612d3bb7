"""The files of a data set: download to the shared folder, and a fast local copy.

Several processes may need the same files at once. Every file is written under a temporary name and renamed when it is
complete, and a lock keeps processes from repeating each other's work; on a file system without locks it is repeated.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luigi_prune.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataFiles:
    """The files of a data set; all paths are relative to the data folder."""

    name: str
    folder: Path
    needed: tuple[Path, ...]
    archives: tuple[Path, ...]  # which the needed files are unpacked from, if present
    fetch: Callable[[Path], object]  # unpacks or downloads the needed files into a folder

    def complete(self, root: Path) -> bool:
        """Return whether all needed files are in `root`."""
        return all((root / path).is_file() for path in self.needed)


def data_root(files: DataFiles, training_data: str, local_data: str) -> Path:
    """Return the folder to read from: the local copy if one can be made, else the shared folder.

    Missing files are downloaded; raises ConfigError naming the folder if that fails.
    """
    shared = Path(training_data).expanduser()
    local = Path(local_data).expanduser() if local_data else shared
    if files.complete(local):
        return local
    if not files.complete(shared):
        target = shared if _writable(shared) else local
        _fetch(files, archives=shared, target=target)
        if target == local:
            return local
    if local.resolve() == shared.resolve():
        return shared
    try:
        _copy(files, shared, local)
    except OSError as error:  # the copy only saves time
        log.warning("no local copy of %s in %s (%s); reading from %s", files.name, local, error, shared)
        return shared
    return local


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _fetch(files: DataFiles, archives: Path, target: Path) -> None:
    """Unpack or download the files in a temporary folder in `target`, and move each to its path."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _lock(target, files.name):
            if files.complete(target):
                return
            with tempfile.TemporaryDirectory(prefix=f".{files.name}-", dir=target) as temporary:
                for archive in files.archives:
                    if (archives / archive).is_file():
                        link = Path(temporary, archive)
                        link.parent.mkdir(parents=True, exist_ok=True)
                        link.symlink_to((archives / archive).resolve())
                files.fetch(Path(temporary))
                for path in files.needed:
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(temporary, path), target / path)
    except (RuntimeError, OSError, EOFError) as error:  # no network, a damaged archive, a full disk
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"directories.training_data: {files.name} is not in {archives} and cannot be downloaded ({reason}); "
            f"put {', '.join(map(str, files.archives))} there"
        ) from error


def _copy(files: DataFiles, source: Path, target: Path) -> None:
    """Copy the needed files to `target`, each under a temporary name first."""
    target.mkdir(parents=True, exist_ok=True)
    with _lock(target, files.name):
        if files.complete(target):
            return
        for path in files.needed:
            final = target / path
            final.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{final.name}-", dir=final.parent)
            os.close(handle)
            try:
                shutil.copyfile(source / path, temporary)
                os.chmod(temporary, 0o644)  # mkstemp's mode is 0600, but other users of the node read the copy, too
                os.replace(temporary, final)
            finally:
                Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock for data set `name` in `folder`; continue without it if locks are not supported."""
    import fcntl  # not on every platform, and only needed here

    with open(folder / f".{name}.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        yield
