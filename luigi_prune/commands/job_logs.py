"""Which job a person means: by key, title, SLURM id or path of a result."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luigi_prune.backends.slurm.submitted import Submitted, submitted_jobs
from luigi_prune.errors import ConfigError, nearest
from luigi_prune.store import jobs_folder, log_path

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
    submitted: Submitted | None = None  # the newest SLURM job, as long as its folder is there
    slurm_ids: tuple[str, ...] = ()

    @property
    def output(self) -> Path | None:
        """The result, where a submission says which it is."""
        return Path(self.submitted.job.output) if self.submitted else None


def find(results: Path, what: str) -> JobLog:
    """Return the one job that `what` means below a results folder; raises ConfigError."""
    known = known_logs(results)
    if not known:
        raise ConfigError(f"{results}: no job has left a log here; --results names another folder")
    ways: tuple[Callable[[Sequence[JobLog], str], list[JobLog]], ...] = (_by_path, _by_slurm_id, _by_key, _by_title)
    for way in ways:
        found = way(known, what)
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"{what!r} may be any of {len(found)} jobs: {_listed(found)}; say more, or a key")
    raise ConfigError(f"{results}: no job is called {what!r}{nearest(what, {log.name for log in known})}")


def known_logs(results: Path) -> list[JobLog]:
    """Return every job that has printed something or was submitted to SLURM, by title."""
    known = {}
    for path in (results / "logs").glob("*.log"):
        if match := _LOG.fullmatch(path.stem):
            known[path.name] = JobLog(path, match["title"], match["key"], match["title"].replace("-", " "))
    submissions = sorted(submitted_jobs(jobs_folder(results)), key=lambda submitted: submitted.age, reverse=True)
    for submitted in submissions:
        log = Path(submitted.job.log)
        if match := _LOG.fullmatch(log.stem):
            new = JobLog(results / "logs" / log.name, match["title"], match["key"], submitted.job.name)
            ids = (*known.get(log.name, new).slurm_ids, submitted.slurm_id)
            known[log.name] = replace(new, submitted=submitted, slurm_ids=ids)
    return sorted(known.values(), key=lambda log: (log.title, log.key))


def _by_path(known: Sequence[JobLog], what: str) -> list[JobLog]:
    if Path(what).suffix not in (".h5", ".html", ".log"):
        return []
    keys = _KEY.findall(str(Path(what).absolute()))
    return [log for log in known if keys and log.key == keys[-1]]


def _by_slurm_id(known: Sequence[JobLog], what: str) -> list[JobLog]:
    if not re.fullmatch(r"\d+(_\d+)?", what):
        return []
    submitted = [log for log in known if any(what in (own, own.partition("_")[0]) for own in log.slurm_ids)]
    return submitted or [log for log in known if _mentions(log.path, what)]


def _mentions(log: Path, slurm_id: str) -> bool:
    """Return whether a job said at its start that it has this SLURM id: its submission may be long gone."""
    line = re.compile(rf"\bSLURM job {slurm_id}(_\d+)?\n" if "_" not in slurm_id else rf"\bSLURM job {slurm_id}\n")
    try:
        return bool(line.search(log.read_text(errors="replace")))
    except OSError:
        return False


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
