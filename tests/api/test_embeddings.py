"""Embeddings are pruned on request only, by methods of single weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from luigi_prune import api
from luigi_prune.errors import ConfigError

EXACT = "ThresNet", "SnipNet"
TOKENS = torch.arange(24).view(4, 6) % 5  # few of the 40 words


class Words(nn.Module):
    """Words and their places, added, behind a tied output layer's words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.tied = nn.Embedding(40, 8), nn.Embedding(6, 8), nn.Embedding(5, 8)
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 5)
        self.head.weight = self.tied.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1])) + self.tied(tokens % 5)
        return self.head(torch.relu(self.body(x)).mean(1))


def words() -> nn.Module:
    torch.manual_seed(0)
    return Words()


def pruned_words(method: str = "ThresNet", ratio: float = 0.3, **settings: object) -> api.Pruned:
    data = [(TOKENS, torch.arange(4))]
    return api.prune(words(), method, ratio, calibration=data, loss=nn.functional.cross_entropy, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["ThresNet", "SnipNet", "UniNet", "EllOneNet", "EllTwoNet"])
def test_embeddings_are_pruned_on_request_and_stay_so(method: str) -> None:
    network, count = words(), sum(value.numel() for value in words().parameters())
    pruned = pruned_words(method, include=["words", "p*"])
    assert abs(pruned.size / count - 0.3) < (0.02 if method in EXACT else 0.08)
    for name in ("words", "places"):
        table, mask = pruned.network.get_submodule(name).weight, pruned.masks[f"{name}.weight"]
        assert 0 < int(mask.sum()) < mask.numel()
        assert torch.equal(table != 0, mask)
        if method in EXACT:  # the others weight the samples that they keep
            assert torch.equal(table[mask], network.get_submodule(name).weight[mask])
    optimizer = torch.optim.Adam(pruned.network.parameters())
    pruned.network(TOKENS).square().sum().backward()
    optimizer.step()
    assert not bool(pruned.network.get_submodule("words").weight[~pruned.masks["words.weight"]].any())
    with pytest.warns(UserWarning, match="Embedding 'words'.*which is not pruned"):
        without = pruned_words(method, 0.1)
    assert not without.masks.keys() & {"words.weight", "places.weight"}


def test_a_feature_of_words_that_the_example_does_not_have_stays_alive() -> None:
    network = words()
    with torch.no_grad():
        network.words.weight[:30, 3] = 1e-6
        network.places.weight[:, 3] = network.tied.weight[:, 3] = 1e-6
        network.words.weight[30:, 3] = 5.0
        network.body.weight[:, 3] = 5.0
    pruned = api.prune(network, "ThresNet", 0.6, example_input=TOKENS, include=["words", "places"])
    assert not bool(pruned.network.words.weight[:30, 3].any())
    assert bool(pruned.network.words.weight[30:, 3].all())
    assert int((pruned.network.body.weight[:, 3] != 0).sum()) > 4  # for words that the example lacks


@pytest.mark.parametrize(
    ("method", "settings", "words_"),
    [
        ("FilterThresNet", {"include": "words"}, "prunes filters, which embeddings do not have; ThresNet prunes them"),
        ("SiPPNet", {"include": "words"}, "ranks weights by shares of a sum"),
        ("ThresNet", {"include": ["word"]}, "there is no embedding 'word' .* did you mean 'words'"),
        ("ThresNet", {"include": ["tied"]}, "no embedding 'tied' that is not a layer already"),
        ("ThresNet", {"include": ["words"], "rules": "reference"}, "rules='reference' prunes no embeddings"),
    ],
)
def test_other_requests_are_one_line(method: str, settings: dict[str, object], words_: str) -> None:
    with pytest.raises(ConfigError, match=f"{method}: include: .*{words_}"):
        pruned_words(method, **settings)


@pytest.mark.parametrize("method", ["ThresNet", "SnipNet"])
def test_bags_of_words_are_embeddings(method: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.EmbeddingBag(40, 8), nn.ReLU(), nn.Linear(8, 5))
    data, count = [(TOKENS, torch.arange(4))], sum(value.numel() for value in network.parameters())

    def pruned(ratio: float, **settings: object) -> api.Pruned:
        return api.prune(network, method, ratio, calibration=data, loss=nn.functional.cross_entropy, **settings)  # type: ignore[arg-type]

    found = pruned(0.3, include=["0"])
    table, mask = found.network.get_submodule("0").weight, found.masks["0.weight"]
    assert abs(found.size / count - 0.3) < 0.02
    assert torch.equal(table != 0, mask)
    assert torch.equal(table[mask], network[0].weight[mask])
    with pytest.warns(UserWarning, match="EmbeddingBag '0'.*which is not pruned"):
        assert "0.weight" not in pruned(0.1).masks
    with pytest.raises(ConfigError, match="embeddings do not have; ThresNet prunes them"):
        api.prune(network, "FilterThresNet", 0.5, calibration=data, include=["0"])
