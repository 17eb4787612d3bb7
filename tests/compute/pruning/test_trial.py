"""The trial that a budget search cuts again and again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from luigi_prune import api
from luigi_prune.compute.pruning.engine.trial import Trial
from tests.compute.pruning.zoo import Residual


@pytest.mark.parametrize("method", ["ThresNet", "SiPPNetRand", "SiPPNetHybrid", "FilterThresNet", "PFPNetRand"])
def test_the_check_of_propagation_restores_the_cut_and_what_propagation_made_of_it_without_another_draw(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[list[Tensor]] = []
    restored: list[list[Tensor]] = []
    checked: list[list[Tensor]] = []
    propagate, cut_again, is_sound = Trial._propagate, Trial._cut_again, Trial.is_sound

    def state(trial: Trial) -> list[Tensor]:
        return [value.clone() for value in (*trial._tensors, *(trial.masks[name] for name in sorted(trial.masks)))]

    def propagated(trial: Trial) -> None:
        cuts.append(state(trial))
        propagate(trial)

    def cut(trial: Trial) -> None:
        cut_again(trial)
        restored.append(state(trial))

    def check(trial: Trial, level: int) -> bool:
        trial.size_at(level)
        checked.append(state(trial))
        sound = is_sound(trial, level)
        checked.append(state(trial))
        return sound

    monkeypatch.setattr(Trial, "is_sound", check)
    monkeypatch.setattr(Trial, "_propagate", propagated)
    monkeypatch.setattr(Trial, "_cut_again", cut)
    torch.manual_seed(0)
    data = [(torch.rand(8, 3, 8, 8), torch.randint(0, 10, (8,)))]
    api.prune(Residual(), method, 0.2, calibration=data, loss=F.cross_entropy)
    assert len(restored) == 1
    for one, other in ((cuts[-1], restored[0]), checked):
        assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
