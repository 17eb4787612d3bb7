"""How to load the networks of a report."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from luigi_prune.analysis.censoring import runs_at_level
from luigi_prune.analysis.commensurate import choose
from luigi_prune.analysis.verdict import Verdict
from luigi_prune.config.loader.includes import packaged_files
from luigi_prune.report.cells import factor, number, points
from luigi_prune.report.style import MethodStyle

Arrays = dict[str, np.ndarray]

# The name of the experiment file where the run's is not known.
NO_FILE = "mine"


@dataclass(frozen=True)
class TakeHome:
    """A sentence on a network, the Python code that loads it, and the command that exports it."""

    text: str
    python: str
    shell: str


def take_home(
    arrays: Arrays, found: Verdict | None, styles: Sequence[MethodStyle], provenance: dict[str, Any], experiment: str
) -> TakeHome | None:
    """Return how to load the smallest network of the best method that stays within the level; None if none does.

    It is that of the net whose network is the smallest; on ties, the first.
    """
    if found is None or "--smoke" in str(provenance.get("command", "")):
        return None
    chosen = choose(arrays, found.test_set, found.chosen_on, metric=found.metric)
    runs = runs_at_level(chosen, arrays, found.level)
    for method in found.order:
        size = np.where(runs.available & ~runs.never, runs.take(arrays["cost/size"]), np.inf)[..., method]
        if np.isfinite(size).any():
            break
    else:
        return None
    net, repetition = (int(at) for at in np.unravel_index(np.argmin(size), size.shape))
    ratio = int(runs.point[net, repetition, method])
    value = float(arrays[f"test/{found.test_set}/{found.metric}"][net, ratio, repetition, method])
    percent = found.is_share and not found.lower
    lead = "the best mean; no method clearly leads" if len(found.order) > 1 else "the only method"
    lead = "the leader" if method == found.leader else lead
    text = (
        f"{styles[method].plain} ({lead}), net {net}, within {points(found.level)} {found.unit}: "
        f"{factor(1 / float(size[net, repetition]))} fewer parameters, test {found.metric} "
        f"{number(value, scale=100.0 if percent else 1.0, digits=2 if percent else 4)}{' %' * percent}."
    )
    config, name = config_of(provenance, experiment), str(arrays["axes/method"][method])
    quote = partial(json.dumps, ensure_ascii=False)
    member = experiment if Path(config).stem not in (experiment, NO_FILE) else ""  # of a sweep
    keep = f"{arrays['axes/keep_ratio'][ratio]:.6g}"
    python = (
        "from luigi_prune import api\n\n"
        f"pruned = api.load({quote(config)}, method={quote(name)}, keep_ratio={keep}, net={net}, "
        f"repetition={repetition}" + (f", member={quote(member)})" if member else ")")
    )
    shell = (
        f"python -m luigi_prune export {shlex.quote(config)} --method {shlex.quote(name)} --keep-ratio {keep} "
        f"--net {net} --repetition {repetition} --to onnx" + (f" --member {shlex.quote(member)}" if member else "")
    )
    return TakeHome(text, python, shell)


def config_of(provenance: dict[str, Any], experiment: str = "") -> str:
    """Return the experiment file that the run was started with, or a name to put it in for.

    Without `--config` luigi.cfg names it: a packaged file, if one of them has the experiment's name.
    """
    try:
        words = shlex.split(str(provenance.get("command", "")).replace("--config=", "--config "))
    except ValueError:  # not a command line
        words = []
    files = [file for option, file in itertools.pairwise(words) if option == "--config"]
    if not files and "RunExperiment" in words:
        files = [file for file in packaged_files() if Path(file).stem == experiment]
    return files[0] if len(files) == 1 else f"{NO_FILE}.yaml"
