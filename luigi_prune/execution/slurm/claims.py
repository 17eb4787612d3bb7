"""Who computes a result: a small file beside the target, written before its job is submitted.

    <folder>/.<result>.claim-<attempt>

The highest attempt counts. Whoever creates it owns the job; everybody else finds out there which job to wait for. The
job itself looks as well: one that has been superseded ends without touching anything.
"""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

_CLAIM = re.compile(r"\.(?P<result>.+)\.claim-\d+")
_FORGET_SECONDS = 120.0  # a driver on another machine has submitted by then, or died


@dataclass(frozen=True)
class Claim:
    """A job that is, or is about to be, in SLURM's hands: element `index` of a submission."""

    folder: str  # of the submission, absolute
    index: int
    attempt: int
    host: str
    pid: int
    born: str  # boot and start time of the driver's process, which its pid alone does not identify

    @property
    def name(self) -> str:
        """The submission's name, which is the SLURM job's name, too."""
        return Path(self.folder).name


def claim_path(output: str | Path, attempt: int) -> Path:
    """Return where an attempt at making `output` is claimed."""
    path = Path(output)
    return path.with_name(f".{path.name}.claim-{attempt}")


def newest(output: str | Path) -> Claim | None:
    """Return who computes `output`; None where nobody does."""
    for attempt in sorted(_attempts(output), reverse=True):
        if claim := read(claim_path(output, attempt)):
            return claim
    return None


def last_attempt(output: str | Path) -> int:
    """Return the number of the last attempt at making `output`, readable or not; 0 where there was none."""
    return max(_attempts(output), default=0)


def _attempts(output: str | Path) -> list[int]:
    numbers = [path.name.rpartition("-")[2] for path in _files(output)]
    return [int(number) for number in numbers if re.fullmatch("[0-9]+", number)]


def _files(output: str | Path) -> list[Path]:
    """Return the claims to `output`, and what is about to become one."""
    path = Path(output)
    exact = re.compile(rf"\.{re.escape(path.name)}\.claim-[0-9]+(\.[0-9a-f]+)?")
    found = path.parent.glob(f".{glob.escape(path.name)}.claim-*")
    return [path for path in found if exact.fullmatch(path.name)]


def read(path: Path) -> Claim | None:
    """Return the claim in a file; None where it went away, or somebody damaged it."""
    with suppress(OSError, ValueError, TypeError):
        claim = Claim(**json.loads(path.read_text()))
        if [type(value) for value in astuple(claim)] == [str, int, int, str, int, str]:
            return claim
    return None


def claimed(folder: str | Path) -> set[Path]:
    """Return the results in `folder`, there or not, that have a claim."""
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    return {Path(folder) / match["result"] for name in names if (match := _CLAIM.fullmatch(name))}


def claimed_result(path: Path) -> Path | None:
    """Return the result that the file at `path` claims; None where it is no claim."""
    match = _CLAIM.fullmatch(path.name)
    return path.with_name(match["result"]) if match else None


def stake(output: str | Path, folder: str | Path, index: int, attempt: int) -> Claim | None:
    """Return this process's claim to an attempt; None where somebody else was faster."""
    path = claim_path(output, attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = Claim(str(folder), index, attempt, socket.gethostname(), os.getpid(), _born(os.getpid()))
    private = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        private.write_text(json.dumps(asdict(claim)))
        return claim if _make(path, private) else None
    finally:
        private.unlink(missing_ok=True)


def _make(path: Path, private: Path) -> bool:
    """Give a file that is written already its final name; return False where another one has that name."""
    try:
        os.link(private, path)
    except FileExistsError:
        return os.stat(private).st_nlink > 1  # a network file system that was asked twice: it was us
    except OSError:  # no hard links here: exclusive creation does it too, only less neatly
        try:
            with open(path, "x") as file:
                file.write(private.read_text())
        except FileExistsError:
            return False
    return True


def release(output: str | Path) -> None:
    """Remove every claim to `output`."""
    for found in _files(output):
        found.unlink(missing_ok=True)


def is_submitting(output: str | Path, claim: Claim) -> bool:
    """Return whether the driver that made a claim may still be about to submit its job."""
    if claim.host == socket.gethostname():
        return is_driven(claim)
    with suppress(OSError):
        return time.time() - claim_path(output, claim.attempt).stat().st_mtime < _FORGET_SECONDS
    return False


def is_driven(claim: Claim) -> bool:
    """Return whether the driver that made a claim runs on this machine."""
    return claim.host == socket.gethostname() and _born(claim.pid) == claim.born


def _born(pid: int) -> str:
    """Return what tells process `pid` from others of that number; "" where there is none."""
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if status[0] in "ZX":  # dead, and nobody has asked how it ended
            return ""
        started = status[19]
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + ":" + started
    return ""
