"""Large layers are computed side by side, and nobody can tell from the results."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from luigi_prune.compute.pruning.lowrank import spectra
from luigi_prune.compute.pruning.lowrank.candidates import Candidates
from luigi_prune.compute.pruning.lowrank.threads import WORTH_A_THREAD, map_layers
from tests.compute.pruning.test_contract import prune_like


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def layer(weights: int) -> Candidates:
    return Candidates(weights, weights, 1, [], lambda choice: pytest.fail("not asked for"))


def test_results_stand_in_the_order_of_the_layers(threads: int) -> None:
    sizes = [WORTH_A_THREAD, 3, 2 * WORTH_A_THREAD, 5, 3 * WORTH_A_THREAD]
    seen: dict[int, tuple[str, bool, int]] = {}

    def look(size: int) -> int:
        seen[size] = threading.current_thread().name, torch.is_grad_enabled(), torch.get_num_threads()
        return size

    with torch.no_grad():
        assert map_layers(look, [(layer(size), size) for size in sizes]) == sizes
    main = threading.current_thread().name
    for size, (name, gradients, share) in seen.items():
        apart = threads > 1 and size >= WORTH_A_THREAD
        assert (name != main) == apart
        assert not gradients
        assert share == (max(1, threads // 3) if apart else threads)
    assert torch.get_num_threads() == threads


def test_what_goes_wrong_in_a_thread_is_heard_and_threads_are_as_before(threads: int) -> None:
    def fail(size: int) -> None:
        raise ValueError(f"{size} is too large")

    with pytest.raises(ValueError, match="is too large"):
        map_layers(fail, [(layer(size), size) for size in (WORTH_A_THREAD, 2 * WORTH_A_THREAD)])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("method", ["SVDNet", "ALDSNet", "PCANet"])
def test_any_number_of_threads_gives_the_same_ranks(method: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(320, 320), nn.ReLU(), nn.Linear(320, 320), nn.ReLU(), nn.Linear(320, 4)).eval()
    example, before, found = torch.randn(700, 320), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            spectra._remembered.clear()
            found.append(prune_like(network, method, 0.4, example))
    finally:
        torch.set_num_threads(before)
    one, other = found
    parts = ("layer", "rank", "groups", "folding")
    ranks = [[[entry[part] for part in parts] for entry in result.structure] for result in found]
    assert ranks[0] == ranks[1] != []
    with torch.no_grad():
        assert torch.allclose(one.network(example), other.network(example), atol=1e-4)
