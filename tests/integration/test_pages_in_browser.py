"""The pages of `python -m luigi_prune luigid` in a real browser: what they show, and that they follow a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from luigi_prune.results.run_records import RETRY, TaskNews, experiment_path, write_record
from tests.chromium import Tab, browser
from tests.integration.test_luigid import free_port
from tests.web.sample import Sample, in_the_middle

pytestmark = pytest.mark.slow
DRAWN = "Number(document.body.dataset.drawn) >= 1"
# reports of the server's processes have dots for pictures
DOTS = """import sys
if "report" in sys.argv:
    from tests.blank_pictures import dots
    drawn = dots()
    drawn.__enter__()
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Sample:
    return in_the_middle(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def luigid(sample, tmp_path_factory) -> Iterator[str]:
    """Start the server and return the address of its pages."""
    port, folder = free_port(), tmp_path_factory.mktemp("luigid")
    (folder / "sitecustomize.py").write_text(DOTS)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).parents[2])]
    command = [sys.executable, "-m", "luigi_prune", "luigid", "--port", str(port), "--results", str(sample.results)]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), "PYTHONPATH": os.pathsep.join(path)}
    server = subprocess.Popen(command, cwd=folder, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/experiments", server)
        yield f"http://127.0.0.1:{port}/experiments"
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            urllib.request.urlopen(address, timeout=10).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("luigid did not answer")


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as tab:
        tab.looks(1440, 900)
        yield tab


def squares(tab: Tab, state: str) -> int:
    return int(tab.evaluate(f"document.querySelectorAll('.matrix .square.{state}').length"))


def test_the_overview_leads_to_the_experiment(tab, luigid, sample):
    tab.open(luigid, DRAWN)
    text = tab.text()
    assert "lenet300_100 on Digits" in text
    assert "about 10 min left" in text
    tab.evaluate("document.querySelector('h2 a').click()")
    tab.wait(f"location.pathname.endsWith('/e/{sample.id}') && {DRAWN}")


def test_the_matrix_shows_states_and_follows_the_run_without_a_reload(tab, luigid, sample):
    tab.open(f"{luigid}/e/{sample.id}", DRAWN)
    assert [squares(tab, state) for state in ("running", "queued", "failed", "done")] == [1, 1, 1, 1]
    assert {"Prune", "Retrain"} <= set(tab.text().split())
    assert "Priority" in tab.text()
    tab.evaluate("document.querySelector('.matrix .square.running').click(); window.stays = 'here'")
    assert "Prune" in tab.evaluate("document.querySelector('.chosen-tasks').innerText")
    waiting = sample.task("Prune", keep_ratio=0.2)
    sample.tell(running={**sample.news.running, waiting.key: TaskNews(message="scores", fraction=0.9)})
    tab.wait("document.querySelectorAll('.matrix .square.running').length === 2")
    assert tab.evaluate("window.stays") == "here"


def test_what_is_selected_focused_and_scrolled_stays_while_the_page_updates_itself(tab, luigid, sample):
    tab.open(f"{luigid}/e/{sample.id}", DRAWN)
    tab.evaluate("getSelection().selectAllChildren([...document.querySelectorAll('code')].at(-1))")
    tab.evaluate("document.querySelector('table.runs a').focus()")
    tab.wait("Number(document.body.dataset.drawn) >= 3")
    assert str(tab.evaluate("String(getSelection())")).startswith("luigi --config")
    assert tab.evaluate("document.activeElement.closest('table').className") == "list runs"


def test_a_method_without_a_label_has_a_row(tab, luigid, sample):
    path = experiment_path(sample.results, sample.experiment.name, sample.experiment.key)
    write_record(path, sample.experiment.model_copy(update={"labels": {"ThresNet": "WT"}}))
    tab.open(f"{luigid}/e/{sample.id}", f"{DRAWN} && document.querySelector('.matrix th[title=SnipNet]')")
    assert [squares(tab, state) for state in ("failed", "done")] == [1, 1]
    write_record(path, sample.experiment)


def test_a_task_shows_its_log_as_text_and_its_curves(tab, luigid, sample):
    running = next(iter(sample.news.running))
    tab.open(f"{luigid}/t/{running[:12]}", DRAWN)
    assert "<script>document.title = 'owned'</script>" in tab.evaluate("document.getElementById('log').textContent")
    assert tab.evaluate("document.scripts.length") == 1
    assert tab.evaluate("document.title") != "owned"
    assert tab.evaluate("document.querySelector('main b[onclick]')") is None
    tab.open(f"{luigid}/e/{sample.id}/t/{sample.task('TrainBase').key[:12]}", DRAWN)
    assert tab.evaluate("document.querySelectorAll('.chart svg polyline').length") == 2
    assert "12_3" in tab.text()


def test_a_failed_task_can_be_run_again(tab, luigid, sample):
    failed = next(iter(sample.news.failed))
    sample.tell()
    tab.open(f"{luigid}/e/{sample.id}/t/{failed[:12]}", DRAWN)
    assert "Traceback" in tab.evaluate("document.querySelector('pre.failure').textContent")
    tab.evaluate("document.querySelector('button.main').click()")
    tab.wait("document.body.innerText.includes('Asked')")
    assert [path.name for path in sample.results.glob(f"runs/*{RETRY}")] == [f"{failed}{RETRY}"]
    assert tab.evaluate("document.querySelector('button.main').disabled")
    sample.tell(failed={failed: TaskNews(message="Traceback ...\nValueError: again", since=time.time())})
    tab.wait("!document.querySelector('button.main').disabled")  # it has failed again


def test_a_button_writes_the_report_on_the_results_that_exist(tab, luigid, sample):
    tab.open(f"{luigid}/e/{sample.id}", DRAWN)
    assert "No partial report: no network is evaluated yet" in tab.text()
    assert tab.evaluate("document.getElementById('write').offsetParent") is None
    sample.evaluate(sample.task("Evaluate", method="ReferenceNet"), sample.task("Evaluate", method="ThresNet"))
    tab.wait("document.getElementById('write').offsetParent")
    tab.evaluate("document.getElementById('write').click()")
    tab.wait("document.body.innerText.includes('Reads results and draws plots, for')")
    assert tab.evaluate("document.getElementById('write').disabled")
    tab.wait("/Written .* ago; \\d+ of \\d+ results missing/.test(document.body.innerText)")
    assert "Renew the partial report" in tab.text()
    tab.evaluate("document.querySelector('a.button.main').click()")
    tab.wait("document.body.innerText.includes('PARTIAL')")
    assert tab.evaluate("location.pathname").endswith("/report-partial/report.html")


@pytest.mark.parametrize("dark", [False, True])
def test_every_page_fits_a_phone_and_is_legible_in_the_dark(tab, luigid, sample, dark):
    tab.looks(390, 800, dark)
    pages = [
        "",
        f"/e/{sample.id}",
        f"/t/{next(iter(sample.news.failed))[:12]}",
        f"/t/{next(iter(sample.news.queue))[:12]}",
    ]
    for page in pages:
        tab.open(f"{luigid}{page}", DRAWN)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        assert tab.evaluate(CONTRAST) > 4.5
    tab.looks(1440, 900)


# of the text of the page and of what is quieter, with the ground; as WCAG 2 defines it
CONTRAST = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.querySelector('.sheet')).backgroundColor);
  const texts = [...document.querySelectorAll('.sheet, .quiet, a:not(.main)')];
  const inks = texts.map((one) => light(getComputedStyle(one).color));
  return Math.min(...inks.map((ink) => (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05)));
})()"""
