"""Failures on the terminal: one alone in full, hundreds with the same message in one note."""

from __future__ import annotations

from luigi_prune.workflow.failure_notes import FailureNotes, listed


def notes_of(*failures: tuple[str, str]) -> list[str]:
    printed: list[str] = []
    notes = FailureNotes(printed.append, seconds=60)
    for title, message in failures:
        notes.add(title, message)
    assert not printed
    notes.flush()
    notes.flush()
    return printed


def test_hundreds_of_cancelled_jobs_are_one_line():
    messages = [f"SLURM job 12_{n}: the SLURM job was cancelled\nlog: /r/logs/job{n}.log" for n in range(300)]
    assert notes_of(*((f"Retrain net{n}", message) for n, message in enumerate(messages))) == [
        "[failed] Retrain net0 and 299 more: SLURM job 12_0: the SLURM job was cancelled"
    ]


def test_a_failure_alone_is_printed_with_its_log_and_different_ones_apart():
    first = "SLURM job 12_0: Traceback\nValueError: the seventh layer is missing\nlog: /r/logs/a.log"
    second = "SLURM job 12_1: Traceback\nValueError: the eighth layer is missing\nlog: /r/logs/b.log"
    assert notes_of(("A", first), ("B", second)) == [f"[failed] A\n{first}", f"[failed] B\n{second}"]


def test_several_with_the_same_traceback_show_it_once():
    (note,) = notes_of(*((name, f"job {number}:\nValueError: no") for number, name in enumerate("ABC")))
    assert note == "[failed] A and 2 more:\njob 0:\nValueError: no"


def test_a_summary_lists_some_and_counts_the_rest():
    assert listed(["A", "B"]) == ["  failed: A", "  failed: B"]
    lines = listed([str(number) for number in range(300)])
    assert len(lines) == 9
    assert lines[-1] == "  failed: 292 more"
