"""Claims: a small file beside each result that names the job computing it, written before the job is submitted.

    <folder>/.<result>.claim-<attempt>

The highest attempt is valid. The driver that creates its file submits the job; other drivers read there which job to
wait for. A job that a later attempt has superseded writes no result.

A claim is either that of a submission, whose job outlives its driver (SLURM), or that of a process, whose jobs end with
it (process_claims.py).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

_CLAIM = re.compile(r"\.(?P<result>.+)\.claim-\d+")
_END = re.compile(r"[0-9]+(\.[0-9a-f]+)?")  # of a claim's name: attempt, and the token of an unfinished one
_SUBMIT_SECONDS = 120.0  # by then, a driver on another machine has submitted its job or died


@dataclass(frozen=True)
class Claim:
    """A job that is submitted or about to be: number `index` of a submission; the fields of the JSON file."""

    folder: str  # of the submission, absolute; "": the process computes the result itself
    index: int
    attempt: int
    host: str
    pid: int
    born: str  # boot id and start time of the driver's process, which tell it from others with the same pid

    @property
    def name(self) -> str:
        """The submission's name, which is also the SLURM job's name."""
        return Path(self.folder).name

    @property
    def is_of_process(self) -> bool:
        """Whether the job ends with the process that made the claim."""
        return not self.folder

    @property
    def is_of_this_machine(self) -> bool:
        """Whether the process can be looked up from here: same host, boot and process namespace."""
        return self.host == socket.gethostname() and _machine(self.born) == _machine(process_identity(os.getpid()))


def claim_path(output: str | Path, attempt: int) -> Path:
    """Return the file of the claim to an attempt at `output`."""
    path = Path(output)
    return path.with_name(f".{path.name}.claim-{attempt}")


def newest(output: str | Path) -> Claim | None:
    """Return the valid claim to `output`; None if there is none."""
    return newest_and_last(output)[0]


def newest_and_last(output: str | Path) -> tuple[Claim | None, int]:
    """Return `newest` and `last_attempt` by one look at the folder."""
    attempts = sorted(_attempts(output), reverse=True)
    found = (read_claim(claim_path(output, attempt)) for attempt in attempts)
    return next((claim for claim in found if claim), None), attempts[0] if attempts else 0


def last_attempt(output: str | Path) -> int:
    """Return the highest attempt with a claim to `output`, damaged or not; 0 if there is none."""
    return max(_attempts(output), default=0)


def _attempts(output: str | Path) -> list[int]:
    numbers = [path.name.rpartition("-")[2] for path in _files(output)]
    return [int(number) for number in numbers if re.fullmatch("[0-9]+", number)]


def _files(output: str | Path) -> list[Path]:
    """Return the files of all claims to `output`, unfinished ones included."""
    folder, name = os.path.split(output)
    start = f".{name}.claim-"  # compared as text: a pattern per result would be compiled per result
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [Path(folder, name) for name in names if name.startswith(start) and _END.fullmatch(name, len(start))]


def read_claim(path: Path) -> Claim | None:
    """Return the claim in a file; None if the file is missing or damaged."""
    with suppress(OSError, ValueError, TypeError):
        claim = Claim(**json.loads(path.read_text()))
        if [type(value) for value in astuple(claim)] == [str, int, int, str, int, str]:
            return claim
    return None


def claimed(folder: str | Path) -> set[Path]:
    """Return the claimed results in `folder`, whether they exist or not."""
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    return {Path(folder) / match["result"] for name in names if (match := _CLAIM.fullmatch(name))}


def pending(outputs: Iterable[Path]) -> dict[Path, Claim]:
    """Return the valid claim to each missing one of `outputs`, if there is one; lists each folder once."""
    paths = list(outputs)
    known = {path for folder in {path.parent for path in paths} for path in claimed(folder)}
    found = ((path, newest(path)) for path in paths if path in known and not path.exists())
    return {path: claim for path, claim in found if claim is not None}


def claimed_result(path: Path) -> Path | None:
    """Return the result that the file at `path` claims; None if it is not a claim."""
    match = _CLAIM.fullmatch(path.name)
    return path.with_name(match["result"]) if match else None


def make_claim(output: str | Path, folder: str | Path, index: int, attempt: int) -> Claim | None:
    """Claim an attempt for this process and return the claim; None if it is claimed already."""
    path = str(claim_path(output, attempt))
    claim = Claim(str(folder), index, attempt, socket.gethostname(), os.getpid(), _own_identity(os.getpid()))
    private = f"{path}.{secrets.token_hex(4)}"
    try:
        _write(private, json.dumps(vars(claim)))
        return claim if _publish(private, path) else None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(private)


def _write(path: str, text: str) -> None:
    """Write a new file, and make its folder if it is missing."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with open(descriptor, "w") as file:
        file.write(text)


def _publish(private: str, path: str) -> bool:
    """Give a complete file its final name atomically; return False if that name exists."""
    try:
        os.link(private, path)
    except FileExistsError:
        return os.stat(private).st_nlink > 1  # True: our own link, retried by a network file system
    except OSError:  # no hard links: exclusive creation, whose content follows a moment later
        try:
            with open(path, "x") as file:
                file.write(Path(private).read_text())
        except FileExistsError:
            return False
    return True


def release(output: str | Path, attempt: int | None = None) -> None:
    """Remove every claim to `output`, or that to one attempt and the attempts before it."""
    for path in () if attempt == 1 else _files(output):
        number = path.name.rpartition(".claim-")[2].partition(".")[0]
        if attempt is None or int(number) < attempt:
            path.unlink(missing_ok=True)
    if attempt is not None:  # last: an earlier one must not become valid again
        claim_path(output, attempt).unlink(missing_ok=True)


def is_superseded(output: str | Path, attempt: int) -> bool:
    """Return whether somebody has claimed a later attempt at `output`."""
    return last_attempt(output) > attempt


def is_submitting(output: str | Path, claim: Claim) -> bool:
    """Return whether the driver that made a claim may still be about to submit its job."""
    if claim.host == socket.gethostname():
        return driver_is_alive(claim)
    with suppress(OSError):
        return time.time() - claim_path(output, claim.attempt).stat().st_mtime < _SUBMIT_SECONDS
    return False


def driver_is_alive(claim: Claim) -> bool:
    """Return whether the driver that made a claim runs on this machine."""
    return claim.host == socket.gethostname() and process_identity(claim.pid) == claim.born


def process_identity(pid: int) -> str:
    """Return machine (boot id and process namespace) and start time of process `pid`; "" if there is no such process.

    Two containers on one machine share a host name and a boot id at times, but no process ids.
    """
    if not os.path.isdir("/proc/self"):
        return _identity_from_ps(pid)
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if status[0] in "ZX":  # a zombie
            return ""
        return f"{_this_machine()}:{status[19]}"
    return ""


@cache
def _own_identity(pid: int) -> str:
    return process_identity(pid)


@cache
def _this_machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return boot


def _machine(identity: str) -> str:
    return identity.rpartition(":")[0]


def _identity_from_ps(pid: int) -> str:
    """Return the start time of a process where there is no /proc (macOS)."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        state, _, started = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.partition(" ")
        if started and not state.startswith("Z"):
            return "ps:" + "".join(character for character in started if character.isalnum())
    return ""
