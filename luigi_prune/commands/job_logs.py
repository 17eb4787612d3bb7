"""Which job a person means: by key, title, job id or path of a result."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.backends import remote_jobs
from luigi_prune.execution.remote_jobs import RemoteJobs, SubmittedJob
from luigi_prune.identity.paths import log_path

_LOG = re.compile(r"(?P<title>.+)-(?P<key>[0-9a-f]{12})")
_KEY = re.compile(r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])")
_SHOWN = 6


@dataclass(frozen=True)
class JobLog:
    """The output of a task, over all its attempts."""

    path: Path
    title: str  # as in the name of the file: what is no letter or digit is "-"
    key: str  # its first twelve digits
    name: str  # as people read it
    submitted: SubmittedJob | None = None  # the newest job of a cluster, as long as its request is there
    remote: RemoteJobs | None = None  # of the backend that has it
    job_ids: tuple[str, ...] = ()

    @property
    def output(self) -> Path | None:
        """The result, where a submission says which it is."""
        return Path(self.submitted.job.output) if self.submitted else None


def find(results: Path, what: str) -> JobLog:
    """Return the one job that `what` means below a results folder; raises ConfigError."""
    known = known_logs(results)
    if not known:
        raise ConfigError(f"{results}: no job has left a log here; --results names another folder")
    ways: tuple[Callable[[Sequence[JobLog], str], list[JobLog]], ...] = (_by_path, _by_job_id, _by_key, _by_title)
    for way in ways:
        found = way(known, what)
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{what!r} may be any of {len(found)} jobs: {_listed(found)}; say more, or a key")
    raise ConfigError(f"{results}: no job is called {what!r}{nearest(what, {log.name for log in known})}")


def known_logs(results: Path) -> list[JobLog]:
    """Return every job that has printed something or was submitted to a cluster, by title."""
    known = {}
    for path in (results / "logs").glob("*.log"):
        if match := _LOG.fullmatch(path.stem):
            known[path.name] = JobLog(path, match["title"], match["key"], match["title"].replace("-", " "))
    submissions = [(submitted, remote) for remote in remote_jobs() for submitted in remote.submitted(results)]
    for submitted, remote in sorted(submissions, key=lambda entry: entry[0].age, reverse=True):
        log = Path(submitted.job.log)
        if match := _LOG.fullmatch(log.stem):
            new = JobLog(results / "logs" / log.name, match["title"], match["key"], submitted.job.name)
            ids = (*known.get(log.name, new).job_ids, submitted.job_id)
            known[log.name] = replace(new, submitted=submitted, remote=remote, job_ids=ids)
    return sorted(known.values(), key=lambda log: (log.title, log.key))


def _by_path(known: Sequence[JobLog], what: str) -> list[JobLog]:
    if Path(what).suffix not in (".h5", ".html", ".log"):
        return []
    keys = _KEY.findall(str(Path(what).absolute()))
    return [log for log in known if keys and log.key == keys[-1]]


def _by_job_id(known: Sequence[JobLog], what: str) -> list[JobLog]:
    asked = [remote for remote in remote_jobs() if remote.is_id(what)]
    if not asked:
        return []
    submitted = [log for log in known if log.remote and any(log.remote.same_id(what, own) for own in log.job_ids)]
    return submitted or [log for log in known if any(_mentions(log.path, what, remote) for remote in asked)]


def _mentions(log: Path, what: str, remote: RemoteJobs) -> bool:
    """Return whether a job said at its start that it has this id: its submission may be long gone."""
    try:
        ids = re.findall(rf"\b{re.escape(remote.label)} (\S+)$", log.read_text(errors="replace"), re.M)
    except OSError:
        return False
    return any(remote.same_id(what, job_id) for job_id in ids)


def _by_key(known: Sequence[JobLog], what: str) -> list[JobLog]:
    if not re.fullmatch(r"[0-9a-f]{3,64}", what):
        return []
    return [log for log in known if log.key.startswith(what[:12])]


def _by_title(known: Sequence[JobLog], what: str) -> list[JobLog]:
    """Return the jobs with this title, or else those in whose title it stands: as whole words, if it does so in any.

    Where it stands in none, those whose title has each of its words.
    """
    wanted, *words = (log_path("", text, "").stem.removesuffix("-").lower() for text in (what, *what.split()))
    if not wanted:
        return []

    def whole(part: str, title: str) -> bool:
        return re.search(rf"(?<![a-z0-9_.]){re.escape(part)}(?![a-z0-9_.])", title) is not None

    ways: tuple[Callable[[str], bool], ...] = (
        lambda title: title == wanted,
        lambda title: whole(wanted, title),
        lambda title: wanted in title,
        lambda title: all(whole(word, title) for word in words),
    )
    for fits in ways:
        if found := [log for log in known if fits(log.title.lower())]:
            return found
    return []


def _listed(logs: Sequence[JobLog]) -> str:
    shown = ", ".join(f"{log.name} ({log.key})" for log in logs[:_SHOWN])
    return shown + (", ..." if len(logs) > _SHOWN else "")
