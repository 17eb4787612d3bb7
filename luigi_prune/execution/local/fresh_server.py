"""A new Python for every process of a job: for versions of Python whose fork server is not tested with this package.

It has the methods of `WarmServer`, uses no private name of the standard library, and costs each job the seconds that
importing torch takes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import connection
from typing import TYPE_CHECKING

from luigi_prune.execution.local.fork_server import Child, write_all, write_number

if TYPE_CHECKING:
    from luigi_prune.execution.local.child import ChildStart

# sys.path must be the driver's before anything of this package is imported; the end of the pipe is the driver's end
_CODE = """
import json, os, sys
line = b""
while not line.endswith(b"\\n"):
    part = os.read({lifeline}, 65536)
    if not part:
        sys.exit(0)
    line += part
told = json.loads(line)
sys.path[:] = told["path"]
os.chdir(told["directory"])
from luigi_prune.execution.local.fresh_server import main
main(told["start"], {messages}, {lifeline})
"""


class FreshServer:
    """Starts processes that import everything for themselves."""

    def start(self) -> None:
        """Block SIGINT in the calling thread, from which the processes inherit that: a Ctrl-C is the driver's."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def stop(self) -> None:
        """Do nothing: there is no server."""

    def launch(self, start: ChildStart) -> Child:
        """Return a new process that runs a job; in it the lifeline tells of the driver's end."""
        reader, writer = connection.Pipe(duplex=False)
        lifeline_read, lifeline = os.pipe()
        status_read, status = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE.format(lifeline=lifeline_read, messages=writer.fileno())],
                pass_fds=(lifeline_read, writer.fileno()),
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            reader.close()
            for descriptor in (lifeline, status_read, status):
                os.close(descriptor)
            raise
        finally:
            writer.close()
            os.close(lifeline_read)
        write_number(status, process.pid)
        threading.Thread(target=_wait, args=(process, status), name=f"waits for {process.pid}", daemon=True).start()
        told = {"start": asdict(start), "path": sys.path, "directory": os.getcwd()}
        with suppress(OSError):  # it has died, which `status_fd` tells
            write_all(lifeline, json.dumps(told).encode() + b"\n")
        return Child(status_read, lifeline, reader)


def _wait(process: subprocess.Popen[bytes], status: int) -> None:
    """Write the exit code of a process to `status` when it has ended."""
    code = process.wait()
    with suppress(OSError):  # nobody asks any more
        write_number(status, code)
    os.close(status)


def main(start: dict[str, object], messages: int, lifeline: int) -> None:
    """Run a job in this new process."""
    from luigi_prune.execution.local.child import ChildStart, run_process

    run_process(ChildStart(**start), connection.Connection(messages, readable=False), lifeline)  # type: ignore[arg-type]
