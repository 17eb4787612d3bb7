"""Elements of a submission: the jobs that each element of its array runs, in one process.

<submission>/elements.json   [[0, 1, 2], [3]]: the jobs of each element by index; missing if each job has its own
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def write_elements(folder: Path, sizes: Sequence[int]) -> None:
    """Write down how many jobs each element has, in order of their indices."""
    if max(sizes, default=1) > 1:
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        elements = [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
        (folder / "elements.json").write_text(json.dumps(elements))


def read_elements(folder: str | Path) -> list[list[int]]:
    """Return the jobs of each element by index; [] if each job has an element of its own."""
    with suppress(OSError, ValueError):
        elements = json.loads((Path(folder) / "elements.json").read_text())
        return [[int(index) for index in element] for element in elements]
    return []


def jobs_of(folder: str | Path, element: int) -> list[int]:
    """Return the indices of the jobs of an element."""
    elements = read_elements(folder)
    return elements[element] if element < len(elements) else [element]


def sharing(folder: str | Path, index: int) -> list[int]:
    """Return the indices of all jobs in the element of job `index`."""
    return next((element for element in read_elements(folder) if index in element), [index])


def slurm_id(folder: str | Path, job_id: str, index: int, count: int | None = None) -> str:
    """Return the id of the element that runs job `index`, given that of the submission; `count`: its elements."""
    elements = read_elements(folder)
    if count is None:
        count = len(elements) or len(list(Path(folder).glob("[0-9]*.json")))
    number = next((i for i, element in enumerate(elements) if index in element), index)
    return f"{job_id}_{number}" if count > 1 else job_id
