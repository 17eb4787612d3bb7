"""Finds the job that a user names by key, title, job id or path of a result."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
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
    """The log of a task, over all its attempts."""

    path: Path
    title: str  # as in the file name: with "-" for characters other than letters and digits
    key: str  # its first twelve digits
    name: str  # for people
    submitted: SubmittedJob | None = None  # its newest job on a cluster, if the request still exists
    remote: RemoteJobs | None = None  # of the backend of that job
    job_ids: tuple[str, ...] = ()

    @property
    def output(self) -> Path | None:
        """Path of the result, if known from a submission."""
        return Path(self.submitted.job.output) if self.submitted else None


def find_log(results: Path, name: str, keys: Collection[str] | None = None) -> JobLog:
    """Return the job below a results folder that `name` identifies, among those with `keys`; raises ConfigError."""
    known = [log for log in known_logs(results) if keys is None or log.key in keys]
    if not known:
        raise ConfigError(f"{results}: no job logs here; --results names another folder")
    searches: tuple[Callable[[Sequence[JobLog], str], list[JobLog]], ...] = (_by_path, _by_job_id, _by_key, _by_title)
    for search in searches:
        matches = search(known, name)
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ConfigError(f"{name!r} matches {len(matches)} jobs: {_listed(matches)}; add words, or use a key")
    raise ConfigError(f"{results}: no job is called {name!r}{nearest(name, {log.name for log in known})}")


def known_logs(results: Path) -> list[JobLog]:
    """Return all jobs with a log or a submission to a cluster, by title."""
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


def _by_path(known: Sequence[JobLog], path: str) -> list[JobLog]:
    if Path(path).suffix not in (".h5", ".html", ".log"):
        return []
    keys = _KEY.findall(str(Path(path).absolute()))
    return [log for log in known if keys and log.key == keys[-1]]


def _by_job_id(known: Sequence[JobLog], asked: str) -> list[JobLog]:
    remotes = [remote for remote in remote_jobs() if remote.is_id(asked)]
    if not remotes:
        return []
    submitted = [log for log in known if log.remote and any(log.remote.same_id(asked, id_) for id_ in log.job_ids)]
    return submitted or [log for log in known if any(_contains_id(log.path, asked, remote) for remote in remotes)]


def _contains_id(log: Path, asked: str, remote: RemoteJobs) -> bool:
    """Return whether a log contains this job id, which a job prints at its start; its submission may be deleted."""
    try:
        ids = re.findall(rf"\b{re.escape(remote.label)} (\S+)$", log.read_text(errors="replace"), re.M)
    except OSError:
        return False
    return any(remote.same_id(asked, job_id) for job_id in ids)


def _by_key(known: Sequence[JobLog], key: str) -> list[JobLog]:
    if not re.fullmatch(r"[0-9a-f]{3,64}", key):
        return []
    return [log for log in known if log.key.startswith(key[:12])]


def _by_title(known: Sequence[JobLog], text: str) -> list[JobLog]:
    """Return the jobs of the first match: this title, these words in it, this part of it, each word somewhere."""
    query, *words = (log_path("", part, "").stem.removesuffix("-").lower() for part in (text, *text.split()))
    if not query:
        return []

    def has_words(part: str, title: str) -> bool:
        return re.search(rf"(?<![a-z0-9_.]){re.escape(part)}(?![a-z0-9_.])", title) is not None

    rules: tuple[Callable[[str], bool], ...] = (
        lambda title: title == query,
        lambda title: has_words(query, title),
        lambda title: query in title,
        lambda title: all(has_words(word, title) for word in words),
    )
    for rule in rules:
        if matches := [log for log in known if rule(log.title.lower())]:
            return matches
    return []


def _listed(logs: Sequence[JobLog]) -> str:
    shown = ", ".join(f"{log.name} ({log.key})" for log in logs[:_SHOWN])
    return shown + (", ..." if len(logs) > _SHOWN else "")
