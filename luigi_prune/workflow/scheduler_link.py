"""The connection of a run to luigid, which may be restarted, stopped or lost while jobs run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from luigi.rpc import RPCError

from luigi_prune.scheduling.batched_calls import BatchingClient
from luigi_prune.workflow.scheduler_status import shown_url

LOOK_SECONDS = 10.0  # between two looks for a luigid that does not respond
_MOST_AT_ONCE = 20  # tasks in an answer, as luigid answers nobody else meanwhile


class SchedulerLink:
    """Luigi's scheduler as the worker calls it: a luigid while it responds, else one in this process.

    Only the thread that made it, the worker's, moves from one scheduler to the other; other threads get luigid's
    exceptions. After a move, `has_moved` returns True once, and the worker has to register its tasks again.
    """

    def __init__(self, remote: Any, local: Callable[[], Any], responds: Callable[[], bool], say: Callable[[str], None]):
        """`local` makes a scheduler in this process, `responds` tells whether luigid can be reached, `say` prints."""
        self._remote, self._make_local, self._responds, self._say = remote, local, responds, say
        self._local: Any = None  # while luigid does not respond
        self._thread = threading.get_ident()
        self._moved = False
        self._next_look = 0.0
        self._given: list[Any] = []  # answers of luigid to requests for work that the worker is about to make
        self.free_slots = 1  # tasks that the worker can start at once

    def __getattr__(self, name: str) -> Any:
        """Return a method of the scheduler in use."""
        attribute = getattr(self._remote, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, *args, **kwargs)

        return call

    def get_work(self, **asked: Any) -> Any:
        """Return the answer to a request for work; from our luigid, one message brings a task for every free slot."""
        if not self._given:
            if isinstance(self._remote, BatchingClient):
                at_most = max(1, min(self.free_slots, _MOST_AT_ONCE))
                self._given = self._call("get_several", at_most=at_most, **asked)
            else:
                self._given = [self._call("get_work", **asked)]
        return self._given.pop(0)

    def give_back(self, worker: str) -> None:
        """Give back the tasks that luigid has given and the worker has not asked for."""
        given, self._given = self._given, []
        if task_ids := [answer["task_id"] for answer in given if answer["task_id"] is not None]:
            self._call("take_back", worker=worker, task_ids=task_ids)

    def has_moved(self) -> bool:
        """Return whether the scheduler is another one than at the last call; goes back to luigid once it responds."""
        if self._local is not None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            if self._responds():
                self._local, self._moved, self._given = None, True, []
                self._say(f"Back to {self._name}.")
        moved, self._moved = self._moved, False
        return moved

    def leave(self, reason: str, seconds: float) -> None:
        """Go on without luigid for a while."""
        if self._local is None:
            self._local, self._moved, self._given = self._make_local(), True, []
            self._next_look = time.monotonic() + seconds
            if isinstance(self._remote, BatchingClient):
                self._remote.forget()  # all tasks are registered again later
            self._say(f"{self._name} {reason}: this run goes on without it, and returns to it later.")

    def ping(self, **kwargs: Any) -> Any:
        """Tell the scheduler that the worker lives; called by a thread of Luigi, which would print every failure."""
        scheduler = self._local or self._remote
        try:
            return scheduler.ping(**kwargs)
        except Exception:  # whatever it is, the worker's own calls meet it, too
            return None

    def close(self) -> None:
        """Close the connection."""
        self._remote.close()

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._local is None:
            try:
                return getattr(self._remote, name)(*args, **kwargs)
            except (RPCError, ValueError, KeyError) as error:  # the latter two: something else responds there
                if threading.get_ident() != self._thread:
                    raise
                reason = "does not respond" if isinstance(error, RPCError) else f"gives no valid answer ({error!r:.80})"
                self.leave(reason, LOOK_SECONDS)
        return getattr(self._local, name)(*args, **kwargs)

    @property
    def _name(self) -> str:
        return f"luigid at {shown_url(getattr(self._remote, '_url', ''))}"
