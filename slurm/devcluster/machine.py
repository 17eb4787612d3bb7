"""What a machine must have before a cluster can run on it."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from devcluster.processes import PATH, ClusterError

# A socket's path has at most 107 characters, and slurmd's look like DIR/spool/n16/n16_60000000.4294967291.
LONGEST_FOLDER = 70
PACKAGE_OF = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sinfo": "slurm-wlm",
    "munged": "munge",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
}


def refuse_what_cannot_work(folder: Path, options: argparse.Namespace) -> None:
    """Raise ClusterError for a machine, a folder or numbers that no cluster can come from."""
    needed = {"slurmctld", "slurmd", "sinfo", "munged"}
    needed |= {"slurmdbd", "mariadbd", "mariadb-install-db"} if options.accounting else set()
    needed |= {"unshare", "nsenter", "ip"} if options.network_namespaces else set()
    missing = sorted(name for name in needed if not shutil.which(name, path=PATH))
    if missing:
        packages = " ".join(sorted({PACKAGE_OF[name] for name in missing}))
        raise ClusterError(f"{', '.join(missing)} not found: apt-get install --no-install-recommends {packages}")
    if len(str(folder)) > LONGEST_FOLDER:
        raise ClusterError(f"{folder}: longer than {LONGEST_FOLDER} characters, too long for the paths of sockets")
    if not re.fullmatch(r"[\w./+-]+", str(folder)):
        raise ClusterError(f"{folder}: only letters, digits and . / + - _ may stand in the path of a cluster")
    if options.network_namespaces and not namespaces_work("--net"):
        raise ClusterError("--network-namespaces: this machine does not allow them (root is needed)")
    try:
        socket.getaddrinfo("localhost", 1, flags=socket.AI_ADDRCONFIG)
    except OSError:
        advice = "give it one: ip address add 10.99.0.1/32 dev lo"
        raise ClusterError(f"SLURM starts on no machine without a network address; {advice}") from None


def namespaces_work(*kinds: str) -> bool:
    command = ["unshare", "--uts", "--mount", *kinds, "true"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, env={**os.environ, "PATH": PATH}, capture_output=True).returncode == 0
    return False
