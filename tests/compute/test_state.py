"""State dictionaries survive the way through a result file: order, types, buffers."""

from __future__ import annotations

import torch
from torch import nn

from luigi_prune.compute.state import from_arrays, load_state, to_arrays
from luigi_prune.results.hdf5_file import read_result, write_result


def through_a_file(path, state):
    arrays, types = to_arrays(state)
    write_result(path, family="f", key="k", spec={}, provenance={}, arrays=arrays, meta={"types": types})
    result = read_result(path)
    return from_arrays(result.arrays, result.meta["types"])


def test_order_types_and_buffers_survive(tmp_path):
    state = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)).state_dict()
    state["half"] = torch.randn(4, 5).half()
    state["brain"] = torch.randn(40, 50).bfloat16()
    state["double"] = torch.randn(2, dtype=torch.float64)
    state["flags"] = torch.rand(3, 7) > 0.5
    state["scalar"] = torch.tensor(3)
    back = through_a_file(tmp_path / "r.h5", state)
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_negative_zeros_of_masked_weights_become_zeros(tmp_path):
    weight = torch.randn(100, 100)
    state = {"weight": weight * (torch.rand(100, 100) < 0.1)}
    assert bool((torch.signbit(state["weight"]) & (state["weight"] == 0)).any())
    back = through_a_file(tmp_path / "r.h5", state)["weight"]
    assert torch.equal(back, state["weight"])
    assert not bool((torch.signbit(back) & (back == 0)).any())
    assert (tmp_path / "r.h5").stat().st_size < 0.35 * weight.numel() * 4


class Versioned(nn.Linear):
    """A layer whose second version stores its weight doubled, as torchvision's MNASNet refuses states without one."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *others):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = 2 * state_dict[f"{prefix}weight"]
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def test_a_stored_state_is_one_of_the_present_version(tmp_path):
    network, fresh = nn.Sequential(Versioned(3, 2)), nn.Sequential(Versioned(3, 2))
    state = through_a_file(tmp_path / "r.h5", network.state_dict())
    load_state(fresh, state)
    assert torch.equal(fresh[0].weight, network[0].weight)
    fresh.load_state_dict(dict(state))
    assert not torch.equal(fresh[0].weight, network[0].weight)
