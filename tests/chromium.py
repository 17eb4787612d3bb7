"""Drives Chromium by its DevTools protocol: opens pages, evaluates expressions, takes pictures."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


class Tab:
    """One tab of a running browser."""

    def __init__(self, address: str):
        self._loop = asyncio.new_event_loop()
        self._socket = self._loop.run_until_complete(self._connect(address))
        self._numbers = itertools.count(1)
        self.ask("Page.enable")

    async def _connect(self, address: str) -> Any:
        return await websocket_connect(address, max_message_size=1 << 28)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command of the protocol."""
        return self._loop.run_until_complete(self._ask(method, parameters))

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self._socket.read_message()
            assert message is not None, "the browser is gone"
            answer = json.loads(message)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def looks(self, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the page, and light or dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, address: str, until: str = "true") -> None:
        """Open a page and wait until an expression holds."""
        self.ask("Page.navigate", url=address)
        self.wait(until)

    def wait(self, until: str, seconds: float = 60.0) -> None:
        """Wait until the page is loaded and an expression holds."""
        until = f"document.readyState === 'complete' && Boolean({until})"
        deadline = time.monotonic() + seconds
        while not self.evaluate(until):
            assert time.monotonic() < deadline, f"not within {seconds} s: {until}\n{self.text()[:2000]}"
            time.sleep(0.1)

    def text(self) -> str:
        """Return the text that a reader sees."""
        return str(self.evaluate("document.body.innerText"))

    def picture(self, path: Path) -> None:
        """Write a picture of the page as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Run a browser with one tab; skips the test if there is none, except in CI."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium on this machine, and CI must have one")
        pytest.skip("no chromium on this machine")
    profile = folder / "profile"
    (profile / "DevToolsActivePort").unlink(missing_ok=True)  # of an earlier browser
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _read_port(profile / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        yield Tab(pages[0]["webSocketDebuggerUrl"])
    finally:
        process.terminate()
        process.wait(timeout=30)


def _read_port(path: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and (lines := path.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.1)
    raise AssertionError("the browser did not start")
