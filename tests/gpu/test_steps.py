"""The steps of `benchmarks/gpu/run.py` that are right or wrong, as tests; those that measure time are left out."""

from __future__ import annotations

import configparser
import importlib
import os
import re
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import amp, masks, memory, moving
from benchmarks.gpu.facts import Facts
from benchmarks.gpu.steps import STEPS, Step
from benchmarks.gpu.subjects import NETWORKS, full_precision, pruning_methods

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CUDA = torch.device("cuda:0")
# Masks and moving are tested in parts, so that a failure names its method.
WHOLE = [step for step in STEPS if not step.alone and step.name not in ("masks", "moving")]


@pytest.fixture(autouse=True)
def _workspace(monkeypatch):
    """cuBLAS reads this once, before anything uses it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@needs_cuda
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", pruning_methods(), ids=lambda method: method.name)
def test_a_method_prunes_on_the_device_what_it_prunes_on_the_cpu(method, network):
    with full_precision():
        found = masks.compare(method, network, CUDA)
    assert found.strays == []
    assert method.randomised or masks.agrees(method, found), found


@needs_cuda
@pytest.mark.parametrize("optimizer", moving.OPTIMIZERS)
@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet"])
def test_zeros_stay_zeros_when_network_and_optimizer_move(method, optimizer):
    assert [count for _, count in moving.travel(method, optimizer, CUDA)] == [0, 0, 0, 0]


@needs_cuda
@pytest.mark.parametrize("method", ["ThresNet", "ALDSNet"])
def test_a_result_made_on_the_device_is_loaded_on_the_cpu(method):
    assert moving.same_after_saving(CUDA, method) == (True, 0.0)


@needs_cuda
@pytest.mark.slow
@pytest.mark.parametrize("step", WHOLE, ids=lambda step: step.name)
def test_a_step_of_the_command_finds_nothing_wrong(step: Step):
    facts = Facts(step.seconds)
    module, _, function = step.function.partition(":")
    getattr(importlib.import_module(module), function)(facts, CUDA)
    assert facts.all
    assert facts.failed == []


# ------------------------------------------------------------------------------- what can be known without a GPU


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_can_be_imported(step):
    module, _, function = step.function.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert step.about
    assert step.seconds > 0


def test_masks_that_differ_are_seen():
    method = next(row for row in pruning_methods() if row.name == "FilterThresNet")
    cpu = torch.device("cpu")
    one, _ = masks.prune(NETWORKS["conv"](), "FilterThresNet", cpu, 8)
    other, _ = masks.prune(NETWORKS["conv"](), "ThresNet", cpu, 8)
    assert masks._agreement(one, one) == (1.0, [])
    agreement, _ = masks._agreement(one, other)
    assert agreement < masks.LEAST_AGREEMENT
    assert not masks.agrees(method, masks.Comparison(agreement, [], [], 0, 0))
    assert masks.strays(one, torch.device("meta")) != []
    assert masks.strays(one, cpu) == []


def test_another_rank_in_one_layer_is_a_difference():
    method = next(row for row in pruning_methods() if row.name == "SVDNet")
    assert method.granularity == "rank"
    assert not masks.agrees(method, masks.Comparison(0.9999, ["fc"], [], 0, 0))


def test_revived_entries_are_counted_in_weights_and_momentum():
    pruned = moving.pruned_on(torch.device("cpu"), "ThresNet")
    kept = {name: mask.clone() for name, mask in pruned.masks.items()}
    optimizer = moving.OPTIMIZERS["SGD"](pruned.network.parameters())
    moving.take_steps(pruned.network, optimizer, torch.device("cpu"), steps=1)
    assert moving.revived(pruned.network, kept, optimizer) == 0
    name, parameter = next((n, p) for n, p in pruned.network.named_parameters() if n in kept)
    optimizer.state[parameter]["momentum_buffer"].fill_(1.0)
    assert moving.revived(pruned.network, kept, optimizer) == int((~kept[name]).sum())


def test_what_a_message_about_memory_lacks_is_named():
    good = "SiPPNet: out of memory at calibration batch 3 of 4096 samples: take smaller batches or another device"
    assert memory.shortcomings(good, "SiPPNet", 4096) == []
    lacks = memory.shortcomings("Traceback:\ntorch.OutOfMemoryError: CUDA out of memory.", "SiPPNet", 4096)
    assert lacks == ["one line", "the name SiPPNet", "the batch size 4096", "a cure"]


def test_the_tolerance_of_accuracies_is_that_of_the_seeds():
    assert amp.tolerance([0.9] * 5, [0.9] * 5) == 1 / amp.TEST_SAMPLES
    wide = amp.tolerance([0.8, 0.9, 1.0, 0.9, 0.9], [0.9] * 5)
    assert wide == pytest.approx(3 * (0.005 / 5) ** 0.5)


ROOT = Path(__file__).resolve().parents[2]


def test_every_step_has_a_line_in_the_document_that_holds_the_measurements():
    document = (ROOT / "docs" / "gpu.md").read_text()
    assert [step.name for step in STEPS if f"| {step.name} |" not in document] == []


def test_what_the_package_needs_is_carried_or_asked_of_the_machine():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    needed = re.findall(r"^([\w-]+)", settings["options"]["install_requires"], flags=re.MULTILINE)
    carried = re.findall(r"^([\w-]+)==", (ROOT / "benchmarks/gpu/requirements.txt").read_text(), flags=re.MULTILINE)
    recipe = (ROOT / "benchmarks/gpu/README.md").read_text()
    asked = re.findall(r"[\w-]+", recipe[recipe.index("It needs Python") : recipe.index("What such a machine")])
    assert len(needed) > 10
    assert [name for name in needed if name not in {*carried, *asked}] == []
