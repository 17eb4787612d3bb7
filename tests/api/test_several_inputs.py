"""Networks of several inputs and of structured outputs are pruned as networks of one tensor that compute the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from luigi_prune import api
from luigi_prune.compute.network_inputs import call
from luigi_prune.registry import METHODS
from tests.api.several_inputs import SEVERAL, pair

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be met on this network")
PRUNING = [name for name, row in METHODS.items() if row.granularity != "none"]


def batches(inputs: Any) -> list[Any]:
    """Return three batches of different sizes."""
    return [(inputs(count), torch.arange(count) % 10) for count in (4, 7, 5)]


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("method", PRUNING)
def test_the_masks_are_those_of_the_same_network_of_one_input(method: str, kind: str) -> None:
    case, (network, twin) = SEVERAL[kind], pair(kind)
    pruned = api.prune(network, method, 0.4, calibration=batches(case.inputs), loss=case.loss)
    wanted = api.prune(twin, method, 0.4, calibration=batches(case.twin_inputs), loss=F.cross_entropy)
    assert (pruned.size, pruned.flops) == (wanted.size, wanted.flops)
    assert pruned.masks.keys() == wanted.masks.keys()
    assert all(torch.equal(mask, wanted.masks[name]) for name, mask in pruned.masks.items())
    assert pruned.structure == wanted.structure
    with torch.no_grad():
        output = call(pruned.network.eval(), case.inputs(3))
        assert torch.isfinite(output if isinstance(output, torch.Tensor) else call_logits(output)).all()


def call_logits(output: Any) -> torch.Tensor:
    logits: torch.Tensor = output["logits"] if isinstance(output, dict) else output.logits
    return logits
