"""The page of methods is what the catalogue says."""

from __future__ import annotations

from pathlib import Path

from luigi_prune import registry
from luigi_prune.registry.methods_page import methods_markdown

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"


def test_the_page_is_up_to_date() -> None:
    text = methods_markdown()
    assert PAGE.read_text() == text, "run: python -m luigi_prune.registry.methods_page > docs/methods.md"
    assert all(text.count(f"| `{name}` |") == 1 for name in registry.METHODS)


def test_labels_short_names_and_styles_are_distinct() -> None:
    rows = list(registry.METHODS.values())
    for what in ("short", "label"):
        values = [getattr(row, what).lower() for row in rows]
        assert len(set(values)) == len(values), what
    styles = [(row.color, row.marker) for row in rows]
    assert len(set(styles)) == len(styles)
    assert not {row.short for row in rows} & set(registry.METHODS)
