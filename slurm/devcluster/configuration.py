"""Settings of a cluster, and the configuration files of its daemons."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from string import Template

from devcluster.processes import ClusterError

TEMPLATES = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """Settings that `up` was given or chose; kept in DIR/etc/cluster.json for the later commands."""

    nodes: int
    cpus: int
    gpus: int
    memory: int  # MB per node
    accounting: bool
    namespaces: str  # none, host (a host name per node) or network (an address per node, too)
    max_array_size: int
    grace_time: int  # seconds
    port: int  # of slurmctld; slurmdbd and the nodes have the next ones
    network: int  # 10.77.<network>.0/24, with namespaces == "network"
    overrides: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where the controller listens."""
        return f"10.77.{self.network}.254" if self.namespaces == "network" else "127.0.0.1"

    def address_of(self, node: int) -> str:
        return f"10.77.{self.network}.{node}" if self.namespaces == "network" else "127.0.0.1"

    @property
    def names(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.nodes + 1)]


def user_name() -> str:
    """Return the user that all daemons run as."""
    return pwd.getpwuid(os.geteuid()).pw_name


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive free TCP ports, below those assigned to clients."""
    for _ in range(1000):
        first = random.randrange(10000, 32000 - count)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("", port))
            return first
    raise ClusterError("found no free TCP ports between 10000 and 32000")


def overridden(text: str, lines: list[str]) -> str:
    """Return slurm.conf with each of `lines` replacing the line with the same key, or appended."""
    for line in lines:
        # PartitionName=low is its own key
        named = line.partition("=")[0] in ("PartitionName", "NodeName")
        start = line.split()[0] + " " if named else line.partition("=")[0] + "="
        text = "\n".join([*(old for old in text.splitlines() if not f"{old} ".startswith(start)), line, ""])
    return text


def write_configuration(folder: Path, settings: Settings) -> None:
    """Write the daemons' configuration files, and env.sh for the clients."""
    values = {
        "folder": folder,
        "user": user_name(),
        "host": socket.gethostname().split(".")[0],
        "address": settings.address,
        "controller_port": settings.port,
        "accounting_port": settings.port + 1,
        "memory_per_cpu": settings.memory // settings.cpus,
        "max_array_size": settings.max_array_size,
        "first_job": int(time.time()) % 600000 * 100 + 1,
    }
    files = {path.name: Template(path.read_text()).substitute(values) for path in TEMPLATES.glob("*.c*")}
    lines = [*accounting_lines(folder, settings), *node_lines(settings), *partition_lines(settings)]
    files["slurm.conf"] = overridden("\n".join([files["slurm.conf"], *lines, ""]), settings.overrides)
    if settings.gpus:
        devices = f"{folder}/dev/gpu[0-{settings.gpus - 1}]"
        files["gres.conf"] = "".join(f"NodeName={node} Name=gpu File={devices}\n" for node in settings.names)
    addresses = (f"{settings.address_of(i)} {node}\n" for i, node in enumerate(settings.names, 1))
    files["hosts"] = "".join([Path("/etc/hosts").read_text(), *addresses])
    files["cluster.json"] = json.dumps(asdict(settings))
    for name, text in files.items():
        (folder / "etc" / name).write_text(text)
    (folder / "etc" / "slurmdbd.conf").chmod(0o600)
    (folder / "etc" / "munge.key").write_bytes(os.urandom(128))
    (folder / "etc" / "munge.key").chmod(0o400)
    for i in range(settings.gpus):  # any character device will do as a GPU, and this one is there without root
        (folder / "dev" / f"gpu{i}").symlink_to("/dev/null")
    (folder / "env.sh").write_text(f"export SLURM_CONF={folder}/etc/slurm.conf\n")


def accounting_lines(folder: Path, settings: Settings) -> list[str]:
    if not settings.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={settings.address}",
        f"AccountingStoragePort={settings.port + 1}",
        f"AccountingStoragePass={folder}/run/munge.sock",  # connections to slurmdbd ignore AuthInfo
        *(["AccountingStorageTRES=gres/gpu"] if settings.gpus else []),
    ]


def node_lines(settings: Settings) -> list[str]:
    host = socket.gethostname().split(".")[0]
    gres = f"Gres=gpu:{settings.gpus} " if settings.gpus else ""
    lines = ["GresTypes=gpu"] if settings.gpus else []
    for i, node in enumerate(settings.names, 1):
        lines.append(
            f"NodeName={node} NodeHostname={host if settings.namespaces == 'none' else node} "
            f"NodeAddr={settings.address_of(i)} Port={settings.port + 1 + i} "
            f"CPUs={settings.cpus} RealMemory={settings.memory} {gres}State=UNKNOWN"
        )
    return lines


def partition_lines(settings: Settings) -> list[str]:
    common = "Nodes=ALL MaxTime=INFINITE State=UP"
    return [
        f"PartitionName=main {common} Default=YES PriorityTier=1 PreemptMode=OFF",
        f"PartitionName=low {common} PriorityTier=1 PreemptMode=REQUEUE GraceTime={settings.grace_time}",
        f"PartitionName=high {common} PriorityTier=20 PreemptMode=OFF",
    ]


def read_settings(folder: Path) -> Settings:
    try:
        return Settings(**json.loads((folder / "etc" / "cluster.json").read_text()))
    except (OSError, ValueError) as error:
        raise ClusterError(f"{folder}: no cluster was ever started here") from error
