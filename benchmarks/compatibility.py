"""Which networks every method prunes: the zoo of `tests/zoo` x all methods x all checks, as docs/compatibility.md.

python benchmarks/compatibility.py [--networks BERT,vit] [--methods SiPPNet,WT] [--results cells.jsonl] [--processes 2]
    [--seconds 120] [--gigabytes 8] [--write docs/compatibility.md]

Needs timm and transformers (`pip install -e '.[test]'`). Every network is pruned in a process of its own, so that a
crash, a hang or a lack of memory is a cell of the table, after which the next method begins in a new process. With
--results, cells are kept in a file and not computed again; every cell has the commit of the code that it was measured
on. Without --write, the page is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import resource
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.compatibility_page import page
from luigi_prune.registry import METHODS, find
from tests.zoo.checks import EXPORTS, QUICK, Finding, examine
from tests.zoo.networks import OWN, Specimen
from tests.zoo.package_networks import TIMM, TRANSFORMERS
from tests.zoo.torchvision_networks import TORCHVISION

GROUPS = {"Our own": OWN, "torchvision": TORCHVISION, "timm": TIMM, "transformers": TRANSFORMERS}
ZOO: dict[str, Specimen] = {
    f"{group}: {name}": specimen for group, members in GROUPS.items() for name, specimen in members.items()
}
EXPORTED = ("ThresNet", "FilterThresNet", "ALDSNet")  # one per kind of result; exports take longest
FOR_LARGE = ("ThresNet", "SiPPNet", "FilterThresNet", "PFPNet", "SVDNet", "ALDSNet")
Cell = dict[str, Any]


def main() -> None:
    """Compute what is missing, and write the page; or, in a process of its own, print the cells of one network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", help="names, separated by commas, in the order of the run (default: all)")
    parser.add_argument("--methods", help="names or short names, separated by commas (default: all)")
    parser.add_argument("--results", type=Path, help="a file of cells, which is read and extended")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=120, help="limit of one cell")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="limit of one process")
    parser.add_argument("--commit", help="of the code, if this is no repository")
    parser.add_argument("--write", type=Path, help="the page")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = options.methods.split(",") if options.methods else list(METHODS)
    methods = [find("method", name).name for name in chosen]
    if options.one:
        print_cells(options.one, methods, options.gigabytes)
        return
    networks = chosen_networks(options.networks.split(",")) if options.networks else list(ZOO)
    options.commit = options.commit or commit_of_code()
    cells = stored(options.results)
    with ThreadPoolExecutor(options.processes) as pool:
        for made in pool.map(lambda name: list(compute(name, methods, cells, options)), networks):
            cells.update({(cell["network"], cell["method"]): cell for cell in made})
    text = page(list(cells.values()), {name: ZOO[name] for name in ZOO}, FOR_LARGE, EXPORTED)
    if options.write:
        options.write.write_text(text)
    else:
        print(text)


def chosen_networks(names: list[str]) -> list[str]:
    """Return the networks of these names, each with the name of its group; ends the program if there is none."""
    by_name = {name.split(": ")[1]: name for name in ZOO}
    if unknown := [name for name in names if name not in by_name]:
        raise SystemExit(f"--networks: no {', '.join(map(repr, unknown))}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def commit_of_code() -> str:
    """Return the commit of the working tree, with a "+" if files differ from it; "" outside of a repository."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=7",
        "--exclude=*",
        "--dirty=+",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def stored(path: Path | None) -> dict[tuple[str, str], Cell]:
    """Return the cells of an earlier run, by network and method."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    return {(cell["network"], cell["method"]): cell for cell in map(json.loads, lines)}


def compute(name: str, methods: list[str], known: dict[tuple[str, str], Cell], options: Any) -> Iterator[Cell]:
    """Yield the cells of one network that are not known, and append them to the file of results."""
    wanted = [method for method in methods if not ZOO[name].large or method in FOR_LARGE]
    missing = [method for method in wanted if (name, method) not in known]
    while missing:
        for cell in attempt(name, missing, options):
            cell["commit"] = options.commit
            failures = cell["failures"] or ""
            print(f"{name}, {cell['method']}: {cell['refusal'] or failures or 'ok'}", file=sys.stderr, flush=True)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(cell) + "\n")
            missing.remove(cell["method"])
            yield cell


def attempt(name: str, methods: list[str], options: Any) -> Iterator[Cell]:
    """Yield the cells that one process computes; one that ends early or hangs is the last, as a failure."""
    command = [
        *(sys.executable, __file__, "--one", name, "--methods", ",".join(methods)),
        *("--gigabytes", str(options.gigabytes)),
    ]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        done = 0
        try:
            while done < len(methods):
                in_time = selector.select(options.seconds)
                line = process.stdout.readline() if in_time else ""
                if line.startswith("{"):
                    done += 1
                    yield json.loads(line)
                elif not line:
                    errors.seek(0)
                    last = (errors.read().strip().splitlines() or ["no message"])[-1]
                    why = f"the process ended: {last}" if in_time else f"no result in {options.seconds} s"
                    yield as_cell(name, methods[done], Finding(failures={"runs": why}))
                    return
        finally:
            process.kill()


def as_cell(name: str, method: str, finding: Finding) -> Cell:
    """Return a finding as a row of the file of results."""
    return {"network": name, "method": method, **dataclasses.asdict(finding)}


def print_cells(name: str, methods: list[str], gigabytes: float) -> None:
    """Print one line of JSON per method."""
    import torch

    limit = int(gigabytes * 1e9)
    with contextlib.suppress(ValueError):  # a lower limit of this user
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    specimen = ZOO[name]
    examine(specimen, "ReferenceNet", ())  # imports what the network needs
    gc.collect()
    gc.freeze()  # so that counting live tensors takes no time for the objects of modules
    for method in methods:
        print(json.dumps(as_cell(name, method, examine(specimen, method, checks_for(method)))), flush=True)


def checks_for(method: str) -> tuple[str, ...]:
    """Return the names of the checks of a method."""
    return (*QUICK, *EXPORTS) if method in EXPORTED else QUICK


if __name__ == "__main__":
    main()
