"""How each daemon of a cluster is started, and when it is ready."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from devcluster.configuration import Settings, read_settings, user_name
from devcluster.processes import PATH, ClusterError, answers, ask, await_daemon, daemon, environment, start

# the others are killed; each is needed by those before it
ENDED_GENTLY = ("slurmctld", "slurmdbd", "mariadbd", "munged")
WORKING = {"idle", "mixed", "allocated", "completing", "draining", "drained"}


def start_database(folder: Path) -> None:
    """Start MariaDB, which listens on its socket only."""
    if not (folder / "database" / "mysql").exists():
        install_database(folder)
    start(folder, "mariadbd", ["mariadbd", f"--defaults-file={folder}/etc/my.cnf"])
    await_daemon(folder, "mariadbd", lambda: answers(f"{folder}/run/mariadb.sock"), "database")


def install_database(folder: Path) -> None:
    """Write the system tables of MariaDB.

    Its temporary files lie in the cluster's folder: a server that starts removes those of other servers in /tmp.
    """
    command = ["mariadb-install-db", "--no-defaults", f"--user={user_name()}", f"--datadir={folder}/database"]
    command += [f"--tmpdir={folder}/run", "--auth-root-authentication-method=socket", "--skip-test-db"]
    command += ["--skip-name-resolve"]
    log = folder / "log" / "mariadb-install-db.out"
    with open(log, "w") as output:
        done = subprocess.run(command, env=environment(folder), stdout=output, stderr=output, cwd="/")
    if done.returncode != 0:
        shutil.rmtree(folder / "database", ignore_errors=True)
        errors = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line]
        raise ClusterError("mariadb-install-db failed" + "".join(f": {line}" for line in errors[-1:]))


def start_munged(folder: Path) -> None:
    places = {"socket": "run/munge.sock", "key-file": "etc/munge.key", "seed-file": "run/munged.seed"}
    places |= {"log-file": "log/munged.log", "pid-file": "run/munged.pid"}
    options = [f"--{name}={folder}/{place}" for name, place in places.items()]
    # by force: it would not live in a home or a temporary folder that only its owner may enter
    start(folder, "munged", ["munged", "--foreground", "--force", *options])
    await_daemon(folder, "munged", lambda: answers(f"{folder}/run/munge.sock"), "authentication")


def start_accounting(folder: Path, settings: Settings) -> None:
    start(folder, "slurmdbd", ["slurmdbd", "-D"], MYSQL_UNIX_PORT=f"{folder}/run/mariadb.sock")
    await_daemon(folder, "slurmdbd", lambda: answers((settings.address, settings.port + 1)), "accounting")


def start_controller(folder: Path, settings: Settings) -> None:
    start(folder, "slurmctld", ["slurmctld", "-D"])
    await_daemon(folder, "slurmctld", lambda: answers((settings.address, settings.port)), "controller")


def make_machine(folder: Path, settings: Settings, node: str) -> None:
    """Start the process that holds a node's host name, /etc/hosts and network while its slurmd comes and goes."""
    network = settings.namespaces == "network"
    script = (
        'hostname "$1" && mount -n --bind "$2" /etc/hosts && (! [ "$3" ] || ip link set lo up) && exec sleep infinity'
    )
    command = ["unshare", "--uts", "--mount", "--propagation", "slave", *(["--net"] if network else [])]
    command += [
        "sh",
        "-c",
        f"{script} && exec sleep infinity",
        "sh",
        node,
        f"{folder}/etc/hosts",
        "network" if network else "",
    ]
    pid = start(folder, f"machine-{node}", command)
    command_name = Path(f"/proc/{pid}/comm")  # of the script's last command, once it got there
    await_daemon(folder, f"machine-{node}", lambda: command_name.read_text() == "sleep\n", f"namespaces of {node}")
    if network:
        i, k = int(node[1:]), settings.network
        system("ip", "link", "add", f"v{k}-{i}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        system("ip", "link", "set", f"v{k}-{i}", "master", f"dev{k}", "up")
        inside = ["nsenter", "-t", str(pid), "--net"]
        system(*inside, "ip", "addr", "add", f"{settings.address_of(i)}/24", "dev", "eth0")
        system(*inside, "ip", "link", "set", "eth0", "up")


def system(*command: str) -> None:
    done = subprocess.run(command, env={**os.environ, "PATH": PATH}, capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")


def start_slurmd(folder: Path, settings: Settings, node: str) -> None:
    inside = []
    if settings.namespaces != "none":
        inside = ["nsenter", "-t", str(daemon(folder, f"machine-{node}")), "--uts", "--mount"]
        inside += ["--net"] if settings.namespaces == "network" else []
    start(folder, f"slurmd-{node}", [*inside, "slurmd", "-D", "-N", node])


def names(settings: Settings) -> list[str]:
    """Return the names of all daemons that belong to a cluster."""
    accounting = ["mariadbd", "slurmdbd"] if settings.accounting else []
    machines = [f"machine-{node}" for node in settings.names if settings.namespaces != "none"]
    return ["munged", *accounting, "slurmctld", *machines, *(f"slurmd-{node}" for node in settings.names)]


def node_states(folder: Path) -> dict[str, str]:
    """Return node -> state, {} if the controller does not answer."""
    if daemon(folder, "slurmctld") is None:  # the clients would try for 9 s
        return {}
    lines = (ask(folder, "sinfo", "-h", "-N", "-p", "main", "-o", "%N %T") or "").splitlines()
    return dict(line.split() for line in lines)


def start_all(folder: Path, settings: Settings) -> None:
    """Start everything; returns when all nodes are idle and accounting knows the cluster."""
    start_munged(folder)
    if settings.namespaces == "network":
        system("ip", "link", "add", f"dev{settings.network}", "type", "bridge")
        system("ip", "address", "add", f"{settings.address}/24", "dev", f"dev{settings.network}")
        system("ip", "link", "set", f"dev{settings.network}", "up")
    if settings.namespaces != "none":
        for node in settings.names:
            make_machine(folder, settings, node)
    if settings.accounting:
        start_database(folder)
        start_accounting(folder, settings)
    start_controller(folder, settings)
    for node in settings.names:
        start_slurmd(folder, settings, node)
    idle = dict.fromkeys(settings.names, "idle")
    await_daemon(folder, "slurmctld", lambda: node_states(folder) == idle, "idle nodes")
    if settings.accounting:
        registered = ("sacctmgr", "-n", "-P", "show", "cluster", "format=controlport")
        await_daemon(
            folder, "slurmdbd", lambda: (ask(folder, *registered) or "").strip() == str(settings.port), "sacct"
        )


def connect(folder: Path, node: str, connected: bool, insist: bool = False) -> None:
    """Connect or disconnect a node; without network namespaces, raises if `insist`, else does nothing."""
    settings = read_settings(folder)
    if settings.namespaces == "network":
        system("ip", "link", "set", f"v{settings.network}-{node[1:]}", "up" if connected else "down")
    elif insist:
        raise ClusterError(f"{folder}: was started without --network-namespaces")


def remove_network(folder: Path) -> None:
    """Remove the bridge between the nodes; their own interfaces went with their last process."""
    with contextlib.suppress(ClusterError):
        settings = read_settings(folder)
        if settings.namespaces == "network":
            system("ip", "link", "del", f"dev{settings.network}")
