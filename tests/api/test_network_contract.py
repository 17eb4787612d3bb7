"""The contract of networks by name, for the smallest members of every family."""

from __future__ import annotations

import pytest

from tests.api.network_contract import check

TINY = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("lenet500_300_100", 6),
        ("fcnet_nettrim", 6),
        ("cnn60k", 10),
        ("deepknight", 53),
        ("resnet14", 8),
        ("resnet8_bottleneck", 8),
        ("wrn10_1", 8),
        ("densenet10_k4", 8),
        ("squeezenet1_1", 21),
    ],
)
def test_the_smallest_network_of_every_family_trains_is_pruned_saved_and_loaded(name, pixels):
    check(name, pixels)


@pytest.mark.slow
def test_a_larger_one_does_so_too():
    check("alexnet_cifar", 32)


def test_networks_of_timm_do_so_too():
    pytest.importorskip("timm")
    check("timm:test_resnet", 32)


def test_networks_of_transformers_do_so_too():
    pytest.importorskip("transformers")
    check("bert", vocab_size=20, **TINY)
    check("hf:vit", 16, methods=("ThresNet",), patch_size=8, **TINY)
