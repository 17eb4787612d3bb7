"""How jobs get into SLURM: a folder, one request file per job, one sbatch for all of them, through submitit.

<results>/slurm/<name>/<index>.json       what the job is told
<results>/slurm/<name>/submitted.json     the job id, once there is one
<results>/slurm/<name>/call.pkl           what submitit's processes call
<results>/slurm/<name>/<id>_<rank>_log.out   what SLURM and the start of the job printed
<results>/slurm/news/<name>.<index>.json  what the job says (news.py)
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from luigi_prune.execution.job import Job
from luigi_prune.execution.output import last_lines
from luigi_prune.execution.preload import THREAD_VARIABLES
from luigi_prune.execution.slurm import entrypoint
from luigi_prune.execution.slurm.cli import Client, CommandFailed
from luigi_prune.execution.slurm.options import Resources

CALL = "call.pkl"


def new_folder(parent: str | Path) -> Path:
    """Return a new, private folder for a submission below `parent`; its name is that of the SLURM job."""
    parent = Path(parent).absolute()
    (parent / "news").mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = parent / f"lp-{secrets.token_hex(5)}"
    folder.mkdir(mode=0o700)
    return folder


def submit(
    folder: Path, jobs: Sequence[Job], context: dict[str, Any], resources: Resources, exclude: str, parallelism: int
) -> str:
    """Submit `jobs` as one array (or one job) and return the SLURM job id; raises CommandFailed.

    `context` are the fields of Context that do not depend on the process; `exclude` are nodes to keep away from.
    """
    from submitit.helpers import DelayedSubmission

    with outside_of_slurm():
        try:
            _write_requests(folder, jobs, context)
            DelayedSubmission(entrypoint.run, str(folder)).dump(folder / CALL)
            executor = _executor(folder, resources, context["threads"], exclude, parallelism or len(jobs))
            with executor.batch():
                submitted = [executor.submit(entrypoint.run, str(folder)) for _ in jobs]
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise CommandFailed(_said(error)) from error
    job_id = str(submitted[0].job_id).partition("_")[0]
    with suppress(OSError):  # a job that has been submitted is found by its name, too
        _record(folder, job_id, len(jobs))
    return job_id


def _write_requests(folder: Path, jobs: Sequence[Job], context: dict[str, Any]) -> None:
    for index, job in enumerate(jobs):
        request = {"job": job.as_json(), "context": context, "directory": os.getcwd()}
        (folder / f"{index}.json").write_text(json.dumps(request))


def _record(folder: Path, job_id: str, count: int) -> None:
    private = folder / ".submitted.json"
    private.write_text(json.dumps({"job_id": job_id, "count": count}))
    os.replace(private, folder / "submitted.json")


def element_id(folder: str | Path, index: int) -> str:
    """Return the SLURM id of element `index` of a submission; "" where it has not been submitted."""
    with suppress(OSError, ValueError, KeyError):
        submitted = json.loads((Path(folder) / "submitted.json").read_text())
        return f"{submitted['job_id']}_{index}" if submitted["count"] > 1 else str(submitted["job_id"])
    return ""


def adopt_lost(folder: str | Path, job_id: str) -> None:
    """Write down the id of a submission whose driver died before it could."""
    folder = Path(folder)
    _record(folder, job_id, len(list(folder.glob("[0-9]*.json"))))


def test(client: Client, resources: Resources) -> None:
    """Ask the site whether it would take such a job; raises CommandFailed with what it says."""
    with tempfile.TemporaryDirectory(prefix="luigi_prune_") as folder, outside_of_slurm():
        executor = _executor(Path(folder), resources, 1, "", 1)
        script = Path(folder) / "script.sh"
        script.write_text(executor._make_submission_file_text("true", "test"))
        client.call("sbatch", "--test-only", str(script))


def start_log_path(folder: str | Path, slurm_id: str) -> Path:
    """Return the file that takes what SLURM and the start of a job print, before its own log takes over."""
    return Path(folder) / f"{slurm_id}_0_log.out"


def start_log(folder: str | Path, slurm_id: str) -> str:
    """Return the last lines of what SLURM and the start of a job printed."""
    return last_lines(start_log_path(folder, slurm_id))


def _executor(folder: Path, resources: Resources, threads: int, exclude: str, parallelism: int) -> Any:
    """Return the submitit executor that writes the script for such jobs."""
    from submitit.slurm.slurm import SlurmExecutor

    executor = SlurmExecutor(folder, python=resources.python or None)
    own: dict[str, Any] = {key: True if text == "true" else text for key, text in resources.sbatch}
    if "no-requeue" not in own:
        own["requeue"] = True
    if exclude:
        own["exclude"] = ",".join(filter(None, (str(own.get("exclude", "")), exclude)))
    executor.update_parameters(
        job_name=folder.name,
        nodes=resources.nodes,
        ntasks_per_node=resources.processes_per_node,
        cpus_per_task=resources.cpus_per_task,
        gpus_per_node=resources.gpus_per_node or None,
        mem=None if resources.mem_gb is None else f"{max(1, round(resources.mem_gb * 1024))}MB",
        time=resources.timeout_min,
        signal_delay_s=resources.signal_delay_s,
        array_parallelism=parallelism,
        wckey=None,  # submitit's own default is refused by sites that keep a list of them
        stderr_to_stdout=True,
        setup=[*(f"export {name}={threads}" for name in THREAD_VARIABLES), *_place_call(folder), *resources.setup],
        # srun does not take over the number of CPUs; a process that dies takes the others along
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_task}"],
        additional_parameters=own,
    )
    return executor


def _place_call(folder: Path) -> list[str]:
    """Return shell lines that put the call where submitit's processes look for it.

    submitit does so itself, once sbatch has told it the job id; a driver that is killed before that leaves a job
    behind that would wait for the file in vain.
    """
    job = '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"'
    place, call = f"{shlex.quote(str(folder))}/{job}", shlex.quote(str(folder / CALL))
    return [f"[ -e {place} ] || cp {call} {place}"]


@contextmanager
def outside_of_slurm() -> Iterator[None]:
    """Hide the allocation that this process may itself run in: sbatch would take its variables for options."""
    inner = {name: text for name, text in os.environ.items() if name.startswith("SLURM_") and name != "SLURM_CONF"}
    for name in inner:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(inner)


def _said(error: Exception) -> str:
    """Return what sbatch said, out of the exception that submitit makes of it."""
    lines = [line.strip() for line in str(error).splitlines()]
    own = [line for line in lines if line.startswith(("sbatch:", "Batch job"))]
    return " ".join(own) or " ".join(filter(None, lines))[-500:]
