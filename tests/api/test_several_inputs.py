"""Networks of several inputs and of structured outputs are pruned as networks of one tensor that compute the same."""

from __future__ import annotations

from collections import UserDict
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune import api
from luigi_prune.compute.network_inputs import call, prediction, split_output
from luigi_prune.compute.pruning.engine.arguments import with_noise
from luigi_prune.compute.pruning.problem.free_inputs import free_inputs, other_mask
from luigi_prune.errors import ConfigError
from luigi_prune.registry import METHODS
from tests.api.several_inputs import CLASSES, LENGTH, SEVERAL, Classifier, Output, logits_of, pair, pictures, tokens

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be met on this network")
PRUNING = [name for name, row in METHODS.items() if row.granularity != "none"]
# One of every way in which methods run a network; all methods on two kinds of inputs.
READERS = ["SnipNet", "SiPPNet", "ThiNet", "PCANet", "FilterThresNet"]
CASES = [(name, kind) for kind in SEVERAL for name in (PRUNING if kind in ("dict", "fusion") else READERS)]


def batches(inputs: Any) -> list[Any]:
    """Return three batches of different sizes."""
    return [(inputs(count), torch.arange(count) % 10) for count in (4, 7, 5)]


@cache
def twin_pruned(method: str, twin: type[nn.Module], rules: str) -> api.Pruned:
    """Return the twin of one input, pruned."""
    kind = next(kind for kind, case in SEVERAL.items() if case.twin is twin)
    given = batches(SEVERAL[kind].twin_inputs)
    return api.prune(pair(kind)[1], method, 0.4, calibration=given, loss=F.cross_entropy, rules=rules)


def check_like_its_twin(method: str, kind: str, rules: str) -> None:
    case, (network, _) = SEVERAL[kind], pair(kind)
    pruned = api.prune(network, method, 0.4, calibration=batches(case.inputs), loss=case.loss, rules=rules)
    wanted = twin_pruned(method, case.twin, rules)
    assert (pruned.size, pruned.flops) == (wanted.size, wanted.flops)
    assert pruned.masks.keys() == wanted.masks.keys()
    assert all(torch.equal(mask, wanted.masks[name]) for name, mask in pruned.masks.items())
    assert pruned.structure == wanted.structure
    with torch.no_grad():
        assert torch.isfinite(prediction(call(pruned.network.eval(), case.inputs(3)))).all()


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_the_masks_are_those_of_the_same_network_of_one_input(method: str, kind: str) -> None:
    check_like_its_twin(method, kind, "paper")


@pytest.mark.parametrize("kind", SEVERAL)
def test_the_rules_of_the_reference_read_several_inputs(kind: str) -> None:
    check_like_its_twin("SnipNet", kind, "reference")
    check_like_its_twin("FilterThresNet", kind, "reference")


# ----------------------------------------------------------------------------------- what a probe may not take as given


class Mixed(nn.Module):
    """A row of numbers beside integers that mean something: a category, a step in time, or flags."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.table = kind, nn.Embedding(4, 6)
        self.row, self.other = nn.Linear(5, 8), nn.Linear(2 if kind == "flags" else 6, 8)
        self.both, self.head = nn.Linear(16, 12), nn.Linear(12, CLASSES)

    def forward(self, row: Tensor, integers: Tensor) -> Tensor:
        if self.kind == "category":
            other = self.table(integers)
        elif self.kind == "step":
            angles = integers[:, None] * torch.tensor([0.1, 0.3, 1.0])
            other = torch.cat([angles.sin(), angles.cos()], 1)
        else:
            other = integers.float()
        return self.head(F.relu(self.both(F.relu(torch.cat([self.row(row), self.other(other)], 1)))))


INTEGERS = {"category": ([2] * 4, [1] * 4), "step": ([3] * 4, [20] * 4), "flags": ([[0, 0]] * 4, [[1, 1]] * 4)}


@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "PFPNet"])
@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_that_are_all_alike_in_the_example_still_matter(kind: str, method: str) -> None:
    torch.manual_seed(0)
    network, row = Mixed(kind), torch.randn(4, 5)
    alike, others = (torch.tensor(values) for values in INTEGERS[kind])
    batches = [((row, alike), torch.arange(4))]
    pruned = api.prune(network, method, 0.8, calibration=batches, loss=F.cross_entropy).network
    with torch.no_grad():
        before, after = (net(row, others) - net(row, alike) for net in (network, pruned))
    assert after.abs().max() > 0.1 * before.abs().max()


MASKS = {
    "0 and 1": lambda keep: keep.float(),
    "all ones": lambda keep: torch.ones_like(keep, dtype=torch.float32),
    "all zeros": lambda keep: torch.zeros_like(keep, dtype=torch.float32),
    "minus infinity": lambda keep: torch.where(keep > 0, 0.0, -torch.inf),
    "the least float": lambda keep: torch.where(keep > 0, 0.0, torch.finfo(torch.float32).min),
    "per head and query": lambda keep: torch.where(keep > 0, 0.0, -1e9)[:, None, None, :].expand(-1, 2, LENGTH, -1),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_floats_are_no_noise(kind: str) -> None:
    ids, keep = tokens(5)
    mask = MASKS[kind](keep)
    assert free_inputs((ids, mask)) == [False, False]
    assert free_inputs({"mask": mask, "embeds": torch.randn(5, LENGTH, 8)}) == [False, True]
    other = other_mask(mask, 2)
    assert other.shape == (2, *mask.shape[1:])
    if bool(((mask == 0) | (mask == 1)).all()):
        assert (other[0] != other[1]).all()
        assert (other.amax(-1) == 1).all()
        assert (other.amin(-1) == 0).all()
    else:
        assert torch.equal(other, mask[:2])


class Attention(nn.Module):
    """Attention over vectors, with a mask that is added to the scores, multiplied, or selects."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        if not mask.is_floating_point():
            scores = scores.masked_fill(~mask.bool()[:, None], -torch.inf)
        else:
            scores = scores + (mask if bool((mask < 0).any()) else (1 - mask) * -1e4)[:, None]
        return self.head(F.relu(self.out(torch.softmax(scores, -1) @ self.value(x))).mean(1))


@pytest.mark.parametrize("method", ["ThresNet", "FilterThresNet", "PFPNet"])
def test_a_mask_of_any_form_gives_the_same_pruned_network(method: str) -> None:
    torch.manual_seed(0)
    network, keep, x = Attention(), tokens(4)[1], torch.randn(4, LENGTH, 8)
    forms = [keep, keep.bool(), *(MASKS[form](keep) for form in ("0 and 1", "minus infinity", "the least float"))]
    first, *others = [
        api.prune(network, method, 0.4, calibration=[((x, mask), torch.arange(4))], loss=F.cross_entropy).masks
        for mask in forms
    ]
    for masks in others:
        assert masks.keys() == first.keys()
        assert all(torch.equal(masks[name], first[name]) for name in first)


@pytest.mark.parametrize(
    ("inputs", "free"),
    [
        (torch.zeros(2, 3, 8, 8), [True]),
        ((torch.zeros(2, 3, 8, 8),), [True]),
        ((torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)), [True, True]),  # of which none can be the other's mask
        ((torch.zeros(2, 3, 8, 8), torch.zeros(2, 16, dtype=torch.bool)), [True, False]),
        ((torch.ones(2, 5), torch.randint(0, 9, (2, 7))), [True, False]),
        ((torch.randn(2, 3, 8, 8), torch.ones(2, 1, 8, 8)), [True, False]),
        ((torch.randn(2, 7, 4), torch.ones(2, 7, 1)), [True, False]),
        ((torch.randn(2, 7), [torch.randn(2, 1), None]), [True, True]),
    ],
)
def test_black_images_and_flags_are_no_masks(inputs: Any, free: list[bool]) -> None:
    assert free_inputs(inputs) == free


def test_several_float_inputs_get_noise_and_masks_do_not() -> None:
    image, row = pictures(3)
    keep = torch.ones(3, 1, 4, 4)
    noisy = with_noise({"image": image, "row": row, "keep": keep, "none": None}, seed=0)
    assert {name: len(value) for name, value in noisy.items() if value is not None} == {"image": 6, "row": 6, "keep": 6}
    assert torch.equal(noisy["keep"], torch.ones(6, 1, 4, 4))
    assert torch.equal(noisy["image"][:3], image)
    assert not torch.equal(noisy["row"][3:], row)
    assert torch.equal(with_noise((image,), 0)[0], with_noise(image, 0))


# ------------------------------------------------------------------------------------------------- forms and complaints


def test_a_bare_dictionary_is_a_batch_with_its_labels() -> None:
    class Scored(Classifier):
        def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Output:  # type: ignore[override]
            logits = self.classify(input_ids, attention_mask)
            return Output(logits, None if labels is None else F.cross_entropy(logits, labels))

    network = Scored()
    given = [UserDict({**SEVERAL["logits"].inputs(count), "labels": torch.arange(count)}) for count in (4, 6)]
    own = api.prune(network, "SnipNet", 0.4, calibration=given, loss=lambda outputs, _: outputs.loss)
    outer = api.prune(network, "SnipNet", 0.4, calibration=given, loss=logits_of(F.cross_entropy))
    assert own.masks.keys() == outer.masks.keys()
    assert all(torch.equal(own.masks[name], outer.masks[name]) for name in own.masks)


def test_what_cannot_be_an_input_is_refused_in_one_line() -> None:
    network, _ = pair("tuple")
    (ids, mask), targets = tokens(4), torch.arange(4)
    named, _ = pair("logits")
    by_name = SEVERAL["logits"].inputs(4)
    cases: list[tuple[str, nn.Module, dict[str, Any]]] = [
        ("the network requires 2 inputs (ids, mask)", network, {}),
        ("input '1': 3 samples along the first axis, but input '0' has 4", network, {"example_input": (ids, mask[:3])}),
        ("input '1': expected a tensor", network, {"example_input": (ids, mask.numpy())}),
        ("convert it with torch.from_numpy", network, {"example_input": (ids, mask.numpy())}),
        ("got a set", network, {"example_input": {4}}),
        ("input 'b': expected a batch, got a tensor without axes", network, {"example_input": {"b": torch.tensor(1)}}),
        ("the example input has no tensor", network, {"example_input": (None, 3)}),
        ("the example input has no samples", network, {"example_input": (ids[:0], mask[:0])}),
        ("by the names of the network's arguments", network, {"example_input": {0: ids}}),
        ("has NaN", network, {"example_input": (ids, mask * torch.nan)}),
        ("the inputs, 1 in a row, do not fit the network's forward(ids, mask): missing a required argument: 'mask'",
         network, {"example_input": ids}),
        ("a dictionary of input_ids, attention_mask, do not fit", network, {"example_input": by_name}),
        ("too many positional arguments; a list that is one argument is written ([a, b],)", network,
         {"example_input": [ids, mask, mask]}),
        ("3 parts; write ((a, b), targets)", network, {"calibration": [(ids, mask, targets)]}),
        ("batch 1 has 4 inputs but targets of shape (3,)", network,
         {"calibration": [((ids, mask), targets), ((ids, mask), targets[:3])]}),
        ("batch 0, input 'attention_mask': 2 samples", named,
         {"calibration": [({**by_name, "attention_mask": mask[:2]}, targets)]}),
        ("output of type Output, which it gets as it is (TypeError", named,
         {"method": "SnipNet", "calibration": [(by_name, targets)], "loss": F.cross_entropy}),
        ("the loss fails without targets", named,
         {"method": "SnipNet", "calibration": [by_name], "loss": logits_of(F.cross_entropy)}),
    ]  # fmt: skip
    for message, given, settings in cases:
        arguments: dict[str, Any] = {"method": "ThresNet", "keep_ratio": 0.5, **settings}
        with pytest.raises(ConfigError) as caught:
            api.prune(given, **arguments)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_outputs_are_split_by_sample_if_they_can_be() -> None:
    rows = torch.arange(10.0).view(5, 2)
    one, other = split_output(Output(rows), [2, 3]) or ()
    assert (type(one), one.loss) == (Output, None)
    assert torch.equal(other.logits, rows[2:])
    nested = split_output({"a": [rows, (rows[:, 0], None)]}, [4, 1]) or []
    assert torch.equal(nested[1]["a"][1][0], rows[4:, 0])
    assert split_output(Output(rows, rows.sum()), [2, 3]) is None
    assert split_output((rows, rows[:4]), [2, 3]) is None


def test_the_prediction_is_the_logits_the_first_or_the_only_tensor() -> None:
    rows = torch.randn(3, 2)
    outputs: list[Any] = [rows, Output(rows, rows.sum()), {"aux": -rows, "out": rows}, (rows, -rows), {"scores": rows}]
    assert all(prediction(output) is rows for output in outputs)
    with pytest.raises(ConfigError, match="a dict with one, other, in which losses and metrics find no `logits`"):
        prediction({"one": rows, "other": rows})
