"""The standard library's fork server with torch preloaded: a new process takes milliseconds, not seconds.

`multiprocessing.Process` is not used on the driver's side, for two reasons: it would run the driver's main module again
in every job (the `luigi` script, or a user's script without the `__main__` guard), and its `start` blocks until the
server has finished its imports.

This uses private names of `multiprocessing.forkserver` (`_forkserver_pid`, `_forkserver_alive_fd`, `_stop`), the data
sent to its processes and `Process._bootstrap`. All tests pass on `TESTED_PYTHONS`; on other versions, `fresh_server.py`
starts the processes. 3.14 is not among them: its driver authenticates to the server, and so blocks in
`connect_to_new_process` until the server has finished its imports.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver, process, resource_tracker
from typing import Any

TESTED_PYTHONS = ((3, 10), (3, 11), (3, 12), (3, 13))
_NUMBER = struct.Struct("q")  # as the standard library's fork server writes process ids and exit codes
_open_servers: weakref.WeakSet[WarmServer] = weakref.WeakSet()


@dataclass(eq=False)
class Child:
    """The driver's handle of a process requested from the fork server."""

    status_fd: int  # from the server: the process id, then the exit code
    lifeline_fd: int  # not written after the start; its end of file tells the child that the driver has ended
    messages: connection.Connection  # from the child
    pid: int | None = None  # None until the server has forked it
    exit_code: int | None = None  # as in subprocess: -9 for SIGKILL
    ended: bool = False
    messages_ended: bool = False  # no more messages
    closed: bool = False

    def read_status(self) -> None:
        """Read the process id or the exit code; call it when `status_fd` is readable."""
        try:
            number = _read_number(self.status_fd)
        except (EOFError, OSError):
            self.kill()  # the server has died, so the end of this process would not be reported
            self.ended = True
            return
        if self.pid is None:
            self.pid = number
        else:
            self.exit_code = number
            self.kill()  # kills the rest of its group: data loader workers
            self.ended = True

    def terminate(self) -> None:
        """Send SIGTERM: save and stop."""
        if self.pid is not None and not self.ended:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and its group."""
        if self.pid is not None and not self.ended:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                if self.exit_code is None:  # its group does not exist yet
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the pipes; a process that still runs, or is not forked yet, then ends by itself."""
        if self.closed:
            return
        self.ended = self.messages_ended = self.closed = True
        self.messages.close()
        os.close(self.lifeline_fd)
        os.close(self.status_fd)


class WarmServer:
    """One fork server, started by `start`, and again by `launch` if it has died."""

    def __init__(self, preload: Sequence[str] = ("luigi_prune.execution.preload",)):
        self._preload = list(preload)
        self._server = self._new_server()
        _open_servers.add(self)

    def start(self) -> None:
        """Start the server unless it runs; returns before its imports are done.

        Blocks SIGINT in the calling thread, which must not be the main one. The server inherits the mask, so that only
        the driver handles Ctrl-C, even while a Python starts.
        """
        resource_tracker.ensure_running()  # else the server's start does it, which unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._server.ensure_running()
        except ChildProcessError:  # other code of this process has waited for the dead server
            self._server = self._new_server()
            self._server.ensure_running()

    def launch(self, start: Any) -> Child:
        """Return a new process that calls `start._bootstrap(sentinel)`; `start` is pickled.

        Returns before the process exists. In it the write end of `Child.messages` is the first inherited descriptor.
        """
        reader, writer = connection.Pipe(duplex=False)
        try:
            self.start()
            try:
                status_fd, lifeline_fd = self._server.connect_to_new_process([writer.fileno()])
            except (ConnectionError, FileNotFoundError):  # it is ending, which `start` may not detect
                self.stop()
                self.start()
                status_fd, lifeline_fd = self._server.connect_to_new_process([writer.fileno()])
        except BaseException:
            reader.close()
            raise
        finally:
            writer.close()
        child = Child(status_fd, lifeline_fd, reader)
        with suppress(OSError):  # the server has died, as `status_fd` will show
            write_all(lifeline_fd, pickle.dumps(_preparation(start)) + pickle.dumps(start))
        return child

    def stop(self) -> None:
        """End the server and wait for it; its children must have ended or been closed."""
        with suppress(ProcessLookupError, ChildProcessError):
            if self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)  # it has no state to save, and may be in the middle of an import
            self._server._stop()  # type: ignore[attr-defined]

    @property
    def pid(self) -> int | None:
        """The server's process id, None before its start."""
        return getattr(self._server, "_forkserver_pid", None)

    def _new_server(self) -> forkserver.ForkServer:
        server = forkserver.ForkServer()
        server.set_forkserver_preload(self._preload)
        return server

    def forget(self) -> None:
        """In a fork of the driver, close the pipe that keeps the server alive: it must end with the driver."""
        alive_fd = getattr(self._server, "_forkserver_alive_fd", None)
        self._server = self._new_server()
        if alive_fd is not None:
            with suppress(OSError):
                os.close(alive_fd)


def _preparation(start: Any) -> dict[str, Any]:
    """Return the data that the standard library sends to a new process, without the driver's main module."""
    sys_path = [process.ORIGINAL_DIR if entry == "" else entry for entry in sys.path]  # type: ignore[attr-defined]
    return {"name": start.name, "sys_path": sys_path, "dir": os.getcwd()}


def write_number(descriptor: int, number: int) -> None:
    """Write a process id or an exit code for `Child.read_status`."""
    write_all(descriptor, _NUMBER.pack(number))


def _read_number(descriptor: int) -> int:
    data = b""
    while len(data) < _NUMBER.size:
        part = os.read(descriptor, _NUMBER.size - len(data))
        if not part:
            raise EOFError
        data += part
    number: int = _NUMBER.unpack(data)[0]
    return number


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` to a pipe."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _forget_servers() -> None:
    for server in list(_open_servers):
        server.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
