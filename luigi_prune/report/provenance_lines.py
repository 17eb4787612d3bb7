"""Where a report comes from, in ten lines; `data/provenance.json` beside it has all of it."""

from __future__ import annotations

from typing import Any

MOST_LINES = 10
MOST_LETTERS = 160
# Of the versions, those that matter to the numbers.
SOFTWARE = ("luigi-prune", "torch", "torchvision", "numpy", "python")


def provenance_lines(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """Return provenance as at most ten pairs of name and short value; long lists are counted."""
    lines = []
    if versions := provenance.get("versions"):
        names = [name for name in SOFTWARE if name in versions] or list(versions)
        lines.append(("software", ", ".join(f"{name} {versions[name]}" for name in names)))
    source = provenance.get("source") or {}
    if source.get("commit"):
        lines.append(("commit", source["commit"][:12] + " with uncommitted changes" * source["uncommitted_changes"]))
    for name, value in provenance.items():
        if name in ("versions", "source", "process") or value in ("", None, {}, []):
            continue
        lines.append((name.replace("_", " "), _short(value)))
    return lines[:MOST_LINES]


def _short(value: Any) -> str:
    if isinstance(value, dict) and any(isinstance(each, (dict, list)) for each in value.values()):
        return f"{len(value)}, see data/provenance.json"
    if isinstance(value, dict):
        value = [f"{name} {each}" for name, each in value.items()]
    text = ", ".join(str(each) for each in value) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"
