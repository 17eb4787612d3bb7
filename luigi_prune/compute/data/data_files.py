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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luigi_prune.compute.data.archives import unpack
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
    source: str = ""  # for people who have to get the archives

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


@dataclass(frozen=True)
class DataFolder:
    """A folder of many files, such as images; all paths are relative to the data folder."""

    name: str
    path: Path
    archives: tuple[Path, ...]  # any of which contains the folder
    source: str
    beside: tuple[Path, ...] = ()  # other files of the archives, unpacked if they are there


def folder_root(folder: DataFolder, training_data: str, local_data: str) -> Path:
    """Return the data folder to read from: the local one, unpacked from an archive if there is one, or the shared one.

    A folder that lies unpacked among the training data is read there: a copy file by file may take hours. Raises
    ConfigError if there is neither.
    """
    shared = Path(training_data).expanduser()
    local = Path(local_data).expanduser() if local_data else shared
    if (local / folder.path).is_dir():
        return local
    archive = next((shared / each for each in folder.archives if (shared / each).is_file()), None)
    if archive is not None:
        target = local if _writable(local) else shared
        if not (target / folder.path).is_dir():
            _unpack_folder(folder, archive, target)
        return target
    if (shared / folder.path).is_dir():
        return shared
    names = " or ".join(map(str, folder.archives))
    raise ConfigError(
        f"directories.training_data: {folder.name} is not in {shared}: there is neither the folder {folder.path} nor "
        f"{names or 'an archive of it'}; get it from {folder.source} and put it there"
    )


def found_root(needed: Iterable[Path], *folders: str) -> Path | None:
    """Return the last of the folders that has all needed files, None if there is none."""
    paths = tuple(needed)
    roots = [Path(folder).expanduser() for folder in reversed(folders) if folder]
    return next((root for root in roots if all((root / path).is_file() for path in paths)), None)


def _unpack_folder(folder: DataFolder, archive: Path, target: Path) -> None:
    """Unpack the archive in a temporary folder in `target`, and move the folder to its path when it is whole."""
    try:
        with _lock(target, folder.name):
            if (target / folder.path).is_dir():
                return
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=target) as temporary:
                unpack(archive, Path(temporary))
                if not Path(temporary, folder.path).is_dir():
                    raise RuntimeError(f"it has no folder {folder.path}")
                for path in (*folder.beside, folder.path):
                    if Path(temporary, path).exists() and not (target / path).exists():
                        (target / path).parent.mkdir(parents=True, exist_ok=True)
                        os.replace(Path(temporary, path), target / path)
    except (RuntimeError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{archive}: cannot be unpacked into {target} ({reason})") from error


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
            f"put {', '.join(map(str, files.archives))} there{f', from {files.source}' if files.source else ''}"
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
