"""What `luigid` refuses before it serves anything."""

from __future__ import annotations

import pytest

from luigi_prune.__main__ import main
from luigi_prune.commands import luigid


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "0.0.0.0"], "at 0.0.0.0 everybody in the network could read and change runs; add --token FILE"),
        (["--address", "::"], "add --token FILE"),
        (["--results", "missing"], "luigid: --results missing: no such folder"),
        (["--token", "missing/token"], "--token: cannot write missing/token"),
    ],
)
def test_options_that_are_refused(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(luigid, "serve", lambda *arguments: pytest.fail("it serves"))
    assert main(["luigid", *options]) == 35
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_printed_is_what_a_browser_and_a_run_need(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(luigid, "serve", lambda scheduler, gate, address, port, ready: ready(port))
    assert main(["luigid", "--state-path", "state", "--token", "token", "--port", "8099"]) == 0
    token, printed = (tmp_path / "token").read_text().strip(), capsys.readouterr().out
    assert f"experiments: http://127.0.0.1:8099/experiments?token={token}" in printed
    assert f"[core] default_scheduler_url=http://luigi:{token}@127.0.0.1:8099" in printed
