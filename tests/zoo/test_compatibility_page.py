"""The page of compatibility says what the cells say, and nothing about a network whose run was cut short."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.compatibility import EXPORTED, FOR_LARGE, ZOO, as_cell, chosen_networks
from benchmarks.compatibility_page import page
from luigi_prune.registry import METHODS
from tests.zoo.checks import Finding
from tests.zoo.networks import OWN

NAME = "Our own: tied weights"
NEAR = ["{}: keep ratio 0.5 cannot be met on this network; the closest is 0.61: 80% of the parameters are in 'x'"]


def written(**of_methods: Finding) -> list[str]:
    """Return the lines of a page about one network, of which all other methods are ok."""
    cells: list[dict[str, Any]] = [
        as_cell(NAME, method, of_methods.get(method, Finding(keep_ratio=0.5, passed=["runs"]))) for method in METHODS
    ]
    return page(cells, {NAME: OWN["tied weights"]}, FOR_LARGE, EXPORTED).splitlines()


def row(lines: list[str]) -> list[str]:
    return next(line for line in lines if line.startswith("| tied weights")).strip("| ").split(" | ")[2:]


def test_a_cell_says_how_many_methods_passed_were_near_were_refused_and_failed() -> None:
    lines = written(
        ThresNet=Finding(keep_ratio=0.5, passed=["runs", "torch.export"], failures={"ONNX": "no such operator"}),
        FilterThresNet=Finding(keep_ratio=0.61, passed=["runs"], warnings=[NEAR[0].format("FilterThresNet")]),
        SoftNet=Finding(refusal="SoftNet: module 'x' is quantised"),
        PFPNet=Finding(failures={"runs": "the process ended: killed"}),
        ALDSNet=Finding(passed=["runs"], failures={"trains": "the loss is not finite"}),
    )
    assert row(lines) == [
        "ok", "2 ok, 1 near: 0.61, 1 refused", "4 ok, **1 fail**", "ok", "**trains**", "ok", "**fails**",
    ]  # fmt: skip
    notes = [line for line in lines if line.startswith("- ")]
    assert "- *tied weights*, ThresNet: **fails** (ONNX): no such operator" in notes
    assert "- *tied weights*, FilterThresNet: ratio: 80% of the parameters are in 'x'" in notes
    assert "- *tied weights*, SoftNet: refused: module 'x' is quantised" in notes
    assert len(notes) == 5


def test_notes_name_groups_of_methods() -> None:
    kinds = {name: row.granularity for name, row in METHODS.items()}
    warned = Finding(passed=["runs"], warnings=["not pruned"])
    for wanted, names in {
        "all methods": [name for name, kind in kinds.items() if kind != "none"],
        "filters, PFPNet": [*(name for name, kind in kinds.items() if kind == "filter"), "PFPNet"],
    }.items():
        assert f"- *tied weights*, {wanted}: not pruned" in written(**dict.fromkeys(names, warned))


def test_a_network_with_missing_cells_is_named_instead() -> None:
    cells = [as_cell(NAME, method, Finding(passed=["runs"])) for method in FOR_LARGE]
    zoo = {NAME: OWN["tied weights"]}
    cut_short, whole = page(cells[1:], zoo, FOR_LARGE, EXPORTED), page(cells, zoo, FOR_LARGE, EXPORTED)
    assert "| tied weights" not in cut_short
    assert "not measured: tied weights." in cut_short
    assert "| tied weights * |" in whole
    assert "not measured" not in whole
    more = [as_cell(NAME, method, Finding(passed=["runs"])) for method in METHODS if method != "ScratchNet"]
    lines = page(more, zoo, FOR_LARGE, EXPORTED).splitlines()
    assert "†: without ScratchNet on tied weights." in lines
    assert any(line.startswith("| tied weights † |") for line in lines)


def test_a_page_of_several_commits_names_the_networks_and_methods_of_each() -> None:
    cells = [as_cell(NAME, method, Finding(passed=["runs"])) | {"commit": "aaa"} for method in METHODS]
    zoo = {NAME: OWN["tied weights"]}
    assert "All cells were measured on commit `aaa`." in page(cells, zoo, FOR_LARGE, EXPORTED)
    cells[list(METHODS).index("PFPNet")]["commit"] = "bbb"
    text = page(cells, zoo, FOR_LARGE, EXPORTED)
    assert "Most cells were measured on commit `aaa`" in text
    assert "- `bbb`: tied weights (PFPNet)" in text


def test_every_network_can_be_chosen_by_its_name() -> None:
    names = [name.split(": ")[1] for name in ZOO]
    assert chosen_networks(",".join(names).split(",")) == list(ZOO)
    with pytest.raises(SystemExit, match="no 'ressnet'; there are "):
        chosen_networks(["vit", "ressnet"])
