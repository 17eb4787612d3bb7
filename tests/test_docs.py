"""Commands, links and versions in the documents are correct."""

from __future__ import annotations

import re
from pathlib import Path

import luigi_prune

ROOT = Path(luigi_prune.__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Return the two commands at the top of the README: the one that runs the sample, the one that tests."""
    blocks = re.findall(r"```sh\n(.*?)\n```", README, flags=re.DOTALL)
    return blocks[:2]


def test_the_two_commands_stand_at_the_top_and_need_nothing_before_them():
    run, test = commands()
    assert README.index(test) < 1500
    assert run.endswith("luigi --module luigi_prune RunExperiment")
    assert run.startswith("python3 -m venv")
    assert test.startswith("python3 -m venv")
    assert "pytest" in test


def test_ci_calls_exactly_the_test_command():
    assert commands()[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_link_between_documents_leads_somewhere():
    documents = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + list(
        (ROOT / "docs").glob("*.md")
    )
    links = [
        (document, link)
        for document in documents
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    ]
    assert len(links) > 3
    assert [link for document, link in links if not (document.parent / link).exists()] == []


def test_the_versions_of_python_are_those_of_the_metadata():
    assert "Python 3.10 to 3.13" in README
    assert "python_requires = >=3.10" in (ROOT / "setup.cfg").read_text()
