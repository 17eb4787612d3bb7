"""docs/data.md names every data set, family and corruption."""

from pathlib import Path

import luigi_prune
from luigi_prune import registry
from luigi_prune.registry.dataset_families import COMPUTED, CORRUPTIONS

PAGE = Path(luigi_prune.__file__).parents[1] / "docs" / "data.md"


def test_the_page_names_every_data_set_and_every_corruption():
    page = PAGE.read_text()
    missing = [name for name in registry.DATASETS if f"`{name}`" not in page]
    assert missing == []
    for name, file in CORRUPTIONS.items():
        assert f"| `{name}` {'* ' if name in COMPUTED else ''}| `{file}` |" in page
    for family in registry.DATASETS.families:
        assert all(registry.find("dataset", name) for name in family.names)
        assert any(f"`{form.strip()}`" in page or "VOC" in form for form in family.form.split(","))
