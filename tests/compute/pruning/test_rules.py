"""The rules are one object, chosen by name once; nothing else asks which they are."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

import luigi_prune
from luigi_prune import registry
from luigi_prune.compute.pruning.engine.rules import PAPER, RULES, find_rules
from luigi_prune.config import schema
from luigi_prune.errors import ConfigError


def test_no_module_compares_the_name_of_the_rules() -> None:
    name = re.compile(r"""(==|!=|\bin\b)\s*\(?["'](paper|reference)["']""")
    package = Path(luigi_prune.__file__).parent
    files = [*package.glob("compute/**/*.py"), *package.glob("jobs/*.py"), *package.glob("api/*.py")]
    assert len(files) > 60
    assert not [file.name for file in files if name.search(file.read_text())]


def test_the_names_in_experiment_files_are_the_rules_that_exist() -> None:
    assert tuple(RULES) == typing.get_args(schema.Rules)
    assert find_rules("paper") is PAPER
    with pytest.raises(ConfigError, match="rules 'papers' is neither 'paper' nor 'reference'"):
        find_rules("papers")


@pytest.mark.parametrize(
    ("method", "paper", "reference"),
    [("ThresNet", False, True), ("SiPPNet", True, True), ("SVDNet", False, False), ("PCANet", True, True)],
)
def test_which_methods_need_data(method: str, paper: bool, reference: bool) -> None:
    row = registry.METHODS[method]
    assert (RULES["paper"].needs_data(row), RULES["reference"].needs_data(row)) == (paper, reference)
    assert RULES["reference"].data_reader(row) == (method if paper else f"{method} with rules='reference'")
