"""Calls of a scheduler over HTTP, several per request and on one connection: most of a request's cost is its own.

Both ends: the handler that our luigid has beside Luigi's API, and the client that a run uses if luigid has it.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import threading
import urllib.request
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import luigi.rpc
from luigi.scheduler import RPC_METHODS
from tornado.web import HTTPError, RequestHandler

PATH = "/luigi_prune/calls/2"  # the number of the version: a server of another one serves Luigi's own client
_AT_ONCE = 200  # queued calls that are sent without waiting for one that needs an answer
logger = logging.getLogger(__name__)


class CallsHandler(RequestHandler):
    """Answers a list of calls [method, arguments] with a list of [whether it succeeded, answer or error]."""

    def initialize(self, scheduler: Any) -> None:
        """Set the scheduler."""
        self._scheduler = scheduler

    def get(self) -> None:
        """Tell a client that this server takes such lists."""
        self.set_status(204)

    def post(self) -> None:
        """Call the methods in order; later ones are called even if an earlier one fails."""
        try:
            calls = [(str(method), dict(arguments)) for method, arguments in json.loads(self.request.body)]
        except (ValueError, TypeError, RecursionError):
            raise HTTPError(400, reason="Not a list of calls") from None
        answers = [self._call(method, arguments) for method, arguments in calls]
        self.write({"response": answers})

    def _call(self, method: str, arguments: dict[str, Any]) -> tuple[bool, Any]:
        if method not in RPC_METHODS:
            return False, f"unknown method {method}"
        try:
            return True, getattr(self._scheduler, method)(**arguments)
        except Exception as error:
            logger.exception("%s failed", method)
            return False, repr(error)


class KeptConnection:
    """Luigi's interface of a fetcher: posts requests on a connection that stays open; for one thread at a time."""

    raises = (OSError, http.client.HTTPException)

    def __init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None

    def fetch(self, full_url: str, body: str | None, timeout: float) -> str:
        """Return the text of an answer; without a body, ask with GET."""
        parts = urlsplit(full_url)
        while True:
            connection, is_new = self._connection or _connect(parts, timeout), self._connection is None
            self._connection = connection
            try:
                connection.request("GET" if body is None else "POST", parts.path, body, _headers(parts))
                answer = connection.getresponse()
                text = answer.read().decode()
            except BaseException as error:
                self.close()
                if is_new or not isinstance(error, ConnectionError):
                    raise
                continue  # the server has closed a connection that was idle
            if answer.status >= 400:
                raise http.client.HTTPException(f"{answer.status} {answer.reason}")
            return text

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class BatchingClient(luigi.rpc.RemoteScheduler):
    """Luigi's client, which sends tasks to be added, which have no answer, along with the next call that has one.

    The order of calls stays the same, over all threads. A call that fails leaves the queue to the next one.
    """

    _fetcher: Any

    def __init__(self, url: str):
        super().__init__(url)
        self._fetcher.close()
        self._fetcher = KeptConnection()
        self._queue: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.RLock()

    def is_understood(self) -> bool:
        """Return whether the server takes lists of calls."""
        try:
            self._fetcher.fetch(self._url + PATH, None, self._connect_timeout)
        except self._fetcher.raises:
            self._fetcher.close()
            return False
        return True

    def forget(self) -> None:
        """Drop what is queued."""
        with self._lock:
            self._queue = []

    def close(self) -> None:
        """Send what is queued and close the connection."""
        with self._lock:
            try:
                if self._queue:
                    self._send([])
            except luigi.rpc.RPCError:
                logger.warning("The last statuses of tasks did not reach the scheduler", exc_info=True)
            super().close()

    def add_task(self, **task: Any) -> None:
        """Send a task, or a change of it, with the next call that has an answer."""
        with self._lock:
            self._queue.append(("add_task", task))
            if len(self._queue) >= _AT_ONCE:
                self._send([])

    def get_several(self, **asked: Any) -> Any:
        """Ask for several tasks at once (`IndexedScheduler.get_several`)."""
        return self._request("/api/get_several", asked)

    def take_back(self, **given: Any) -> None:
        """Give back tasks that are not started (`IndexedScheduler.take_back`)."""
        self._request("/api/take_back", given)

    def _request(self, url: str, data: dict[str, Any], attempts: int = 3, allow_null: bool = True) -> Any:
        method = url.rpartition("/")[2]
        with self._lock:
            answer = self._send([(method, data)])
        if answer is None and not allow_null:
            raise luigi.rpc.RPCError(f"Received null response from remote scheduler {self._url!r}")
        return answer

    def _send(self, calls: list[tuple[str, dict[str, Any]]]) -> Any:
        """Send the queue and `calls`, and return the last answer."""
        page = self._fetch(PATH, json.dumps(self._queue + calls))
        self._queue = []
        answers = json.loads(page)["response"]
        for succeeded, answer in answers:
            if not succeeded:
                raise luigi.rpc.RPCError(f"The scheduler at {self._url!r} failed: {answer}")
        return answers[-1][1]


def client_of(url: str) -> luigi.rpc.RemoteScheduler:
    """Return the client for a luigid: ours if the server is ours, else Luigi's own."""
    parts = urlsplit(url)
    by_proxy = parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname or "")
    if parts.scheme in ("http", "https") and not by_proxy:
        client = BatchingClient(url)
        if client.is_understood():
            return client
    return luigi.rpc.RemoteScheduler(url)


def _connect(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout)


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if parts.username:
        known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(known.encode()).decode()
    return headers
