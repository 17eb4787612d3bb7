"""Where a data set's files lie: the shared folder, its fast local copy, and how they come there.

Several processes may want the same files at once. Every file appears under its name only when it is whole (written
beside, then renamed), and a lock keeps the others from doing the same work; where a file system has no locks, the
work is only done twice.
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
    """The files of a data set: all paths are relative to the data folder."""

    name: str
    folder: Path
    needed: tuple[Path, ...]
    archives: tuple[Path, ...]  # what the needed files are unpacked from, if it lies there already
    fetch: Callable[[Path], object]  # puts the needed files below a folder: unpacks the archives or downloads them

    def complete(self, root: Path) -> bool:
        """Return whether every needed file lies below `root`."""
        return all((root / path).is_file() for path in self.needed)


def data_root(files: DataFiles, training_data: str, local_data: str) -> Path:
    """Return the folder to read from: the local copy where there can be one, else the shared folder.

    Files that lie nowhere are downloaded; raises ConfigError naming the folder where that fails.
    """
    shared = Path(training_data).expanduser()
    local = Path(local_data).expanduser() if local_data else shared
    if files.complete(local):
        return local
    if not files.complete(shared):
        into = shared if _writable(shared) else local
        _fetch(files, archives=shared, into=into)
        if into == local:
            return local
    if local.resolve() == shared.resolve():
        return shared
    try:
        _copy(files, shared, local)
    except OSError as error:  # the copy is for speed only
        log.warning("no local copy of %s in %s (%s); reading from %s", files.name, local, error, shared)
        return shared
    return local


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _fetch(files: DataFiles, archives: Path, into: Path) -> None:
    """Unpack or download the files in a private folder below `into` and move each into its place."""
    wanted = f"directories.training_data: {files.name} is not in {archives}"
    try:
        into.mkdir(parents=True, exist_ok=True)
        with _lock(into, files.name):
            if files.complete(into):
                return
            with tempfile.TemporaryDirectory(prefix=f".{files.name}-", dir=into) as private:
                for archive in files.archives:
                    if (archives / archive).is_file():
                        target = Path(private, archive)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.symlink_to((archives / archive).resolve())
                files.fetch(Path(private))
                for path in files.needed:
                    (into / path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(private, path), into / path)
    except (RuntimeError, OSError, EOFError) as error:  # no network, a damaged archive, a full disk
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{wanted} and cannot be downloaded ({reason}); put {', '.join(map(str, files.archives))} there"
        ) from error


def _copy(files: DataFiles, source: Path, target: Path) -> None:
    """Copy the needed files to `target`, each under a private name first."""
    target.mkdir(parents=True, exist_ok=True)
    with _lock(target, files.name):
        if files.complete(target):
            return
        for path in files.needed:
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, private = tempfile.mkstemp(prefix=f".{place.name}-", dir=place.parent)
            os.close(handle)
            try:
                shutil.copyfile(source / path, private)
                os.chmod(private, 0o644)  # mkstemp's are for the owner only, and others share the node
                os.replace(private, place)
            finally:
                Path(private).unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock for data set `name` in `folder`; goes on without it where locks are not supported."""
    import fcntl  # not on every platform, and only needed here

    with open(folder / f".{name}.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        yield
