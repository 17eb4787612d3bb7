"""The page of compatibility.py: what came of every network, in a table and notes."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from luigi_prune.registry import METHODS
from tests.zoo.checks import EXPORTS
from tests.zoo.networks import Specimen

TITLES = {"weight": "single weights", "filter": "filters", "channel": "channels", "rank": "low rank"}
CLOSEST = "the closest is"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnx", "onnxruntime")
COLOURS = re.compile(r"\x1b\[\d+m|Next steps:")  # of torch.onnx's messages
LONGEST = 300  # characters of a note
Cell = dict[str, Any]


def page(cells: list[Cell], zoo: dict[str, Specimen], for_large: Collection[str], exported: Collection[str]) -> str:
    """Return the page as Markdown."""
    by_network: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_network[cell["network"]].append(cell)
    unfinished: list[str] = []
    counts = {title: sum(row.granularity == kind for row in METHODS.values()) for kind, title in TITLES.items()}
    parts = [head(for_large, exported)]
    groups: dict[str, list[str]] = defaultdict(list)
    for name in zoo:
        done = {cell["method"] for cell in by_network[name]}
        if done >= set(for_large):  # else its run was cut short
            groups[name.split(": ")[0]].append(name)
        else:
            unfinished.append(name.split(": ")[1])
    if unfinished:
        parts.append(f"\nNot complete: networks of `tests/zoo/` that were not measured: {', '.join(unfinished)}.\n")
    parts.append(without(by_network, [name for names in groups.values() for name in names], for_large))
    parts.append(measured_on([cell for names in groups.values() for name in names for cell in by_network[name]]))
    titles = " | ".join(f"{title} ({count})" for title, count in counts.items())
    for group, names in groups.items():
        parts.append(f"\n## {group}\n\n| network | parameters | {titles} | checks | torch.export | ONNX |\n")
        parts.append("|---" * (len(TITLES) + 5) + "|\n")
        parts += [table_row(name, zoo[name], by_network[name], for_large) for name in names]
        notes = [note for name in names for note in notes_of(name, by_network[name])]
        parts.append("\n" + "\n".join(notes) + "\n" if notes else "")
    return "".join(parts)


def head(for_large: Collection[str], exported: Collection[str]) -> str:
    """Return the introduction."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return f"""\
# Compatibility

Measured by `python benchmarks/compatibility.py --write docs/compatibility.md` on {datetime.date.today()}, on a CPU,
with Python {platform.python_version()}, {", ".join(versions)}. The networks are in `tests/zoo/`, with random weights.

Every network is pruned to half of its parameters by every method (`*`: by {", ".join(for_large)}
only). A cell is **ok** if all checks passed and the ratio was met. *Near*: the methods offer no size within 0.5 %, so
the closest is used, with a warning; its range is given. *Refused*: one line says why, before work begins.

*-* stands for an export that was not tried, *nor the unpruned* for one that fails without pruning, too.

The checks of every pair: the network that is passed in stays as it is, and so does the global random generator; the
size is that of the network; the output is finite and depends on the input; ratio 1 removes nothing; pruned entries stay
zero in two steps of training, and others change; `copy.deepcopy`; `load_state_dict` into the unpruned network (into a
copy, if layers were decomposed); `save` and `api.load`; the number of live tensors does not
grow from prune to prune. Results of {", ".join(exported)} are exported
by `torch.export` and to ONNX, where onnxruntime must compute the same.
"""


def measured_on(cells: list[Cell]) -> str:
    """Return a paragraph on the commits of the code that cells were measured on: one, or which networks on which."""
    methods: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell in cells:
        methods[cell.get("commit", "")][cell["network"]].add(cell["method"])
    commits = sorted(methods, key=lambda commit: -sum(map(len, methods[commit].values())))
    if len(commits) < 2:
        return f"\nAll cells were measured on commit `{commits[0]}`.\n" if commits and commits[0] else ""
    lines = [f"\nMost cells were measured on commit `{commits[0]}`, the others on earlier or later ones:\n"]
    for commit in commits[1:]:
        networks: dict[str, list[str]] = defaultdict(list)  # by their methods
        for name, some in methods[commit].items():
            networks[concerned(sorted(some), {cell["method"] for cell in cells if cell["network"] == name})].append(
                name
            )
        parts = (f"{', '.join(name.split(': ')[1] for name in names)} ({some})" for some, names in networks.items())
        lines.append(f"- `{commit or 'unknown'}`: {'; '.join(parts)}")
    return "\n".join(lines) + "\n"


def without(by_network: dict[str, list[Cell]], names: list[str], for_large: Collection[str]) -> str:
    """Return a paragraph on the networks of which some methods are missing, but more than `for_large` are measured."""
    networks: dict[str, list[str]] = defaultdict(list)  # by their missing methods
    for name in names:
        missing = [method for method in METHODS if all(cell["method"] != method for cell in by_network[name])]
        if mark_of(by_network[name], for_large) == "†":
            networks[", ".join(missing)].append(name.split(": ")[1])
    return "".join(f"\n†: without {methods} on {', '.join(some)}.\n" for methods, some in networks.items())


def mark_of(cells: list[Cell], for_large: Collection[str]) -> str:
    """Return "" if all methods were measured on a network, "*" if only those of `for_large`, "†" if more."""
    methods = {cell["method"] for cell in cells}
    return "" if methods >= set(METHODS) else "*" if methods <= set(for_large) else "†"


def table_row(name: str, specimen: Specimen, cells: list[Cell], for_large: Collection[str]) -> str:
    """Return the row of one network."""
    parameters = sum(parameter.numel() for parameter in specimen.network().parameters())
    size = f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.1f} k"
    title = f"{name.split(': ')[1]} {mark_of(cells, for_large)}".strip() + (
        f" ({specimen.note})" if specimen.note else ""
    )
    groups = [
        summary([cell for cell in cells if METHODS[cell["method"]].granularity == kind]) for kind in TITLES
    ]  # fmt: skip
    ran = [cell for cell in cells if not cell["refusal"] and "runs" not in cell["failures"]]
    wrong = {check for cell in ran for check in cell["failures"] if check not in EXPORTS}
    checks = f"**{', '.join(sorted(wrong))}**" if wrong else "ok" if ran else "-"
    return f"| {' | '.join([title, size, *groups, checks, *(export_of(check, cells) for check in EXPORTS)])} |\n"


def summary(cells: list[Cell]) -> str:
    """Return what came of the methods of one group: "ok", "ok, 2 near: 0.49 to 0.51", "1 refused"."""
    ran = [cell for cell in cells if not cell["refusal"]]
    failed = [cell for cell in ran if "runs" in cell["failures"]]
    near = [cell["keep_ratio"] for cell in ran if any(CLOSEST in text for text in cell["warnings"])]
    parts = []
    if len(ran) > len(failed):
        parts.append("ok" if len(ran) - len(failed) == len(cells) else f"{len(ran) - len(failed)} ok")
    if near:
        low, high = f"{min(near):.2f}", f"{max(near):.2f}"
        parts.append(f"{len(near)} near: {low}" + (f" to {high}" if high != low else ""))
    if len(ran) < len(cells):
        parts.append(f"{len(cells) - len(ran)} refused")
    if failed:
        parts.append(f"**{len(failed)} fail**")
    return ", ".join(parts) or "-"


def export_of(check: str, cells: list[Cell]) -> str:
    """Return what came of exports: "ok", or that they fail or that the unpruned network fails, too."""
    if any(check in cell["failures"] for cell in cells):
        return "**fails**"
    if any(check in cell["impossible"] for cell in cells):
        return "nor the unpruned"
    return "ok" if any(check in cell["passed"] for cell in cells) else "-"


def notes_of(name: str, cells: list[Cell]) -> list[str]:
    """Return the failures, refusals and warnings of one network, each with the methods that it concerns."""
    methods_by_text: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        texts = [("refused: ", cell["refusal"])] if cell["refusal"] else []
        texts += [("", text) for text in cell["warnings"] if CLOSEST not in text]
        # "... the closest is 0.88: 81% of the parameters are in ...": the reason is that of all methods of a kind
        texts += [
            ("ratio: ", text.partition(CLOSEST)[2].partition(": ")[2]) for text in cell["warnings"] if CLOSEST in text
        ]
        texts += [(f"**fails** ({check}): ", text) for check, text in cell["failures"].items()]
        texts += [(f"{check} of the unpruned network: ", text) for check, text in cell["impossible"].items()]
        for label, text in texts:
            plain = COLOURS.sub("", text.replace(f"{cell['method']}: ", "").replace("|", "/")).strip()
            if plain:
                methods_by_text[label + plain[:LONGEST]].append(cell["method"])
    ran = [cell["method"] for cell in cells]
    title = name.split(": ")[1]
    return [f"- *{title}*, {concerned(methods, ran)}: {text}" for text, methods in methods_by_text.items()]


def concerned(methods: list[str], ran: Iterable[str]) -> str:
    """Return a short name for some of the methods that ran: "all methods", "single weights", or their names."""
    pruning = {name for name in ran if METHODS[name].granularity != "none"}
    if pruning <= set(methods):
        return "all methods"
    parts, rest = [], set(methods)
    for kind, title in TITLES.items():
        members = {name for name in pruning if METHODS[name].granularity == kind}
        if len(members) > 1 and members <= rest:
            parts.append(title)
            rest -= members
    return ", ".join([*parts, *(name for name in methods if name in rest)])
