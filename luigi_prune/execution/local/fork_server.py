"""A fork server of the standard library with torch preloaded: a new process costs milliseconds, not seconds.

`multiprocessing.Process` is not used on the driver's side, for two reasons: it would run the driver's main module again
in every job (the `luigi` script, or a user's script without the `__main__` guard), and its `start` blocks until the
server has finished its imports.

This leans on private names of `multiprocessing.forkserver` (`_forkserver_pid`, `_forkserver_alive_fd`, `_stop`), on
what its processes are sent and on `Process._bootstrap`. `TESTED_PYTHONS` are the versions that all tests have passed
on; on others `fresh_server.py` starts the processes. 3.14 is not among them: there the driver proves to the server
that it knows a key, and waits in `connect_to_new_process` until the server has finished its imports.
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
    """A process that the fork server was asked for, as the driver sees it."""

    status_fd: int  # the server writes the process's id here and, when it has ended, its exit code
    lifeline_fd: int  # never written after the start; its end of file tells the child that the driver is gone
    messages: connection.Connection  # what the child says
    pid: int | None = None  # None until the server has forked it
    exit_code: int | None = None  # as in subprocess: -9 for SIGKILL
    ended: bool = False
    silent: bool = False  # it will say no more
    closed: bool = False

    def read_status(self) -> None:
        """Take the next of the two numbers that the server writes; call it when `status_fd` is readable."""
        try:
            number = _read_number(self.status_fd)
        except (EOFError, OSError):
            self.kill()  # the server died, and nobody will tell when this process ends
            self.ended = True
            return
        if self.pid is None:
            self.pid = number
        else:
            self.exit_code = number
            self.kill()  # what it left running in its group: data loader workers
            self.ended = True

    def terminate(self) -> None:
        """Ask the process to save and stop."""
        if self.pid is not None and not self.ended:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process and everything in its group at once."""
        if self.pid is not None and not self.ended:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                if self.exit_code is None:  # it has not made its group yet
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the process: one that still runs, or is still to be forked, ends itself when it notices."""
        if self.closed:
            return
        self.ended = self.silent = self.closed = True
        self.messages.close()
        os.close(self.lifeline_fd)
        os.close(self.status_fd)


class WarmServer:
    """One fork server, private to its owner; started by `start`, and again by `launch` where it has died."""

    def __init__(self, preload: Sequence[str] = ("luigi_prune.execution.preload",)):
        self._preload = list(preload)
        self._server = self._new_server()
        _open_servers.add(self)

    def start(self) -> None:
        """Start the server unless it runs; returns before its imports are done.

        SIGINT is blocked in the calling thread, which must not be the main one. The server inherits that: a Ctrl-C is
        the driver's to answer, even while a Python starts.
        """
        resource_tracker.ensure_running()  # the server's start would start it, and that unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._server.ensure_running()
        except ChildProcessError:  # somebody else of this process waited for the dead server
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
            except (ConnectionError, FileNotFoundError):  # it is dying, and may not be dead enough for `start` to see
                self.stop()
                self.start()
                status_fd, lifeline_fd = self._server.connect_to_new_process([writer.fileno()])
        except BaseException:
            reader.close()
            raise
        finally:
            writer.close()
        child = Child(status_fd, lifeline_fd, reader)
        with suppress(OSError):  # the server died, which `status_fd` tells
            write_all(lifeline_fd, pickle.dumps(_preparation(start)) + pickle.dumps(start))
        return child

    def stop(self) -> None:
        """End the server and wait for it; its children must have ended or been let go."""
        with suppress(ProcessLookupError, ChildProcessError):
            if self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)  # it holds nothing, and may be in the middle of an import
            self._server._stop()  # type: ignore[attr-defined]

    @property
    def pid(self) -> int | None:
        """The server's process id, None before it was started."""
        return getattr(self._server, "_forkserver_pid", None)

    def _new_server(self) -> forkserver.ForkServer:
        server = forkserver.ForkServer()
        server.set_forkserver_preload(self._preload)
        return server

    def forget(self) -> None:
        """In a fork of the driver: close the pipe that keeps the server alive, or it would wait for the fork too."""
        alive_fd = getattr(self._server, "_forkserver_alive_fd", None)
        self._server = self._new_server()
        if alive_fd is not None:
            with suppress(OSError):
                os.close(alive_fd)


def _preparation(start: Any) -> dict[str, Any]:
    """What the standard library tells a new process, less the driver's main module."""
    sys_path = [process.ORIGINAL_DIR if entry == "" else entry for entry in sys.path]  # type: ignore[attr-defined]
    return {"name": start.name, "sys_path": sys_path, "dir": os.getcwd()}


def write_number(descriptor: int, number: int) -> None:
    """Write a process id or an exit code, as `Child.read_status` expects it."""
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
    """Write `data` to a pipe, however often that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _forget_servers() -> None:
    for server in list(_open_servers):
        server.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
