"""What a result file holds, for the page of its task."""

from __future__ import annotations

import json
import os
from typing import Any

import h5py

from luigi_prune.web.confined_files import ConfinedFiles
from luigi_prune.web.live_curves import from_result, inner


def contents_of(files: ConfinedFiles, path: str) -> dict[str, Any]:
    """Return spec, provenance and costs of a result, unverified; {} if it is no file of the folder, or a report.

    {"damaged": True} for one that cannot be read.
    """
    try:
        opened = files.open(path, (".h5",))
    except FileNotFoundError:
        return {}
    try:
        with opened, h5py.File(opened, "r") as file:
            about, found = inner(file, "about"), {}
            for name in ("spec", "provenance", "meta"):
                text = inner(about, name)
                found[name] = json.loads(text.asstr()[()]) if text is not None else {}
            measured = inner(file, "measured")
            numbers = [(name, inner(measured, name)) for name in measured or ()]
            found["measured"] = {name: float(item[()]) for name, item in numbers if item is not None and not item.shape}
            found["curves"] = from_result(file)
            found["written"] = os.fstat(opened.fileno()).st_mtime
            return found
    except Exception:  # h5py has no list of what damaged bytes raise
        return {"damaged": True}
