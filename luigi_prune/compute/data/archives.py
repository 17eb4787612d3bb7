"""Archives of data sets: unpacked by one process, with its progress."""

from __future__ import annotations

import logging
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

log = logging.getLogger(__name__)

_Member = TypeVar("_Member")
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".zip")
_ERRORS = (tarfile.TarError, zipfile.BadZipFile, NotImplementedError)


def unpacked_from(needed: Iterable[Path]) -> Callable[[Path], None]:
    """Return a function that unpacks only the needed files of the archives in a folder.

    It raises RuntimeError if a needed file is in none of them; no such data set can be downloaded by a program.
    """
    wanted = tuple(needed)

    def fetch(folder: Path) -> None:
        for archive in sorted(path for path in folder.rglob("*") if path.name.endswith(_SUFFIXES)):
            unpack(archive, folder, wanted)
        missing = [path for path in wanted if not (folder / path).is_file()]
        if missing:
            raise RuntimeError(f"there is no {missing[0]}")

    return fetch


def unpack(archive: Path, folder: Path, wanted: Iterable[Path] | None = None) -> None:
    """Unpack the wanted files of an archive, or all, into `folder`; raises RuntimeError for a damaged archive."""
    names = None if wanted is None else {PurePosixPath(path.as_posix()) for path in wanted}
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder, names)
        else:
            _unpack_tar(archive, folder, names)
    except _ERRORS as error:
        raise RuntimeError(f"{archive.name} cannot be unpacked: {error}") from error


def _unpack_tar(archive: Path, folder: Path, names: set[PurePosixPath] | None) -> None:
    with open(archive, "rb") as file, tarfile.open(fileobj=file) as members:
        missing = set(names or ())
        for member in _with_progress(members, archive, file.tell):
            path = PurePosixPath(member.name)
            if names is None or path in names:
                members.extract(member, folder, filter="data")
                missing.discard(path)
            if names is not None and not missing:
                return


def _unpack_zip(archive: Path, folder: Path, names: set[PurePosixPath] | None) -> None:
    with zipfile.ZipFile(archive) as members:
        done = 0

        def position() -> int:
            return done

        for member in _with_progress(members.infolist(), archive, position):
            if names is None or PurePosixPath(member.filename) in names:
                members.extract(member, folder)
            done += member.compress_size


def _with_progress(members: Iterable[_Member], archive: Path, position: Callable[[], int]) -> Iterator[_Member]:
    """Yield the members; log every tenth of the archive."""
    size, logged = archive.stat().st_size, 0
    log.info("unpacking %s", archive.resolve())
    for member in members:
        yield member
        tenth = 10 * position() // max(size, 1)
        if tenth > logged:
            logged = tenth
            log.info("unpacking %s: %d %%", archive.resolve(), 10 * tenth)
