"""The server: what it answers, and what it refuses."""

from __future__ import annotations

import base64
import http.client
import json
import re
from pathlib import Path

import pytest

from luigi_prune.errors import ConfigError
from luigi_prune.results.run_records import take_retries
from luigi_prune.web import pages
from luigi_prune.web.access import read_token
from tests.web.sample import HTML, Sample, ask, ask_json, in_the_middle, served

TOKEN = "a-token-of-enough-letters"


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return in_the_middle(tmp_path)


def test_pages_and_their_answers(sample):
    with served(sample.results) as port:
        key = sample.task("TrainBase").key
        for path in ("/experiments", f"/experiments/e/{sample.id}", f"/experiments/t/{key[:12]}"):
            status, body, headers = ask(port, path)
            assert (status, b"/experiments/page.js" in body) == (200, True)
            assert "default-src 'none'" in headers["content-security-policy"]
        (one,) = ask_json(port, "overview")["experiments"]
        assert (one["id"], one["total"], one["counts"]["done"]) == (sample.id, len(sample.experiment.tasks), 1)
        whole, state = ask_json(port, f"experiment/{sample.id}"), ask_json(port, f"state/{sample.id}")
        assert len(whole["tasks"]) == len(state["states"])
        assert {row["family"] for row in state["families"]} == {task.family for task in sample.experiment.tasks}
        assert ask_json(port, f"task/{sample.id}/{key}") == ask_json(port, f"task/{key[:12]}")
        assert ask(port, "/experiments/api/task/000000000000")[0] == 404
        assert ask(port, "/experiments/api/state/7-000000000000")[0] == 404


def test_html_in_logs_failures_and_parameters_stays_text(sample):
    failed, running = (next(iter(news)) for news in (sample.news.failed, sample.news.running))
    with served(sample.results) as port:
        for what in (f"task/{failed}", f"task/{running}", f"experiment/{sample.id}", f"state/{sample.id}"):
            status, body, headers = ask(port, f"/experiments/api/{what}")
            assert status == 200
            assert b"<" not in body
            assert HTML in re.sub(r"\s+", " ", str(json.loads(body))).replace("\\'", "'")
            assert headers["content-type"].startswith("application/json")
            assert headers["x-content-type-options"] == "nosniff"
    script = (Path(__file__).parents[2] / "luigi_prune" / "web" / "front" / "page.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.html",
        "..%2fsecret.html",
        "%2e%2e/secret.html",
        "..%252fsecret.html",
        "link.html",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "x/..%2f..%2fsecret.html",
        "runs/",
        "{news}",
        "logs%00.html",
    ],
)
def test_paths_that_lead_outside_or_to_other_files(sample, tmp_path, path):
    (tmp_path / "secret.html").write_text("secret")
    (sample.results / "link.html").symlink_to(tmp_path / "secret.html")
    asked = path.replace("{news}", str(next(sample.results.glob("runs/*.news.json")).relative_to(sample.results)))
    with served(sample.results) as port:
        status, body, _ = ask(port, f"/experiments/file/0/{asked}")
        assert status in (400, 404)
        assert b"secret" not in body
        assert ask(port, f"/experiments/file/1/{asked}")[0] in (400, 404)


def test_a_record_cannot_make_the_page_read_other_files(sample, tmp_path):
    """A record names paths; whoever can write one could name any."""
    (tmp_path / "secret.log").write_text("secret")
    path = next(sample.results.glob("runs/*.tasks.json"))
    task = sample.task("TrainBase")
    for found in ("../secret.log", str(tmp_path / "secret.log")):
        path.write_text(path.read_text().replace(task.log, found).replace(task.curves, str(tmp_path)))
        with served(sample.results) as port:
            answer = ask_json(port, f"task/{task.key}")
        assert answer["log"] == ""
        path.write_text(path.read_text().replace(found, task.log).replace(str(tmp_path), task.curves))


def test_a_report_is_shown_without_the_rights_of_the_page(sample):
    path = sample.results / sample.task("Report").path
    path.parent.mkdir(parents=True)
    path.write_text("<h1>report</h1>")
    with served(sample.results) as port:
        address = ask_json(port, f"state/{sample.id}")["report"]
        status, body, headers = ask(port, address)
    assert (status, body) == (200, b"<h1>report</h1>")
    assert headers["content-security-policy"].startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in headers["content-security-policy"]


def retry_address(sample: Sample) -> str:
    return f"/experiments/api/retry/{sample.id}/{next(iter(sample.news.failed))[:12]}"


def test_a_retry_reaches_the_driver_only_as_this_page_asks_and_while_one_runs(sample):
    key = next(iter(sample.news.failed))
    own = {"X_Requested_With": "luigi_prune"}
    with served(sample.results) as port:
        assert ask(port, retry_address(sample), "POST")[0] == 403
        assert ask(port, retry_address(sample), **own)[0] == 405
        assert take_retries(sample.results, {key}) == []
        assert ask(port, retry_address(sample), "POST", **own)[0] == 200
        assert take_retries(sample.results, {key}) == [key]
    sample.tell(ended=1.0)
    with served(sample.results) as port:
        assert ask(port, retry_address(sample), "POST", **own)[0] == 409


def test_read_only_changes_nothing(sample):
    own = {"X_Requested_With": "luigi_prune"}
    with served(sample.results, read_only=True) as port:
        assert ask(port, "/experiments")[0] == 200
        assert not ask_json(port, f"task/{next(iter(sample.news.failed))}")["retry"]
        assert ask(port, retry_address(sample), "POST", **own)[0] == 403
        assert take_retries(sample.results, set(sample.news.failed)) == []
        for method in ("add_task", "disable_worker", "forgive_failures", "re_enable_task", "mark_as_done", "pause"):
            for verb in ("GET", "POST"):
                assert ask(port, f"/api/{method}?data=%7B%7D", verb)[0] == 403
        assert ask(port, "/api/task_list?data=%7B%7D")[0] == 200
        assert ask(port, "/static/visualiser/index.html")[0] == 200


PATHS = [
    "/experiments",
    "/experiments/page.js",
    "/experiments/api/overview",
    "/api/task_list",
    "/",
    "/static/visualiser/index.html",
]


def test_without_the_token_nothing_is_answered(sample):
    cookie = "luigi_prune_{port}=" + "0" * 64
    with served(sample.results, token=TOKEN) as port:
        for path in (*PATHS, retry_address(sample)):
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic !"},
                {"Authorization": "Bearer "},
                {"Cookie": cookie.format(port=port)},
                {"Cookie": f"luigi_prune_{port}={TOKEN}"},
            ):
                status, body, _ = ask(port, path, **headers)
                assert status == 401
                assert b"lenet" not in body
            assert ask(port, f"{path}?token=wrong")[0] == 401
        for address in (retry_address(sample), f"/experiments/api/report/{sample.id}"):
            assert ask(port, address, "POST", X_Requested_With="luigi_prune")[0] == 401


def test_the_token_by_header_password_link_and_cookie(sample):
    password = base64.b64encode(f"luigi:{TOKEN}".encode()).decode()
    with served(sample.results, token=TOKEN) as port:
        for path in PATHS[:4]:
            assert ask(port, path, Authorization=f"Bearer {TOKEN}")[0] == 200
            assert ask(port, path, Authorization=f"Basic {password}")[0] == 200
        status, body, headers = ask(port, f"/experiments?token={TOKEN}")
        assert status == 200
        assert TOKEN.encode() not in body
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert ask(port, "/experiments/api/overview", Cookie=cookie.partition(";")[0])[0] == 200


def test_pages_of_other_sites_get_nothing(sample):
    with served(sample.results) as port:
        assert ask(port, "/experiments", Host="rebound.example.com")[0] == 403
        assert ask(port, "/experiments", Host=f"localhost:{port}")[0] == 200
        cross = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
        assert ask(port, "/api/disable_worker?data=%7B%7D", **cross)[0] == 403
        assert ask(port, "/experiments/api/overview", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
        assert ask(port, "/experiments", **cross)[0] == 200  # a link
        assert ask(port, "/experiments", "POST", **cross)[0] == 403


@pytest.mark.parametrize("origin", ["http://other.example.com", "null", "http://127.0.0.1:1", "127.0.0.1:{port}"])
def test_a_browser_that_names_only_the_origin_is_refused_for_another_one(sample, origin):
    with served(sample.results) as port:
        other = origin.replace("{port}", str(port))
        for method, path in (("POST", "/api/pause"), ("GET", "/api/pause"), ("POST", "/luigi_prune/calls/2")):
            assert ask(port, path, method, Origin=other)[0] == 403
        assert ask(port, "/api/pause", "POST", Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_a_picture_on_another_port_of_a_host_changes_nothing_by_the_cookie(sample):
    """Such a request has the cookie and neither an origin nor, at an address without https, a Sec-Fetch-Site."""
    with served(sample.results, token=TOKEN) as port:
        cookie = {"Cookie": ask(port, f"/experiments?token={TOKEN}")[2]["set-cookie"].partition(";")[0]}
        assert ask(port, "/api/pause", **cookie)[0] == 403
        assert ask(port, "/api/is_paused", **cookie)[1] == b'{"response": {"paused": false}}'
        assert ask(port, "/api/pause", **cookie, X_Requested_With="XMLHttpRequest")[0] == 200  # Luigi's own page


@pytest.mark.parametrize("path", ["//[", f"/experiments/file/{'9' * 5000}/x.html", "/luigi_prune/calls/2/../x"])
def test_an_address_that_is_none_is_not_found(sample, path):
    with served(sample.results) as port:
        assert ask(port, path)[0] == 404


def test_a_host_that_is_none_is_refused(sample):
    with served(sample.results) as port:
        for host in ("[", "[::1", "", "127.0.0.1.example.com"):
            assert ask(port, "/experiments", Host=host)[0] == 403


def test_calls_that_are_none_are_refused_and_a_refused_body_is_not_read(sample):
    def status(port: int, body: bytes, length: int, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/luigi_prune/calls/2", body, {"Content-Length": str(length), **headers})
        return connection.getresponse().status

    with served(sample.results) as port:
        for body in (b"{", b"[1]", b"[[1]]", b'[["prune", 5]]', b"[" * 100_000):
            assert status(port, body, len(body)) == 400
        assert status(port, body=b"[", length=1 << 26, Origin="null") == 400  # answered before the rest has come


def test_a_retry_that_cannot_be_left_says_so(sample, monkeypatch):
    def denied(results: Path, key: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pages, "request_retry", denied)
    with served(sample.results) as port:
        status, body, _ = ask(port, retry_address(sample), "POST", X_Requested_With="luigi_prune")
    assert (status, body) == (409, b"luigid cannot write to the results folder: Permission denied\n")


def test_a_retry_does_not_follow_a_link(sample, tmp_path):
    key = next(iter(sample.news.failed))
    (sample.results / "runs" / f"{key}.retry").symlink_to(tmp_path / "made")
    with served(sample.results) as port:
        assert ask(port, retry_address(sample), "POST", X_Requested_With="luigi_prune")[0] == 409
    assert not (tmp_path / "made").exists()


def test_a_token_file_is_made_once_and_read_by_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    token = read_token(path)
    assert len(token) >= 24
    assert read_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"others can read {path}; run `chmod 600"):
        read_token(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="no token of at least 16 characters"):
        read_token(path)
    with pytest.raises(ConfigError, match="cannot write"):
        read_token(tmp_path / "missing" / "token")


def test_luigis_page_links_to_ours(sample):
    with served(sample.results) as port:
        body = ask(port, "/static/visualiser/index.html")[1].decode()
    assert '<li><a href="/experiments">Experiments</a></li>' in body
