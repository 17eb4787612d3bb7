"""Claims: exactly one driver gets each attempt, whatever other drivers do or leave behind."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from luigi_prune.execution import claims


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where a result will be; its folder does not exist yet."""
    return tmp_path / "results" / "keep0.5.json"


def of_this_process(output: Path) -> claims.Claim:
    claim = claims.make_claim(output, "/slurm/lp-mine", 3, 1)
    assert claim is not None
    return claim


def test_a_claim_says_which_job_and_whose(output: Path):
    assert claims.newest(output) is None
    claim = of_this_process(output)
    assert (claim.name, claim.index, claim.attempt, claim.pid) == ("lp-mine", 3, 1, os.getpid())
    assert claims.newest(output) == claim
    assert [path.name for path in output.parent.iterdir()] == [".keep0.5.json.claim-1"]


def test_an_attempt_is_claimed_once_and_the_highest_counts(output: Path):
    first = of_this_process(output)
    assert claims.make_claim(output, "/slurm/lp-other", 0, 1) is None
    assert claims.newest(output) == first
    for attempt in (2, 10):
        claims.make_claim(output, f"/slurm/lp-{attempt}", 0, attempt)
    newest = claims.newest(output)
    assert newest is not None
    assert newest.name == "lp-10"
    assert claims.last_attempt(output) == 10


def test_release_removes_all_claims_to_one_result_and_no_others(output: Path):
    neighbour = output.with_name("keep0.5.json.claim-1.json")
    for attempt in (1, 2):
        claims.make_claim(output, "/slurm/lp-a", 0, attempt)
    kept = claims.make_claim(neighbour, "/slurm/lp-b", 0, 1)
    claims.release(output)
    claims.release(output)
    assert claims.newest(output) is None
    assert claims.newest(neighbour) == kept


def test_many_threads_at_once_make_one_claim(output: Path):
    barrier, won = threading.Barrier(16), []

    def try_it(number: int) -> None:
        barrier.wait()
        if claims.make_claim(output, f"/slurm/lp-{number}", number, 1):
            won.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claim = claims.newest(output)
    assert claim is not None
    assert [claim.index] == won
    assert len(list(output.parent.iterdir())) == 1


def test_many_processes_at_once_make_one_claim_per_attempt(output: Path):
    code = (
        "import sys; from luigi_prune.execution import claims; sys.stdin.read(1);"
        "print([n for n in range(1, 40) if claims.make_claim(sys.argv[1], '/lp-' + sys.argv[2], 0, n)])"
    )
    command = [sys.executable, "-c", code, str(output)]
    started = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("g")
        process.stdin.flush()
    won = [json.loads(process.communicate()[0]) for process in started]
    assert sorted(attempt for attempts in won for attempt in attempts) == list(range(1, 40))
    for number, attempts in enumerate(won):
        for attempt in attempts:
            claim = claims.read_claim(claims.claim_path(output, attempt))
            assert claim is not None
            assert claim.name == f"lp-{number}"


def test_without_hard_links_a_claim_is_as_exclusive(output: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(claims.os, "link", refuse)
    claim = of_this_process(output)
    assert claims.newest(output) == claim
    assert claims.make_claim(output, "/slurm/lp-other", 0, 1) is None
    assert len(list(output.parent.iterdir())) == 1


def test_a_link_that_a_network_file_system_made_twice_is_ours(output: Path, monkeypatch: pytest.MonkeyPatch):
    link = os.link

    def asked_twice(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(claims.os, "link", asked_twice)
    claim = of_this_process(output)
    assert claims.newest(output) == claim


def test_a_full_disk_leaves_no_claim(output: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: str, text: str) -> None:
        Path(path).parent.mkdir()
        Path(path).touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(claims, "_write", refuse)
    with pytest.raises(OSError, match="No space left"):
        of_this_process(output)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"folder": "/lp-x"}', "\udcff", "null"])
def test_a_damaged_claim_counts_as_an_attempt_and_as_nothing_else(output: Path, text: str):
    first = of_this_process(output)
    claims.claim_path(output, 2).write_bytes(text.encode(errors="surrogateescape"))
    assert claims.newest(output) == first
    assert claims.last_attempt(output) == 2
    third = claims.make_claim(output, "/slurm/lp-third", 0, 3)
    assert claims.newest(output) == third


def test_a_claim_with_values_of_the_wrong_kind_is_damaged(output: Path):
    of_this_process(output)
    text = claims.claim_path(output, 1).read_text()
    claims.claim_path(output, 1).write_text(text.replace('"/slurm/lp-mine"', "7"))
    assert claims.newest(output) is None
    assert claims.last_attempt(output) == 1


def test_a_driver_that_lives_may_be_submitting_and_a_dead_one_is_not(output: Path):
    claim = of_this_process(output)
    assert claims.is_submitting(output, claim)
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        other = replace(claim, pid=sleeper.pid, born=claims.process_identity(sleeper.pid))
        assert claims.is_submitting(output, other)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not claims.is_submitting(output, other)


def test_a_process_that_only_got_the_number_of_a_dead_driver_is_not_it(output: Path):
    claim = of_this_process(output)
    boot, _, started = claim.born.rpartition(":")
    assert boot
    assert not claims.is_submitting(output, replace(claim, born=f"{boot}:{int(started) - 1}"))
    assert not claims.is_submitting(output, replace(claim, born=f"another-boot:{started}"))


def test_a_driver_on_another_machine_is_given_some_time(output: Path):
    claim = replace(of_this_process(output), host=f"not-{socket.gethostname()}", pid=1, born="x")
    path = claims.claim_path(output, 1)
    assert claims.is_submitting(output, claim)
    before = path.stat().st_mtime - claims._SUBMIT_SECONDS - 1
    os.utime(path, (before, before))
    assert not claims.is_submitting(output, claim)
    path.unlink()
    assert not claims.is_submitting(output, claim)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    name=st.text(st.sampled_from("ab[]*?!-.0 é%"), min_size=1, max_size=8).filter(lambda name: name.strip(".")),
    steps=st.lists(
        st.tuples(st.sampled_from(["make_claim", "damage", "release", "other"]), st.integers(1, 4)), max_size=12
    ),
)
def test_whatever_happens_the_newest_claim_is_the_highest_that_can_be_read(tmp_path, name: str, steps: list):
    output = tmp_path / "out" / name
    claims.release(output)
    known: dict[int, claims.Claim | None] = {}
    for step, attempt in steps:
        if step == "make_claim":
            claim = claims.make_claim(output, f"/lp-{len(known)}", 0, attempt)
            assert (claim is None) == (attempt in known)
            known[attempt] = known.get(attempt) if claim is None else claim
        elif step == "damage" and attempt in known:
            claims.claim_path(output, attempt).write_text('{"fold')
            known[attempt] = None
        elif step == "release":
            claims.release(output)
            known.clear()
        else:  # claims to another result have no effect
            claims.make_claim(tmp_path / "out" / f"{name}x", "/lp-x", 0, attempt)
        readable = [claim for _, claim in sorted(known.items()) if claim is not None]
        assert claims.newest(output) == (readable[-1] if readable else None)
        assert claims.last_attempt(output) == max(known, default=0)
