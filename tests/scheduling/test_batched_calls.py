"""Lists of calls over HTTP: order, failures, and what happens at a server that does not take them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import luigi.rpc
import luigi.scheduler
import luigi.server
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from luigi_prune.scheduling import batched_calls
from luigi_prune.scheduling.batched_calls import BatchingClient, client_of
from luigi_prune.scheduling.indexed_scheduler import IndexedScheduler
from luigi_prune.scheduling.server import application


class Server:
    """A scheduler behind HTTP, in a thread."""

    def __init__(self, make_app: Any):
        self.scheduler = IndexedScheduler()
        self.requests = 0
        self.app = make_app(self.scheduler)
        self._find_handler, self.app.find_handler = self.app.find_handler, self._count
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self.ready.wait(10)
        self.url = f"http://127.0.0.1:{self.port}"

    def _count(self, request: Any, **more: Any) -> Any:
        self.requests += 1
        return self._find_handler(request, **more)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._listen())
        self.loop.call_soon(self.ready.set)
        self.loop.run_forever()

    async def _listen(self) -> None:
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        self.server = HTTPServer(self.app)
        self.server.add_sockets(sockets)

    def drop_connections(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.close_all_connections(), self.loop).result(10)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(application)
    yield running
    running.loop.call_soon_threadsafe(running.loop.stop)


@pytest.fixture
def client(server: Server) -> BatchingClient:
    found = client_of(server.url)
    assert isinstance(found, BatchingClient)
    found._rpc_retry_wait = 0
    found._rpc_log_retries = False
    server.requests = 0
    return found


def test_tasks_travel_with_the_next_call_that_has_an_answer(server, client):
    for number in range(20):
        client.add_task(worker="w", task_id=f"t{number}", params={"a": "1"})
    assert server.requests == 0
    assert client.get_work(worker="w", host="h")["task_id"] == "t0"
    assert server.requests == 1
    assert len(server.scheduler.task_list("", "")) == 20


def test_a_large_graph_is_not_kept_until_then_and_the_rest_is_sent_at_the_end(server, client):
    for number in range(250):
        client.add_task(worker="w", task_id=f"t{number}")
    assert len(server.scheduler.task_list("", "")) == 200
    client.close()
    assert len(server.scheduler.task_list("", "")) == 250


def test_an_idle_connection_that_the_server_has_closed_is_opened_again(server, client):
    client.ping(worker="w")
    server.drop_connections()
    client.add_task(worker="w", task_id="t")
    assert client.get_work(worker="w", host="h")["task_id"] == "t"


def test_what_does_not_reach_the_server_is_sent_with_the_next_call(server, client, monkeypatch):
    def broken(*arguments: Any) -> str:
        raise ConnectionRefusedError

    client.add_task(worker="w", task_id="t")
    with monkeypatch.context() as patch:
        patch.setattr(client._fetcher, "fetch", broken)
        with pytest.raises(luigi.rpc.RPCError):
            client.ping(worker="w")
    assert client.get_work(worker="w", host="h")["task_id"] == "t"


def test_an_error_in_the_scheduler_is_raised_and_the_calls_after_it_are_answered(server, client):
    client.add_task(task_id="nobody's")  # the scheduler asserts that there is a worker
    client.add_task(worker="w", task_id="t")
    with pytest.raises(luigi.rpc.RPCError, match="AssertionError"):
        client.get_work(worker="w", host="h")
    assert client.count_pending(worker="w")["running_tasks"][0]["task_id"] == "t"


def test_several_tasks_come_in_one_answer_up_to_the_first_that_waits(server, client):
    for task, deps in (("a", []), ("b", []), ("c", []), ("reader", ["a", "b", "c"])):
        client.add_task(worker="w", task_id=task, deps=deps)
    asked = {"worker": "w", "host": "h"}
    given = [answer["task_id"] for answer in client.get_several(**asked, at_most=2, current_tasks=[])]
    assert given == ["a", "b"]
    rest = client.get_several(**asked, at_most=9, current_tasks=["a", "b"])
    assert [answer["task_id"] for answer in rest] == ["c", None]
    assert server.requests == 2
    again = client.get_several(**asked, at_most=9, current_tasks=["a"])  # as if the last answer had been lost
    assert sorted(answer["task_id"] for answer in again[:-1]) == ["b", "c"]


def test_an_assistant_gets_the_parameters_of_tasks_that_it_has_not_added(server, client):
    client.add_task(worker="w", task_id="t", params={"a": "1"})
    (given, _) = client.get_several(worker="helper", host="h", at_most=2, current_tasks=[], assistant=True)
    assert (given["task_id"], given["task_params"]) == ("t", {"a": "1"})


def test_tasks_that_are_given_back_are_given_to_others_and_those_of_others_stay(server, client):
    for worker in ("w", "other"):
        for task in ("a", "b", "c"):
            client.add_task(worker=worker, task_id=task)
    assert client.get_work(worker="other", host="h")["task_id"] == "a"
    client.get_several(worker="w", host="h", at_most=2, current_tasks=[])
    client.take_back(worker="w", task_ids=["a", "b", "c", "unknown"])
    assert {task_id: task["status"] for task_id, task in server.scheduler.task_list("", "").items()} == {
        "a": "RUNNING",
        "b": "PENDING",
        "c": "PENDING",
    }
    assert client.get_work(worker="other", host="h", current_tasks=["a"])["task_id"] == "b"


@pytest.mark.parametrize("method", ["dump", "__init__", "nonsense"])
def test_only_methods_of_luigi_s_api_are_called(client, method):
    with pytest.raises(luigi.rpc.RPCError, match="unknown method"):
        client._request(f"/api/{method}", {})


def test_luigi_s_own_server_gets_luigi_s_own_client():
    stock = Server(luigi.server.app)
    assert type(client_of(stock.url)) is luigi.rpc.RemoteScheduler
    stock.loop.call_soon_threadsafe(stock.loop.stop)


def test_name_and_password_of_the_address_are_sent(server, monkeypatch):
    given = []
    monkeypatch.setattr(batched_calls.CallsHandler, "prepare", lambda self: given.append(self.request.headers))
    client_of(server.url.replace("//", "//me:t%40ken@")).ping(worker="w")
    assert {headers["Authorization"] for headers in given} == {"Basic bWU6dEBrZW4="}


def test_a_server_that_is_gone_is_luigi_s_client_s_to_report():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert type(client_of(f"http://127.0.0.1:{port}")) is luigi.rpc.RemoteScheduler
