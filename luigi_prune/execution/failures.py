"""Why a job has failed: a small file beside the missing result, for commands that run later, on any machine."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_CHARACTERS = 20_000  # of a message, from its end


@dataclass(frozen=True)
class Failure:
    """The last failure of a job that is not tried any more; the fields of the JSON file."""

    message: str
    log: str = ""

    @property
    def line(self) -> str:
        """The cause in one line: the last one of a traceback, else the first one."""
        return cause(self.message) or "no message"


def cause(message: str) -> str:
    """Return the line of a failure that says most: the last of a traceback, else the first; "" if there is none."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith("log: ")]
    if not lines:
        return ""
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def failure_file(output: str | Path) -> Path:
    """Return the path of the failure of the job that writes `output`."""
    path = Path(output)
    return path.with_name(f".{path.name}.failed")


def record_failure(output: str | Path, message: str, log: str) -> None:
    """Write down why a job has failed; does nothing if that cannot be written."""
    path = failure_file(output)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(Failure(message[-_CHARACTERS:], log))))


def clear_failure(output: str | Path) -> None:
    """Forget the failure of a job, which is tried again."""
    with suppress(OSError):
        failure_file(output).unlink()


def read_failure(output: str | Path) -> Failure | None:
    """Return the failure of a job; None if there is none, or its file is damaged."""
    try:
        return Failure(**json.loads(failure_file(output).read_text()))
    except (OSError, ValueError, TypeError):
        return None
