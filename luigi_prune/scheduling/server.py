"""The server of `python -m luigi_prune luigid`: Luigi's page and API, and a state that outlives a crash."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

import luigi.scheduler
import luigi.server
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerConnectionDelegate
from tornado.netutil import bind_sockets
from tornado.web import Application

from luigi_prune.errors import ConfigError
from luigi_prune.scheduling.batched_calls import PATH, CallsHandler

PRUNE_EVERY = 60.0  # seconds, as Luigi's own server does
_SAVE_EVERY = 60.0
_SAVING_SHARE = 0.02  # of the time at most, as no request is answered meanwhile
logger = logging.getLogger(__name__)


def application(scheduler: luigi.scheduler.Scheduler) -> Application:
    """Return the web application of a scheduler: Luigi's page and the API of its workers."""
    app: Application = luigi.server.app(scheduler)
    app.add_handlers(".*", [(PATH, CallsHandler, {"scheduler": scheduler})])
    return app


def check_state_path(path: Path) -> None:
    """Make the folder of the state file; raises ConfigError if the file cannot be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"luigid: cannot write {path}: {error.strerror}; choose another file by --state-path"
        ) from None


def serve(
    scheduler: luigi.scheduler.Scheduler,
    app: HTTPServerConnectionDelegate,
    address: str,
    port: int,
    ready: Callable[[int], None],
) -> None:
    """Answer requests until SIGINT, SIGTERM or SIGQUIT; save the scheduler's state regularly and at the end.

    `ready` is called with the port (the chosen one if `port` is 0). Raises ConfigError if the port cannot be bound.
    """
    asyncio.run(_serve(scheduler, app, address, port, ready))


async def _serve(
    scheduler: luigi.scheduler.Scheduler,
    app: HTTPServerConnectionDelegate,
    address: str,
    port: int,
    ready: Callable[[int], None],
) -> None:
    try:
        sockets = bind_sockets(port, address=address)
    except OSError as error:
        raise ConfigError(
            f"luigid: cannot listen on {address}:{port}: {error.strerror or error}; choose another by --port"
        ) from None
    server = HTTPServer(app)
    server.add_sockets(sockets)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    jobs = [asyncio.create_task(_prune(scheduler)), asyncio.create_task(_save(scheduler))]
    ready(sockets[0].getsockname()[1])
    try:
        await stop.wait()
    finally:
        for job in jobs:
            job.cancel()
        server.stop()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(server.close_all_connections(), timeout=2)
        scheduler.dump()


async def _prune(scheduler: luigi.scheduler.Scheduler) -> None:
    while True:
        await asyncio.sleep(PRUNE_EVERY)
        try:
            scheduler.prune()
        except Exception:  # as in Luigi's own server, the next one may succeed
            logger.exception("pruning failed")


async def _save(scheduler: luigi.scheduler.Scheduler) -> None:
    pause = _SAVE_EVERY
    while True:
        await asyncio.sleep(pause)
        began = time.monotonic()
        scheduler.dump()
        pause = max(_SAVE_EVERY, (time.monotonic() - began) / _SAVING_SHARE)
