"""Who computes a result: a small file beside the target, written before its job is submitted.

    <folder>/.<result>.claim-<attempt>

The highest attempt counts. Whoever creates it owns the job; everybody else finds out there which job to wait for. The
job itself looks as well: one that has been superseded ends without touching anything.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
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
    path = Path(output)
    attempts = []
    for found in path.parent.glob(f".{path.name}.claim-*"):
        number = found.name.rpartition("-")[2]
        if number.isdigit():
            attempts.append(int(number))
    for attempt in sorted(attempts, reverse=True):
        with suppress(OSError, ValueError, TypeError):  # it went away, or somebody damaged it
            return Claim(**json.loads(claim_path(output, attempt).read_text()))
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
    private.write_text(json.dumps(asdict(claim)))
    try:
        os.link(private, path)
    except FileExistsError:
        return None
    except OSError:  # no hard links here: exclusive creation does it too, only less neatly
        try:
            with open(path, "x") as file:
                file.write(json.dumps(asdict(claim)))
        except FileExistsError:
            return None
    finally:
        private.unlink(missing_ok=True)
    return claim


def release(output: str | Path) -> None:
    """Remove every claim to `output`."""
    path = Path(output)
    for found in path.parent.glob(f".{path.name}.claim-*"):
        found.unlink(missing_ok=True)


def is_submitting(output: str | Path, claim: Claim) -> bool:
    """Return whether the driver that made a claim may still be about to submit its job."""
    if claim.host == socket.gethostname():
        return _born(claim.pid) == claim.born
    with suppress(OSError):
        return time.time() - claim_path(output, claim.attempt).stat().st_mtime < _FORGET_SECONDS
    return False


def _born(pid: int) -> str:
    """Return what tells process `pid` from others of that number; "" where there is none."""
    with suppress(OSError, IndexError):
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + ":" + started
    return ""
