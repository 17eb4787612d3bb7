"""The peak memory of every method: `api.prune` at keep ratio 0.5 on one batch of 4 images of 224x224.

python benchmarks/peak_memory.py [--methods SiPPNet,WT] [--networks resnet50,vit_b_16] [--threads 2]

Every method runs in a process of its own, whose largest resident size is read when it is done; so does one plain
forward and backward of the same batch. Prints a table in Markdown: the excess over the forward and backward. The goal:
at most 1.5 GB for every method. docs/speed.md has the results of one run.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.workloads import BATCH, build_network, calibration, forward_and_backward, prune
from luigi_prune.errors import LuigiPruneError
from luigi_prune.registry import METHODS, find

PLAIN = "forward and backward"
REFUSED = "refused: "
GOAL = 1.5e9
DEVICE = torch.device("cpu")


def main() -> None:
    """Print the table, or, in a process of its own, the peak of one method in bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="names or short names, separated by commas (default: all that prune)")
    parser.add_argument("--networks", default="resnet50,vit_b_16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "METHOD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(peak_of(*arguments.one))
        return
    pruning = [name for name, row in METHODS.items() if row.granularity != "none"]
    names = arguments.methods.split(",") if arguments.methods else pruning
    print("| network | method | peak, GB | over a forward and backward, GB | at most 1.5 GB |\n|---|---|---:|---:|---|")
    for network in arguments.networks.split(","):
        plain = measured(network, PLAIN, arguments.threads)
        assert isinstance(plain, int), plain
        print(f"| {network} | {PLAIN} | {plain / 1e9:.2f} | | |", flush=True)
        for method in (find("method", name).name for name in names):
            peak = measured(network, method, arguments.threads)
            if isinstance(peak, str):
                print(f"| {network} | {method} | {peak} | | |", flush=True)
                continue
            met = "yes" if peak - plain <= GOAL else "no"
            print(f"| {network} | {method} | {peak / 1e9:.2f} | {(peak - plain) / 1e9:.2f} | {met} |", flush=True)


def measured(network: str, method: str, threads: int) -> int | str:
    """Return the peak of a method in a process of its own, in bytes, or why it does not prune the network."""
    command = [sys.executable, __file__, "--threads", str(threads), "--one", network, method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    last = done.stdout.strip().splitlines()[-1]
    return last if last.startswith(REFUSED) else int(last)


def peak_of(name: str, method: str) -> int | str:
    """Prune, and return this process's largest resident size in bytes, or why the method does not prune the network."""
    network, batches = build_network(name), calibration(DEVICE, name, samples=BATCH)
    if method == PLAIN:
        forward_and_backward(network, batches)
    else:
        try:
            prune(network, method, batches)
        except LuigiPruneError as error:
            return f"{REFUSED}{error}"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
