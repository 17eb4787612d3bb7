"""Archives of data files."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath


def unpack(folder: Path, archive: Path, needed: tuple[Path, ...], source: str = "") -> None:
    """Unpack the needed files from `archive` in `folder`, and nothing else.

    Raises RuntimeError for an archive that is missing, which says that it comes from `source`, damaged, or has not all.
    """
    if not (folder / archive).is_file():
        raise RuntimeError(f"{', '.join(map(str, needed))} is part of {archive}{f', see {source}' if source else ''}")
    missing = {path.as_posix() for path in needed}
    try:
        with tarfile.open(folder / archive) as members:
            for member in members:
                if (name := PurePosixPath(member.name).as_posix()) in missing and member.isfile():
                    member.name = name
                    members.extract(member, folder, filter="data")
                    missing.discard(name)
    except tarfile.TarError as error:
        raise RuntimeError(f"{archive} is damaged: {error}") from error
    if missing:
        raise RuntimeError(f"{archive} has no {', '.join(sorted(missing))}")
