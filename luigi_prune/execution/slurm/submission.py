"""Submission of jobs through submitit: a folder, one request file per job, one sbatch for all of them.

<results>/slurm/<name>/<index>.json          the job's request
<results>/slurm/<name>/submitted.json        the SLURM job id
<results>/slurm/<name>/call.pkl              the call that submitit's processes make
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
_STOP_AT_FAILURE = """trap 'code=$?; echo "setup failed (exit code $code): $BASH_COMMAND" >&2; exit $code' ERR"""
_NAME = re.compile("lp-[0-9a-f]{10}")


def new_folder(parent: str | Path) -> Path:
    """Return a new private folder for a submission below `parent`; its name becomes the SLURM job's name."""
    parent = Path(parent).absolute()
    (parent / "news").mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = parent / f"lp-{secrets.token_hex(5)}"
    folder.mkdir(mode=0o700)
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
    folder: Path,
    jobs: Sequence[Job],
    context: dict[str, Any],
    resources: Resources,
    exclude: str,
    parallelism: int,
    seconds: float,
) -> str:
    """Submit `jobs` as one array (or one job) and return the SLURM job id; raises CommandFailed.

    `context` has the fields of Context that do not depend on the process; `exclude` lists nodes to avoid. sbatch is
    killed if it does not answer within `seconds`.
    """
    from submitit.helpers import DelayedSubmission

    with outside_of_slurm():
        try:
            _write_requests(folder, jobs, context)
            DelayedSubmission(entrypoint.run, str(folder)).dump(folder / CALL)
            executor = _executor(folder, resources, context["threads"], exclude, parallelism or len(jobs), seconds)
            with executor.batch():
                submitted = [executor.submit(entrypoint.run, str(folder)) for _ in jobs]
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise CommandFailed(_sbatch_message(error, seconds)) from error
    job_id = str(submitted[0].job_id).partition("_")[0]
    with suppress(OSError):  # without the id, the job is found by its name
        _write_id(folder, job_id, len(jobs))
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
    """Return the SLURM id of element `index` of a submission; "" if it has not been submitted."""
    with suppress(OSError, ValueError, KeyError):
        submitted = json.loads((Path(folder) / "submitted.json").read_text())
        return f"{submitted['job_id']}_{index}" if submitted["count"] > 1 else str(submitted["job_id"])
    return ""


def record_id(folder: str | Path, job_id: str) -> None:
    """Record the id of a submission whose driver died before doing so."""
    folder = Path(folder)
    _write_id(folder, job_id, len(list(folder.glob("[0-9]*.json"))))


def clear_folder(folder: Path, parent: str | Path, in_use: bool, failed: bool) -> None:
    """Remove a submission's folder once it is not in use; only its pickles if one of its jobs has `failed`.

    Folders of other users, and those that are not below `parent`, are left alone.
    """
    if not may_be_deleted(folder, parent):
        return
    mark = folder / "failed"
    if failed:
        mark.touch()
    if in_use:
        return
    if mark.exists():
        for pickle in folder.glob("*.pkl"):
            pickle.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def test_submission(client: Client, resources: Resources) -> None:
    """Test with `sbatch --test-only` whether the site accepts such a job; raises CommandFailed with its message."""
    with tempfile.TemporaryDirectory(prefix="luigi_prune_") as folder, outside_of_slurm():
        executor = _executor(Path(folder), resources, 1, "", 1, client.seconds)
        script = Path(folder) / "script.sh"
        script.write_text(executor._make_submission_file_text("true", "test"))
        client.call("sbatch", "--test-only", str(script))


def start_log_path(folder: str | Path, slurm_id: str) -> Path:
    """Return the file with the output of SLURM and of the job's start, before the job's own log begins."""
    return Path(folder) / f"{slurm_id}_0_log.out"


def start_log(folder: str | Path, slurm_id: str) -> str:
    """Return the last lines of the output of SLURM and of the job's start."""
    return last_lines(start_log_path(folder, slurm_id))


def _executor(folder: Path, resources: Resources, threads: int, exclude: str, parallelism: int, seconds: float) -> Any:
    """Return the submitit executor that writes the batch script and calls sbatch, for `seconds` at most."""
    from submitit.slurm.slurm import SlurmExecutor

    class Executor(SlurmExecutor):
        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            return [*_time_limit(seconds), *super()._make_submission_command(submission_file_path)]

    executor = Executor(folder, python=resources.python or None)
    options: dict[str, Any] = {key: True if text == "true" else text for key, text in resources.sbatch}
    if "no-requeue" not in options:
        options["requeue"] = True
    if exclude:
        options["exclude"] = ",".join(filter(None, (str(options.get("exclude", "")), exclude)))
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
        wckey=None,  # sites with a fixed list of them refuse submitit's default
        stderr_to_stdout=True,
        setup=[
            *(f"export {name}={threads}" for name in THREAD_VARIABLES),
            *_copy_call(folder),
            *([] if resources.setup_may_fail else [_STOP_AT_FAILURE]),
            *resources.setup,
            "trap - ERR",
        ],
        # srun does not inherit the number of CPUs; if one process dies, the others are killed
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_task}"],
        additional_parameters=options,
    )
    return executor


def _time_limit(seconds: float) -> list[str]:
    """Return the start of a command that ends another one after `seconds`: `timeout` of coreutils, if it is there."""
    program = shutil.which("timeout") or shutil.which("timeout", path=os.defpath)
    return [program, "--kill-after=5", f"{seconds:g}"] if program else []


def _copy_call(folder: Path) -> list[str]:
    """Return shell lines that copy the call to where submitit's processes read it.

    submitit does so itself after sbatch has returned the job id; if the driver is killed before that, the job would
    wait for the file in vain.
    """
    job = '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"'
    target, call = f"{shlex.quote(str(folder))}/{job}", shlex.quote(str(folder / CALL))
    return [f"[ -e {target} ] || cp {call} {target}"]


@contextmanager
def outside_of_slurm() -> Iterator[None]:
    """Hide the variables of an allocation that this process may run in: sbatch would read them as options."""
    variables = {name: text for name, text in os.environ.items() if name.startswith("SLURM_") and name != "SLURM_CONF"}
    for name in variables:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(variables)


def _sbatch_message(error: Exception, seconds: float) -> str:
    """Return sbatch's message from the exception that submitit raises."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, subprocess.CalledProcessError) and cause.returncode in (124, 137):
            return f"sbatch: no answer within {seconds:g} s"
        cause = cause.__cause__ or cause.__context__
    lines = [line.strip() for line in str(error).splitlines()]
    messages = [line for line in lines if line.startswith(("sbatch:", "Batch job"))]
    return " ".join(messages) or " ".join(filter(None, lines))[-500:]
