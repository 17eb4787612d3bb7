"""The examples of docs/extending.md, laid down in a folder as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def blocks() -> dict[str, str]:
    """Return the code blocks whose first line names a file, by file."""
    found = re.findall(r"```\w+\n# (\w+\.\w+)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def lay_down(folder: Path) -> Path:
    """Write all files of the page into a folder and return the experiment file."""
    for name, text in blocks().items():
        (folder / name).write_text(text)
    return folder / "experiment.yaml"
