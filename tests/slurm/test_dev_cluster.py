"""slurm/dev_cluster on real daemons: it comes up, its failures are those of a site, nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import DEV_CLUSTER, Cluster, dev_cluster, environments, eventually, processes_of

NODES = ["n1", "n2", "n3", "n4"]


def run_of(folder: Path, job: str) -> list[int]:
    """Return the pids of a job's processes."""
    environment = environments()
    return [pid for pid in processes_of(folder) if environment.get(pid, {}).get("SLURM_JOB_ID") == job]


def test_a_command_runs_on_every_node_under_its_name(cluster: Cluster):
    done = cluster.run("srun", "-N4", "sh", "-c", "echo $SLURMD_NODENAME $(hostname)")
    lines = dict(line.split() for line in done.stdout.splitlines())
    assert sorted(lines) == NODES
    if os.geteuid() == 0:
        assert all(node == host for node, host in lines.items())
        assert cluster.run("srun", "-w", "n1", "getent", "hosts", "n4").stdout.split()[1] == "n4"


def test_a_job_sees_the_gpus_that_it_asked_for_and_no_other_job_has(cluster: Cluster):
    two = cluster.run("srun", "-w", "n1", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES").stdout
    none = cluster.run("srun", "-w", "n1", "sh", "-c", "echo ${CUDA_VISIBLE_DEVICES-none}").stdout
    per_task = cluster.run("srun", "-N1", "-n4", "--gpus-per-task=1", "printenv", "CUDA_VISIBLE_DEVICES").stdout
    assert (two, none) == ("0,1\n", "none\n")
    assert sorted(per_task.split()) == ["0", "1", "2", "3"]
    refused = cluster.run("sbatch", "--gpus-per-node=5", "--wrap", "true", check=False)
    assert "Requested node configuration is not available" in refused.stderr


def test_more_jobs_run_at_once_than_this_machine_has_cores(cluster: Cluster):
    array = cluster.sbatch("--array=0-39", wrap="sleep 60")
    assert eventually(lambda: list(cluster.squeue().values()).count("RUNNING") == 40)
    assert set(cluster.run("squeue", "-h", "-r", "-o", "%N").stdout.split()) == set(NODES)
    cluster.run("scancel", array)


def test_accounting_knows_how_a_job_ended(cluster: Cluster):
    job = cluster.sbatch(wrap="exit 3")
    assert eventually(lambda: cluster.sacct(job) == [(job, "FAILED")])
    tres = cluster.run("srun", "--gpus-per-node=2", "printenv", "SLURM_JOB_ID").stdout.strip()
    question = ("sacct", "-n", "-X", "-P", "-o", "alloctres", "-j", tres)
    assert eventually(lambda: "gres/gpu=2" in cluster.run(*question).stdout)


def test_a_dependency_that_cannot_be_met_ends_the_job(cluster: Cluster):
    waiting = cluster.sbatch("-d", f"afterok:{cluster.sbatch(wrap='exit 1')}")
    assert eventually(lambda: cluster.sacct(waiting) == [(waiting, "CANCELLED")])


def test_a_job_over_its_memory_is_killed(cluster: Cluster, tmp_path: Path):
    command = "python3 -c 'import time; much = bytearray(300_000_000); time.sleep(60)'"
    job = cluster.sbatch("--mem=50", "-o", tmp_path / "output", wrap=command)
    assert eventually(lambda: cluster.sacct(job) in ([(job, "FAILED")], [(job, "OUT_OF_MEMORY")]))
    assert "exceeded memory limit" in (tmp_path / "output").read_text()


def test_a_preempted_job_is_warned_and_runs_again(cluster: Cluster, tmp_path: Path):
    script = tmp_path / "low"
    script.write_text("trap 'echo warned; sleep 60' USR2; echo run $SLURM_RESTART_COUNT; while :; do sleep 0.1; done\n")
    options = ("-p", "low", "-N4", "--exclusive", "--signal=USR2@90", "--open-mode=append", "-o", tmp_path / "output")
    cluster.run("scontrol", "update", "partitionname=low", "gracetime=3")
    low = cluster.sbatch(*options, wrap=f"srun -n1 -N1 bash {script}")
    assert eventually(lambda: (tmp_path / "output").exists() and "run" in (tmp_path / "output").read_text())
    high = cluster.sbatch("-p", "high", "-N4", "--exclusive")
    assert eventually(lambda: (high, "COMPLETED") in cluster.sacct(high))
    assert eventually(lambda: "run 1" in (tmp_path / "output").read_text())
    assert "warned" in (tmp_path / "output").read_text()
    assert cluster.sacct(low)[0][1] in ("PREEMPTED", "REQUEUED")
    assert cluster.squeue() == {low: "RUNNING"}


@pytest.mark.slow
def test_a_node_that_crashed_is_noticed_and_comes_back(cluster: Cluster):
    job = cluster.sbatch("-w", "n2", wrap="sleep 600")
    other = cluster.sbatch("-w", "n3", wrap="sleep 600")
    assert eventually(lambda: set(cluster.squeue().values()) == {"RUNNING"} and run_of(cluster.folder, job))
    cluster.kill_node("n2")
    assert run_of(cluster.folder, job) == []
    assert run_of(cluster.folder, other)
    assert eventually(lambda: (job, "NODE_FAIL") in cluster.sacct(job), 120)
    assert cluster.nodes()["n2"].startswith("down")
    assert cluster.squeue() == {job: "PENDING", other: "RUNNING"}
    cluster.start_node("n2")
    assert eventually(lambda: cluster.squeue()[job] == "RUNNING")


def test_the_steps_of_a_node_outlive_its_daemon(cluster: Cluster):
    job = cluster.sbatch("-w", "n2", wrap="sleep 600")
    assert eventually(lambda: run_of(cluster.folder, job))
    cluster.stop_slurmd("n2")
    assert "slurmd-n2    stopped" in cluster.do("status")
    assert run_of(cluster.folder, job)
    cluster.start_node("n2")
    assert cluster.squeue() == {job: "RUNNING"}


@pytest.mark.parametrize("crash", [False, True])
def test_the_queue_outlives_the_controller(cluster: Cluster, crash: bool):
    running = cluster.sbatch(wrap="sleep 600")
    held = cluster.sbatch("--hold")
    expected = {running: "RUNNING", held: "PENDING"}
    assert eventually(lambda: cluster.squeue() == expected)
    state, now = cluster.folder / "state" / "job_state", time.time()
    cluster.run("scontrol", "update", f"jobid={held}", "comment=changed")
    assert eventually(lambda: state.exists() and state.stat().st_mtime > now)  # what a crash leaves is some seconds old
    cluster.restart_controller(crash)
    assert cluster.squeue() == expected
    assert cluster.run("srun", "-N1", "hostname").stdout


def test_without_its_controller_a_cluster_is_down_and_starts_again(cluster: Cluster):
    cluster.stop_controller()
    done = dev_cluster("status", cluster.folder)
    assert (done.returncode, done.stderr) == (1, f"dev_cluster: {cluster.folder}: is down\n")
    assert "slurmctld    stopped" in done.stdout
    again = dev_cluster("up", cluster.folder)
    assert again.returncode == 1
    assert "part of a cluster is running here" in again.stderr
    cluster.start_controller()
    assert "4" in cluster.run("sinfo", "-h", "-o", "%D").stdout


def test_without_accounting_daemon_jobs_run_and_are_accounted_for_later(cluster: Cluster):
    cluster.stop_accounting()
    assert cluster.run("sacct", check=False).returncode == 1
    job = cluster.sbatch()
    assert eventually(lambda: cluster.squeue() == {})
    cluster.start_accounting()
    assert eventually(lambda: cluster.sacct(job) == [(job, "COMPLETED")])


def test_up_twice_is_up_once(cluster: Cluster):
    before = cluster.do("status")
    assert cluster.do("up") == f"{cluster.folder}: is up\n"
    assert cluster.do("status") == before


def test_a_second_cluster_beside_it_without_accounting(cluster: Cluster, start_cluster: Callable[..., Cluster]):
    second = start_cluster("--nodes", 2, "--gpus", 0, "--no-accounting", "--max-array-size", 5, "--set", "KillWait=3")
    assert sorted(second.nodes()) == ["n1", "n2"]
    assert second.run("srun", "-N2", "echo", "here").stdout == "here\n" * 2
    done = second.run("sacct", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Slurm accounting storage is disabled\n")
    assert "Invalid job array specification" in second.run("sbatch", "-a", "0-5", "--wrap", "true", check=False).stderr
    assert "KillWait                = 3 sec" in second.run("scontrol", "show", "config").stdout
    job = cluster.sbatch(wrap="sleep 600")
    assert eventually(lambda: run_of(cluster.folder, job))
    stubborn = second.sbatch(
        "-N2", wrap="trap '' TERM USR2; (setsid sleep 601 &); srun sh -c \"trap '' TERM; sleep 602\""
    )
    assert eventually(lambda: len(run_of(second.folder, stubborn)) > 4)
    done = dev_cluster("down", second.folder)
    assert done.returncode == 0, done.stderr
    assert processes_of(second.folder) == []
    assert run_of(cluster.folder, job)


def test_its_database_spares_the_temporary_files_of_other_servers(start_cluster: Callable[..., Cluster]):
    path = Path(f"/tmp/#sql-temptable-{os.getpid()}")  # MariaDB removes such files in its tmpdir when it starts
    path.touch()
    try:
        start_cluster("--nodes", 1)
        assert path.exists()
    finally:
        path.unlink(missing_ok=True)


def test_down_with_delete_leaves_no_folder_and_spares_the_shell_beside(start_cluster: Callable[..., Cluster]):
    cluster = start_cluster("--nodes", 1, "--no-accounting")
    with subprocess.Popen(["sleep", "600"], env=cluster.environment) as shell:
        try:
            assert f"{cluster.folder}: is down" in cluster.do("down", "--delete")
            assert shell.poll() is None
        finally:
            shell.send_signal(signal.SIGKILL)
    assert not cluster.folder.exists()


def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing(slurm_is_installed: None, tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    done = dev_cluster("up", folder, "--no-accounting", "--set", "SelectType=select/nonsense")
    assert done.returncode == 1
    assert "Can't find plugin for select/nonsense" in done.stderr
    assert done.stderr.splitlines()[-1] == "dev_cluster: controller: slurmctld ended"
    assert processes_of(folder) == []


def test_the_folder_of_something_else_is_left_alone(slurm_is_installed: None, tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    (folder / "state").mkdir()
    for command, words in [
        ("up", "contains something other than a cluster"),
        ("down", "no cluster was ever started here"),
    ]:
        done = dev_cluster(command, folder)
        assert (done.returncode, done.stderr) == (1, f"dev_cluster: {folder}: {words}\n")
    assert [path.name for path in folder.iterdir()] == ["state"]


def test_a_path_too_long_for_sockets_is_refused(slurm_is_installed: None, tmp_path: Path):
    done = dev_cluster("up", tmp_path / ("x" * 70))
    assert "too long for the paths of sockets" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_programs_are_named_with_their_packages(tmp_path: Path):
    """Needs no SLURM: a PATH, and system folders, that have none are made of one folder."""
    code = "import sys, devcluster.processes as p; p.PATH = sys.argv.pop(1); sys.argv[0] = 'dev_cluster'; "
    code += f"import runpy; runpy.run_path({str(DEV_CLUSTER)!r}, run_name='__main__')"
    command = [sys.executable, "-c", code, str(tmp_path), "up", str(tmp_path / "c")]
    environment = {**os.environ, "PYTHONPATH": str(DEV_CLUSTER.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == (
        "dev_cluster: mariadb-install-db, mariadbd, munged, sinfo, slurmctld, slurmd, slurmdbd not found: "
        "apt-get install --no-install-recommends mariadb-server munge slurm-wlm slurmdbd\n"
    )
    assert not (tmp_path / "c").exists()
