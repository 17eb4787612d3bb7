"""The addresses of the pages.

/experiments                       all experiments of the watched folders
/experiments/e/<experiment>        one experiment: matrix, progress, report
/experiments/t/<key>               one task: curves, log, spec, provenance
/experiments/api/...               what their scripts ask for, as JSON
/experiments/file/<folder>/<path>  a report with its plots and tables
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import luigi.server
from tornado.web import Application, HTTPError, RequestHandler

from luigi_prune.results.run_records import request_retry
from luigi_prune.web import answers
from luigi_prune.web.access import REQUESTED_WITH
from luigi_prune.web.confined_files import SHOWN
from luigi_prune.web.report_writer import ReportRefused, ReportWriter
from luigi_prune.web.watched_results import WatchedResults

_FRONT = Path(__file__).with_name("front")
_PARTS = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}
_ID = r"(\d{1,4}-[0-9a-f]{12})"
_KEY = r"([0-9a-f]{12,64})"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# a report may run the scripts it contains, but not as a page of this server: it cannot use its cookie
_REPORT_POLICY = "sandbox allow-scripts allow-popups allow-downloads; connect-src 'none'; form-action 'none'"
_CHUNK = 1 << 18


def add_pages(app: Application, results: Sequence[str | Path], *, read_only: bool = False) -> list[WatchedResults]:
    """Add the pages of these results folders to an application; return what watches the folders."""
    folders = [WatchedResults(folder) for folder in results]
    given = {"folders": folders, "read_only": read_only, "threads": ThreadPoolExecutor(4, "pages"),
             "reports": ReportWriter()}  # fmt: skip
    app.add_handlers(
        ".*",
        [
            (r"/experiments/", Page, given),
            (rf"/experiments(?:/e/{_ID})?(?:/t/{_KEY})?", Page, given),
            (r"/experiments/(page\.js|page\.css)", FrontPart, given),
            (r"/experiments/api/server", About, given),
            (r"/experiments/api/overview", Overview, given),
            (rf"/experiments/api/(experiment|state)/{_ID}", OneExperiment, given),
            (rf"/experiments/api/task/(?:{_ID}/)?{_KEY}", OneTask, given),
            (rf"/experiments/api/retry/{_ID}/{_KEY}", Retry, given),
            (rf"/experiments/api/report/{_ID}", WriteReport, given),
            (r"/experiments/file/(\d{1,4})/(.+)", ResultsFile, given),
            (r"/static/visualiser/index\.html", LuigiPage, given),
        ],
    )
    return folders


class _Answer(RequestHandler):
    """Base of all handlers here: nothing is kept by browsers, and only this server's own scripts run."""

    def initialize(
        self, folders: list[WatchedResults], read_only: bool, threads: ThreadPoolExecutor, reports: ReportWriter
    ) -> None:
        self.folders, self.read_only, self.threads, self.reports = folders, read_only, threads, reports

    def set_default_headers(self) -> None:
        """Set the headers of every answer."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.clear_header("Server")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with one line, without the text of the request."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self._reason}\n")

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return a function's result without keeping other requests waiting for a slow file system."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)

    async def task(self, experiment_id: str, key: str) -> dict[str, Any]:
        """Return everything about a task; answers 404 if there is none."""
        try:
            answer: dict[str, Any] = await self.in_thread(answers.task_in_full, self.folders, key, experiment_id)
            return answer
        except KeyError:
            raise HTTPError(404, reason="No such task") from None

    def check_asked_for(self) -> None:
        """Answer 403 if nothing may be changed, or if another page asks."""
        if self.read_only:
            raise HTTPError(403, reason="This luigid is read-only")
        if self.request.headers.get("X-Requested-With") != REQUESTED_WITH:
            raise HTTPError(403, reason="Refused: not asked for by this page")

    def finish_json(self, answer: Any) -> None:
        """Answer with JSON that is also safe inside HTML."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        text = json.dumps(_finite(answer), separators=(",", ":"), allow_nan=False)
        self.finish(text.replace("<", "\\u003c").replace("&", "\\u0026"))


class Page(_Answer):
    """The page itself, which is the same at every address."""

    def get(self, *ignored: str) -> None:
        """Answer with the page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((_FRONT / "index.html").read_bytes())


class FrontPart(_Answer):
    """The page's script and style."""

    def get(self, name: str) -> None:
        """Answer with one of them."""
        self.set_header("Content-Type", _PARTS[name])
        self.finish((_FRONT / name).read_bytes())


class About(_Answer):
    """The server itself, for runs that look for a scheduler."""

    def get(self) -> None:
        """Answer with what a run has to know."""
        self.finish_json({"read_only": self.read_only, "folders": [str(folder.files.given) for folder in self.folders]})


class Overview(_Answer):
    """All experiments."""

    async def get(self) -> None:
        """Answer with the figures of each."""
        experiments = await self.in_thread(answers.overview, self.folders)
        folders = [str(folder.files.given) for folder in self.folders]
        self.finish_json({"experiments": experiments, "folders": folders, "read_only": self.read_only})


class OneExperiment(_Answer):
    """One experiment: what stays, or its state."""

    async def get(self, what: str, experiment_id: str) -> None:
        """Answer with one of both."""
        try:
            number, folder, name = answers.folder_of(self.folders, experiment_id)
            if what == "experiment":
                answer = await self.in_thread(answers.whole_experiment, number, folder, name)
            else:
                answer = await self.in_thread(answers.experiment_state, number, folder, name)
                if not self.read_only:
                    answer["partial"] = await self.in_thread(self.reports.state, experiment_id, folder, name)
            self.finish_json(answer)
        except KeyError:
            raise HTTPError(404, reason="No such experiment") from None


class OneTask(_Answer):
    """One task in full."""

    async def get(self, experiment_id: str | None, key: str) -> None:
        """Answer with everything about it."""
        answer = await self.task(experiment_id or "", key)
        self.finish_json(answer | {"read_only": self.read_only, "retry": answer["retry"] and not self.read_only})


class Retry(_Answer):
    """Asks the drivers of a failed task to run it again."""

    async def post(self, experiment_id: str, key: str) -> None:
        """Leave the request for a driver, if one runs."""
        self.check_asked_for()
        answer = await self.task(experiment_id, key)
        if not answer["retry"]:
            raise HTTPError(409, reason="The task has not failed, or no run is at work")
        _, folder, _ = answers.folder_of(self.folders, experiment_id)
        try:
            await self.in_thread(request_retry, folder.files.root, answer["key"])
        except OSError as error:
            raise HTTPError(409, reason=f"luigid cannot write to the results folder: {error.strerror}") from None
        self.finish_json({"asked": answer["key"]})


class WriteReport(_Answer):
    """Writes the report on the results that exist."""

    async def post(self, experiment_id: str) -> None:
        """Start the process that writes it."""
        self.check_asked_for()
        try:
            _, folder, name = answers.folder_of(self.folders, experiment_id)
            await self.in_thread(self.reports.start, experiment_id, folder, name)
        except KeyError:
            raise HTTPError(404, reason="No such experiment") from None
        except ReportRefused as refusal:
            raise HTTPError(409, reason=str(refusal)) from None
        self.finish_json({"asked": experiment_id})


class ResultsFile(_Answer):
    """A report, or a plot or table that it links to."""

    async def get(self, number: str, path: str) -> None:
        """Answer with the file."""
        try:
            file = self.folders[int(number)].files.open(path, SHOWN)
        except (FileNotFoundError, IndexError):
            raise HTTPError(404, reason="No such file here") from None
        with file:
            self.set_header("Content-Type", SHOWN[Path(path).suffix])
            self.set_header("Content-Security-Policy", _REPORT_POLICY)
            while chunk := await self.in_thread(file.read, _CHUNK):
                self.write(chunk)
                await self.flush()


class LuigiPage(RequestHandler):
    """Luigi's own page, with a link to ours."""

    def initialize(self, **ignored: Any) -> None:
        """Take the arguments of the other handlers."""

    def get(self) -> None:
        """Answer with the page."""
        text = (Path(luigi.server.__file__).parent / "static" / "visualiser" / "index.html").read_text()
        link = '<li><a href="/experiments">Experiments</a></li>'
        self.finish(re.sub(r'(<ul class="nav navbar-nav[^"]*"[^>]*>)', lambda found: found[1] + link, text, count=1))


def _finite(value: Any) -> Any:
    """Return JSON data with null for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
