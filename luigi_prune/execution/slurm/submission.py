"""Submission of jobs: a folder, one request file per job, one script by submitit, one sbatch for all of them.

<results>/slurm/<name>/<index>.json          the job's request
<results>/slurm/<name>/elements.json         which jobs share an element of the array (elements.py)
<results>/slurm/<name>/submitted.json        the SLURM job id
<results>/slurm/<name>/script.sh             the script for sbatch
<results>/slurm/<name>/<id>_<rank>_log.out   output of SLURM and of the job's start
<results>/slurm/news/<name>.<index>.json     the job's heartbeat (heartbeat.py)
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from luigi_prune.execution.job import Job
from luigi_prune.execution.output import last_lines
from luigi_prune.execution.preload import THREAD_VARIABLES
from luigi_prune.execution.slurm import elements as array_elements
from luigi_prune.execution.slurm import entrypoint
from luigi_prune.execution.slurm.cli import Client, CommandFailed
from luigi_prune.execution.slurm.options import Resources

_STOP_AT_FAILURE = """trap 'code=$?; echo "setup failed (exit code $code): $BASH_COMMAND" >&2; exit $code' ERR"""
_NAME = re.compile("lp-[0-9a-f]{10}")


def new_folder(parent: str | Path) -> Path:
    """Return a new folder for a submission below `parent`; its name becomes the SLURM job's name.

    Only this user may write to it, since its script is run; others may read it, if the umask allows that: their drivers
    wait for its jobs.
    """
    parent = Path(parent).absolute()
    (parent / "news").mkdir(parents=True, exist_ok=True)
    folder = parent / f"lp-{secrets.token_hex(5)}"
    folder.mkdir(mode=0o755)
    return folder


def may_be_deleted(folder: Path, parent: str | Path) -> bool:
    """Return whether `folder` is a submission below `parent` that this user made.

    The names of submissions come from claims, which anybody who may write to a results folder can plant or copy.
    """
    try:
        status = folder.lstat()
        mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        return mine and _NAME.fullmatch(folder.name) is not None and os.path.samefile(folder.parent, parent)
    except OSError:
        return False


def submit_array(
    client: Client,
    folder: Path,
    elements: Sequence[Sequence[Job]],
    context: dict[str, Any],
    resources: Resources,
    exclude: str,
    parallelism: int,
) -> str:
    """Submit `elements`, each with its jobs, as one array (or one job); return the SLURM id or raise CommandFailed.

    `context` has the fields of Context that do not depend on the process; `exclude` lists nodes to avoid.
    """
    script = folder / "script.sh"
    try:
        _write_requests(folder, [job for element in elements for job in element], context)
        array_elements.write_elements(folder, [len(element) for element in elements])
        command = start_command(resources, folder)
        count = len(elements) if len(elements) > 1 else None
        script.write_text(batch_script(folder, resources, command, context["threads"], exclude, count, parallelism))
    except OSError as error:
        raise CommandFailed(str(error)) from error
    answer = client.call("sbatch", "--parsable", str(script), environment=outside_of_slurm())
    job_id = answer.strip().partition(";")[0]  # on a federation of clusters, the cluster's name follows
    if not job_id.isdigit():
        raise CommandFailed(f"sbatch: expected a job id, got {answer.strip()!r}", ended=False)
    with suppress(OSError):  # without the id, the job is found by its name
        _write_id(folder, job_id, len(elements))
    return job_id


def _write_requests(folder: Path, jobs: Sequence[Job], context: dict[str, Any]) -> None:
    for index, job in enumerate(jobs):
        request = {"job": job.as_json(), "context": context, "directory": os.getcwd()}
        (folder / f"{index}.json").write_text(json.dumps(request))


def _write_id(folder: Path, job_id: str, count: int) -> None:
    private = folder / ".submitted.json"
    private.write_text(json.dumps({"job_id": job_id, "count": count}))
    os.replace(private, folder / "submitted.json")


def element_id(folder: str | Path, index: int) -> str:
    """Return the SLURM id of the element that runs job `index` of a submission; "" if it has not been submitted."""
    with suppress(OSError, ValueError, KeyError):
        submitted = json.loads((Path(folder) / "submitted.json").read_text())
        if submitted["count"] == 1:
            return str(submitted["job_id"])
        return array_elements.slurm_id(folder, submitted["job_id"], index, submitted["count"])
    return ""


def record_id(folder: str | Path, job_id: str) -> None:
    """Record the id of a submission whose driver died before doing so."""
    folder = Path(folder)
    count = len(array_elements.read_elements(folder)) or len(list(folder.glob("[0-9]*.json")))
    _write_id(folder, job_id, count)


def clear_folder(folder: Path, parent: str | Path, in_use: bool, failed: bool) -> None:
    """Remove a submission's folder once it is not in use, unless one of its jobs has `failed`: its log is named then.

    Folders of other users, and those that are not below `parent`, are left alone.
    """
    if not may_be_deleted(folder, parent):
        return
    mark = folder / "failed"
    if failed:
        mark.touch()
    if not in_use and not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)


def test_submission(client: Client, resources: Resources) -> None:
    """Test with `sbatch --test-only` whether the site accepts such a job; raises CommandFailed with its message."""
    with tempfile.TemporaryDirectory(prefix="luigi_prune_") as folder:
        script = Path(folder) / "script.sh"
        script.write_text(batch_script(Path(folder), resources, "true"))
        client.call("sbatch", "--test-only", str(script), environment=outside_of_slurm())


def start_log_path(folder: str | Path, slurm_id: str) -> Path:
    """Return the file with the output of SLURM and of the job's start, before the job's own log begins."""
    return Path(folder) / f"{slurm_id}_0_log.out"


def start_log(folder: str | Path, slurm_id: str) -> str:
    """Return the last lines of the output of SLURM and of the job's start."""
    return last_lines(start_log_path(folder, slurm_id))


def batch_script(
    folder: Path,
    resources: Resources,
    command: str,
    threads: int = 1,
    exclude: str = "",
    count: int | None = None,
    parallelism: int = 0,
) -> str:
    """Return the script for sbatch, which starts `command` in each process of `count` elements (None: no array).

    submitit writes it; its processes, pickles and signal handlers are not used.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    options: dict[str, Any] = {key: True if text == "true" else text for key, text in resources.sbatch}
    if "no-requeue" not in options:
        options["requeue"] = True
    if exclude:
        options["exclude"] = ",".join(filter(None, (str(options.get("exclude", "")), exclude)))
    text = _make_sbatch_string(
        command,
        folder,
        job_name=folder.name,
        nodes=resources.nodes,
        ntasks_per_node=resources.processes_per_node,
        cpus_per_task=resources.cpus_per_task,
        gpus_per_node=resources.gpus_per_node or None,
        mem=None if resources.mem_gb is None else f"{max(1, round(resources.mem_gb * 1024))}MB",
        time=resources.timeout_min,
        signal_delay_s=resources.signal_delay_s,
        map_count=count,
        array_parallelism=parallelism or count or 1,
        wckey=None,  # sites with a fixed list of them refuse submitit's default
        stderr_to_stdout=True,
        setup=[
            *(f"export {name}={threads}" for name in THREAD_VARIABLES),
            *([] if resources.setup_may_fail else [_STOP_AT_FAILURE]),
            *resources.setup,
            "trap - ERR",
        ],
        # srun does not inherit the number of CPUs; if one process dies, the others are killed
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_task}"],
        additional_parameters=options,
    )
    return str(text)


def start_command(resources: Resources, folder: Path) -> str:
    """Return the shell command that starts a process of a submission's jobs.

    Until the process has handlers of its own, it ignores USR2, which would end it.
    """
    python = resources.python or shlex.quote(sys.executable)
    start = f"trap '' USR2; exec {python} -u -m {entrypoint.__name__} {shlex.quote(str(folder))}"
    return f"sh -c {shlex.quote(start)}"


def outside_of_slurm() -> dict[str, str]:
    """Return the environment without the allocation that this process may run in: sbatch would read it as options."""
    return {name: text for name, text in os.environ.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
