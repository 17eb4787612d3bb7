"""Who may ask luigid for what: a token, read-only mode, and no requests that other web pages make."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import html
import ipaddress
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application, RequestHandler

from luigi_prune.errors import ConfigError

# methods of Luigi's API that change nothing
READING = frozenset(
    {
        "count_pending",
        "dep_graph",
        "fetch_error",
        "get_running_task_resources",
        "get_task_progress_percentage",
        "get_task_status_message",
        "graph",
        "has_task_history",
        "inverse_dep_graph",
        "is_pause_enabled",
        "is_paused",
        "resource_list",
        "task_list",
        "task_search",
        "worker_list",
    }
)
_REFUSED_BYTES = 1 << 16  # that are read of a request whose answer is a refusal; a longer one is cut off
REQUESTED_WITH = "luigi_prune"  # value of X-Requested-With that a page of another origin cannot send


def read_token(path: Path) -> str:
    """Return the token in a file, which is made, readable by its owner alone, if missing; raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"--token: cannot write {path}: {error.strerror or error}") from None
    try:
        mode, token = path.stat().st_mode, path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"--token: cannot read {path}: {error.strerror or error}") from None
    if mode & 0o077:
        raise ConfigError(f"--token: others can read {path}; run `chmod 600 {path}`")
    if len(token) < 16:
        raise ConfigError(f"--token: {path} holds no token of at least 16 characters; delete it, and one is made")
    return token


def is_loopback(address: str) -> bool:
    """Return whether only processes of this machine reach an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class Gate(Router):
    """Lets requests through to an application, or answers them with a refusal."""

    def __init__(self, application: Application, port: int, address: str, token: str = "", read_only: bool = False):
        self.application = application
        self.token = token
        self.read_only = read_only
        self.cookie = f"luigi_prune_{port}"  # cookies of all ports of a host are one jar
        own = {"localhost", address, socket.gethostname(), socket.getfqdn()}
        self._hosts = {host.lower() for host in own}

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate | None:
        """Return what answers a request."""
        if refusal := self._refusal(request):
            status, text = refusal
            request.connection.set_max_body_size(_REFUSED_BYTES)  # type: ignore[union-attr]
            return self.application.get_handler_delegate(request, Refusal, {"status": status, "text": text})
        if self.token and self._asked_by_link(request):
            cookie = (self.cookie, self._cookie_value())
            return self.application.get_handler_delegate(request, Welcome, {"cookie": cookie})
        return self.application.find_handler(request, **kwargs)

    def _refusal(self, request: HTTPServerRequest) -> tuple[int, str] | None:
        path = request.path  # as it is routed
        if self.token and not self._is_known(request):
            return (
                401,
                "This luigid asks for a token: open the address with ?token= that it printed at its start.",
            )
        if not self.token and not self._is_own_host(request):
            return 403, "This luigid is not served under this host name."
        if not self._is_of_own_page(request, path):
            return 403, "Refused: a page of another site asked for this."
        if self.read_only and not _only_reads(request, path):
            return 403, "Refused: this luigid is read-only."
        return None

    def _is_known(self, request: HTTPServerRequest) -> bool:
        given = [_authorization(request)]
        if self.cookie in request.cookies and _same(request.cookies[self.cookie].value, self._cookie_value()):
            return True
        if self._asked_by_link(request):
            given.append(request.query_arguments["token"][-1].decode(errors="replace"))
        return any(_same(text, self.token) for text in given)

    def _asked_by_link(self, request: HTTPServerRequest) -> bool:
        return request.method == "GET" and "token" in request.query_arguments

    def _cookie_value(self) -> str:
        return hashlib.sha256(f"cookie {self.token}".encode()).hexdigest()

    def _is_own_host(self, request: HTTPServerRequest) -> bool:
        """Return whether the browser used a name of this machine, and not one that another site made lead here."""
        host = _host_name(request.host)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return host in self._hosts
        return True

    def _is_of_own_page(self, request: HTTPServerRequest, path: str) -> bool:
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site in ("same-origin", "none"):
            return True
        if site is None and origin is not None:
            return origin.lower().partition("://")[2] == request.host.lower()
        if site is None:  # no browser, or one that was not told that this address is https or its own machine's
            by_cookie = self.token and self.cookie in request.cookies
            return not by_cookie or "X-Requested-With" in request.headers or _only_reads(request, path)
        opened = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method == "GET"
        return opened and not path.startswith("/api/")  # a link to a page


class Refusal(RequestHandler):
    """Answers with the reason of a refusal."""

    def initialize(self, status: int, text: str) -> None:
        """Remember the answer."""
        self.status, self.text = status, text

    def prepare(self) -> None:
        """Answer, whatever the method."""
        self.set_status(self.status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if self.status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="luigid: any name, and the token as password"')
        self.finish(self.text + "\n")


class Welcome(RequestHandler):
    """Exchanges the token in an address for a cookie, and opens the address without it."""

    def initialize(self, cookie: tuple[str, str]) -> None:
        """Remember the cookie."""
        self.name, self.value = cookie

    def get(self, *ignored: str) -> None:
        """Set the cookie; a redirect would still count as asked by the other site, from which it is withheld."""
        self.set_cookie(self.name, self.value, httponly=True, samesite="Strict", path="/", expires_days=30)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        path = self.request.path
        target = html.escape(path if re.fullmatch(r"/(?![/\\]).*", path) else "/experiments")  # of this server
        self.finish(f'<meta http-equiv="refresh" content="0;url={target}"><a href="{target}">experiments</a>')


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _authorization(request: HTTPServerRequest) -> str:
    """Return the token in the header: a bearer's, or the password of an address such as http://me:TOKEN@host:8082."""
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode(errors="replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _only_reads(request: HTTPServerRequest, path: str) -> bool:
    if path.startswith("/api/"):
        return path.removeprefix("/api/") in READING
    return request.method in ("GET", "HEAD", "OPTIONS")
