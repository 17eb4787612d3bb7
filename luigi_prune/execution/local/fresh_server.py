"""A new Python for every process of a job, for versions of Python on which the fork server is not tested.

Same methods as `WarmServer`, without private names of the standard library; each job takes seconds to import torch.
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

# sys.path must be set before this package is imported; the pipe ends when the driver does
_CODE = """
import json, os, sys
line = b""
while not line.endswith(b"\\n"):
    part = os.read({lifeline}, 65536)
    if not part:
        sys.exit(0)
    line += part
message = json.loads(line)
sys.path[:] = message["path"]
os.chdir(message["directory"])
from luigi_prune.execution.local.fresh_server import main
main(message["start"], {messages}, {lifeline})
"""


class FreshServer:
    """Starts processes that import all their modules."""

    def start(self) -> None:
        """Block SIGINT in the calling thread; processes inherit the mask, so that only the driver handles Ctrl-C."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def stop(self) -> None:
        """Do nothing: there is no server."""

    def launch(self, start: ChildStart) -> Child:
        """Return a new process that runs a job; its lifeline is readable once the driver has ended."""
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
        threading.Thread(
            target=_report_exit, args=(process, status), name=f"waits for {process.pid}", daemon=True
        ).start()
        message = {"start": asdict(start), "path": sys.path, "directory": os.getcwd()}
        with suppress(OSError):  # it has died, as `status_fd` will show
            write_all(lifeline, json.dumps(message).encode() + b"\n")
        return Child(status_read, lifeline, reader)


def _report_exit(process: subprocess.Popen[bytes], status: int) -> None:
    """Wait for a process and write its exit code to `status`."""
    code = process.wait()
    with suppress(OSError):  # the reader has closed it
        write_number(status, code)
    os.close(status)


def main(start: dict[str, object], messages: int, lifeline: int) -> None:
    """Run a job in this new process."""
    from luigi_prune.execution.local.child import ChildStart, run_process

    run_process(ChildStart(**start), connection.Connection(messages, readable=False), lifeline)  # type: ignore[arg-type]
