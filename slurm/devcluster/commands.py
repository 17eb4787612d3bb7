"""The commands of slurm/dev_cluster, each given the folder and the command line's options."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
from pathlib import Path

from devcluster import daemons
from devcluster.configuration import Settings, free_ports, read_settings, write_configuration
from devcluster.machine import namespaces_work
from devcluster.processes import ClusterError, ask, cluster_processes, daemon, eventually, kill_all, stop


def chosen(options: argparse.Namespace) -> Settings:
    private = "host" if namespaces_work() else "none"
    return Settings(
        nodes=options.nodes,
        cpus=options.cpus,
        gpus=options.gpus,
        memory=options.memory,
        accounting=options.accounting,
        namespaces="network" if options.network_namespaces else private,
        max_array_size=options.max_array_size,
        grace_time=options.grace_time,
        port=free_ports(options.nodes + 2),
        network=random.randrange(1, 251),
        overrides=options.set,
    )


def up(folder: Path, options: argparse.Namespace) -> None:
    """Start a cluster; returns when every node is idle and accounting answers. On failure, nothing is left running."""
    if cluster_processes(folder):
        if not daemons.node_states(folder):
            raise ClusterError(f"{folder}: part of a cluster is running here; first run {sys.argv[0]} down {folder}")
        print(f"{folder}: is up")
        return
    settings = chosen(options)
    if any(folder.iterdir()) and not (folder / "etc" / "cluster.json").exists():
        raise ClusterError(f"{folder}: contains something other than a cluster")
    for name in ("dev", "log", "pids", "run", "spool", "state"):  # old jobs are forgotten, accounting is kept
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("dev", "etc", "log", "pids", "run", "spool", "state"):
        (folder / name).mkdir(exist_ok=True)
    write_configuration(folder, settings)
    try:
        daemons.start_all(folder, settings)
    except BaseException:
        show_logs(folder)
        end(folder)
        raise
    print(f"{folder}: {settings.nodes} nodes are up; now: . {folder}/env.sh")


def show_logs(folder: Path, lines: int = 8) -> None:
    for path in sorted((folder / "log").iterdir()):
        if path.suffix == ".out" and path.with_suffix(".log").exists():
            continue  # the same lines without times
        text = path.read_text(errors="replace").splitlines()[-lines:]
        if text:
            print(f"==> {path} <==", *text, sep="\n", file=sys.stderr)


def end(folder: Path) -> list[int]:
    """End every process of a cluster, jobs first; return the pids of those that survived."""
    kill_all(lambda: [pid for pid, name in cluster_processes(folder).items() if name not in daemons.ENDED_GENTLY])
    for name in daemons.ENDED_GENTLY:
        stop(folder, name)
    survivors = kill_all(lambda: list(cluster_processes(folder)))
    if not survivors:
        shutil.rmtree(folder / "pids", ignore_errors=True)
    daemons.remove_network(folder)
    return survivors


def down(folder: Path, options: argparse.Namespace) -> None:
    read_settings(folder)
    survivors = end(folder)
    if survivors:
        raise ClusterError(f"{folder}: cannot be killed: {' '.join(map(str, survivors))}")
    if options.delete:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{folder}: is down")


def status(folder: Path, options: argparse.Namespace) -> None:
    """Print daemons, nodes and the lengths of the queues; raises ClusterError if the controller does not answer."""
    settings = read_settings(folder)
    for name in daemons.names(settings):
        print(f"{name:12} {daemon(folder, name) or 'stopped'}")
    states = daemons.node_states(folder)
    if not states:
        raise ClusterError(f"{folder}: is down")
    for node, state in states.items():
        print(f"{node:12} {state}")
    jobs = (ask(folder, "squeue", "-h", "-r", "-o", "%T") or "").split()
    print("queue       ", ", ".join(f"{jobs.count(state)} {state}" for state in sorted(set(jobs))) or "empty")


def kill_node(folder: Path, options: argparse.Namespace) -> None:
    """Crash a node: kill its slurmd, all steps and all processes of jobs on it at once."""
    node = checked_node(folder, options.node)
    daemons.connect(folder, node, False)  # a crashing machine closes no connections
    names = {node, f"slurmd-{node}"}
    kill_all(lambda: [pid for pid, name in cluster_processes(folder).items() if name in names])
    (folder / "pids" / f"slurmd-{node}").unlink(missing_ok=True)


def stop_slurmd(folder: Path, options: argparse.Namespace) -> None:
    """Stop only the daemon; its steps keep running."""
    stop(folder, f"slurmd-{checked_node(folder, options.node)}", signal.SIGKILL)


def start_node(folder: Path, options: argparse.Namespace) -> None:
    """Start a node's slurmd again; returns when the controller reports it as usable."""
    node = checked_node(folder, options.node)
    daemons.connect(folder, node, True)
    if daemon(folder, f"slurmd-{node}") is None:
        daemons.start_slurmd(folder, read_settings(folder), node)
    if not eventually(lambda: daemons.node_states(folder).get(node) in daemons.WORKING, 30):
        raise ClusterError(f"{node}: is {daemons.node_states(folder).get(node)} 30 s after its start")


def checked_node(folder: Path, node: str) -> str:
    names = read_settings(folder).names
    if node not in names:
        raise ClusterError(f"{node}: no such node; there are {' '.join(names)}")
    return node


def disconnect_node(folder: Path, options: argparse.Namespace) -> None:
    """Cut a node off the network; its processes keep running."""
    daemons.connect(folder, checked_node(folder, options.node), False, insist=True)


def connect_node(folder: Path, options: argparse.Namespace) -> None:
    daemons.connect(folder, checked_node(folder, options.node), True, insist=True)


def stop_controller(folder: Path, options: argparse.Namespace) -> None:
    stop(folder, "slurmctld", signal.SIGKILL if options.crash else signal.SIGTERM)


def start_controller(folder: Path, options: argparse.Namespace) -> None:
    if daemon(folder, "slurmctld") is None:
        daemons.start_controller(folder, read_settings(folder))


def restart_controller(folder: Path, options: argparse.Namespace) -> None:
    stop_controller(folder, options)
    start_controller(folder, options)


def stop_accounting(folder: Path, options: argparse.Namespace) -> None:
    stop(folder, "slurmdbd")


def start_accounting(folder: Path, options: argparse.Namespace) -> None:
    settings = read_settings(folder)
    if not settings.accounting:
        raise ClusterError(f"{folder}: was started with --no-accounting")
    if daemon(folder, "slurmdbd") is None:
        daemons.start_accounting(folder, settings)
