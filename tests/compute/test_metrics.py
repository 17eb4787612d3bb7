import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk
from torch.nn import functional

from luigi_prune import registry
from luigi_prune.compute.metrics.losses import Loss, MeanLoss
from luigi_prune.compute.metrics.metric_set import MetricSet
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(301, 6, generator=GENERATOR)
TARGETS = torch.randint(0, 6, (301,), generator=GENERATOR)
GUESSES = OUTPUTS.argmax(1)


def component(name, **kwargs):
    return Component(type=name, kwargs=kwargs)


def measured(components, outputs=OUTPUTS, targets=TARGETS, batch=32):
    metrics = MetricSet(components)
    for x, y in zip(outputs.split(batch), targets.split(batch), strict=True):
        metrics.update(x, y)
    return metrics.compute()


def in_top(k):
    return (OUTPUTS.topk(k, dim=1).indices == TARGETS[:, None]).any(1).double().mean().item()


@pytest.mark.parametrize(
    ("metric", "label", "expected"),
    [
        (component("TopK", topk=1), "TopK1", in_top(1)),
        (component("TopK", topk=3), "TopK3", in_top(3)),
        (component("TopK"), "TopK1", in_top(1)),
        (component("TopK", topk=9), "TopK9", 1.0),
        (component("IoU"), "IoU", sk.jaccard_score(TARGETS, GUESSES, average="macro")),
        (component("F1"), "F1", sk.f1_score(TARGETS, GUESSES, average="macro")),
        (component("MCorr"), "MCorr", sk.matthews_corrcoef(TARGETS, GUESSES)),
        (component("Pearson"), "Pearson", stats.pearsonr(GUESSES, TARGETS)[0]),
        (component("SpearmanRank"), "SpearmanRank", stats.spearmanr(GUESSES, TARGETS)[0]),
    ],
)
def test_metrics_of_classes(metric, label, expected):
    assert measured([metric]) == {label: pytest.approx(expected, abs=1e-5)}


def test_correlations_of_single_outputs():
    outputs = torch.randn(301, 1, generator=torch.Generator().manual_seed(1))
    targets = outputs[:, 0] + torch.randn(301, generator=torch.Generator().manual_seed(2))
    found = measured([component("Pearson"), component("SpearmanRank")], outputs, targets)
    assert found["Pearson"] == pytest.approx(stats.pearsonr(outputs[:, 0], targets)[0], abs=1e-5)
    assert found["SpearmanRank"] == pytest.approx(stats.spearmanr(outputs[:, 0], targets)[0], abs=1e-5)
    assert np.isnan(measured([component("Pearson")], torch.ones(8, 1), targets[:8])["Pearson"])


def test_f1_of_two_classes_is_that_of_class_one():
    outputs, targets = OUTPUTS[:, :2], TARGETS % 2
    expected = sk.f1_score(targets, outputs.argmax(1))
    assert measured([component("F1")], outputs, targets)["F1"] == pytest.approx(expected, abs=1e-6)


def test_two_top_k_are_told_apart_and_the_batches_do_not_matter():
    components = [component("TopK", topk=1), component("TopK", topk=2), component("MCorr")]
    assert list(measured(components)) == ["TopK1", "TopK2", "MCorr"]
    assert measured(components, batch=1) == measured(components, batch=301)


def test_a_state_that_was_saved_half_way_goes_on_to_the_same_value():
    components = [component(name) for name in registry.METRICS]
    first = MetricSet(components)
    first.update(OUTPUTS[:100], TARGETS[:100])
    second = MetricSet(components)
    second.load(first.state(), CPU)
    second.update(OUTPUTS[100:], TARGETS[100:])
    assert second.compute() == measured(components)
    second.reset()
    second.update(OUTPUTS[:50], TARGETS[:50])
    assert second.compute() == measured(components, OUTPUTS[:50], TARGETS[:50])


def test_a_process_that_resumes_without_a_batch_left_adds_nothing_to_the_pool():
    """All but rank 0 load the state to know the metric's classes, and clear it."""

    class Other:
        """Stands for another process with the same counts as in `state`."""

        def sum_(self, tensors):
            for tensor, count in zip(tensors, counts, strict=True):
                tensor.add_(count)

    named = (Component(type="TopK"),)
    full = MetricSet(named)
    full.update(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    state = full.state()
    counts = [value for name, value in state["TopK1"].items() if name != "classes"]
    resumed = MetricSet(named)
    resumed.load(state, torch.device("cpu"))
    resumed.reset()
    resumed.pool(Other())
    assert resumed.compute() == full.compute() == {"TopK1": 0.75}


@pytest.mark.parametrize(
    ("metric", "message"), [("TopK", "at least 2 outputs"), ("IoU", "at least 2 outputs"), ("Topk", "TopK")]
)
def test_a_metric_that_cannot_be_computed_is_a_one_line_error(metric, message):
    with pytest.raises(ConfigError, match=message):
        measured([component(metric)], OUTPUTS[:, :1])


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
@pytest.mark.parametrize("name", sorted(registry.LOSSES))
def test_every_loss_of_the_catalogue_is_finite_and_has_a_gradient(name):
    outputs = OUTPUTS.sigmoid() if name == "BCELoss" else OUTPUTS.log_softmax(1)
    outputs = outputs.clone().requires_grad_()
    value = Loss(name, {})(outputs, TARGETS)
    value.backward()
    assert value.ndim == 0
    assert torch.isfinite(value)
    assert outputs.grad.abs().sum() > 0


def test_losses_of_real_numbers_compare_with_one_hot_classes():
    hot = functional.one_hot(TARGETS, 6).float()
    assert torch.equal(Loss("MSELoss", {})(OUTPUTS, TARGETS), functional.mse_loss(OUTPUTS, hot))
    assert torch.equal(Loss("SoftMarginLoss", {})(OUTPUTS, TARGETS), functional.soft_margin_loss(OUTPUTS, 2 * hot - 1))
    real = torch.randn(301, 6, generator=GENERATOR)
    assert torch.equal(Loss("L1Loss", {})(OUTPUTS, real), functional.l1_loss(OUTPUTS, real))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"reduction": "mean", "label_smoothing": 0.1},
        {"weight": [1.0, 2, 3, 4, 5, 6]},
        {"ignore_index": 2},
        {"weight": [0.5, 2, 3, 4, 5, 6], "ignore_index": 1},
    ],
)
def test_the_mean_over_unequal_batches_is_that_of_all_samples(kwargs):
    loss = Loss("CrossEntropyLoss", kwargs)
    mean = MeanLoss(loss)
    for x, y in zip(OUTPUTS.split([200, 100, 1]), TARGETS.split([200, 100, 1]), strict=True):
        mean.add(loss(x, y), loss.share(y))
    assert mean.value() == pytest.approx(loss(OUTPUTS, TARGETS).item(), rel=1e-5)
    again = MeanLoss(loss)
    again.set(*mean.sums())
    assert again.value() == mean.value()
    again.reset()
    assert np.isnan(again.value())


def test_a_summed_loss_is_reported_per_sample():
    loss = Loss("CrossEntropyLoss", {"reduction": "sum"})
    mean = MeanLoss(loss)
    for x, y in zip(OUTPUTS.split(200), TARGETS.split(200), strict=True):
        mean.add(loss(x, y), loss.share(y))
    assert mean.value() == pytest.approx(functional.cross_entropy(OUTPUTS, TARGETS).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("CrossEntropyLoss", {"reduction": "none"}, "choose mean or sum"),
        ("CrossEntropyLoss", {"smoothing": 1}, "cannot be built"),
        ("CrossEntropy", {}, "CrossEntropyLoss"),
    ],
)
def test_a_loss_that_cannot_work_is_a_one_line_error(name, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        Loss(name, kwargs)


PIXELS = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(3))
MASKS = torch.randint(0, 4, (3, 5, 5), generator=torch.Generator().manual_seed(4))


def test_an_auxiliary_output_counts_half_where_there_are_gradients_and_ignored_pixels_never():
    masks = MASKS.clone()
    masks[:, :2] = 255
    loss = Loss("CrossEntropyLossWithAuxiliary", {"reduction": "mean", "ignore_index": 255})
    plain = functional.cross_entropy(PIXELS[:, :, 2:], masks[:, 2:])
    other = functional.cross_entropy(-PIXELS[:, :, 2:], masks[:, 2:])
    outputs = {"out": PIXELS, "aux": -PIXELS}
    assert loss(outputs, masks) == pytest.approx((plain + 0.5 * other).item())
    with torch.no_grad():
        assert loss(outputs, masks) == pytest.approx(plain.item())
    assert loss(PIXELS, masks) == pytest.approx(plain.item())
    assert loss.share(masks) == 3 * 3 * 5


@pytest.mark.parametrize("metric", [component("TopK"), component("IoU")], ids=["TopK", "IoU"])
def test_pixels_of_no_class_do_not_count(metric):
    masks = MASKS.clone()
    masks[:, :2] = 255
    (value,) = measured([metric], PIXELS, masks, batch=2).values()
    kept = PIXELS[:, :, 2:].movedim(1, -1).reshape(-1, 4)
    assert [value] == pytest.approx([*measured([metric], kept, MASKS[:, 2:].reshape(-1)).values()])


def test_the_loss_of_a_network_is_read_from_its_output_or_computed_from_its_logits_as_the_network_does():
    loss = Loss("LossFromInput", {})
    logits = OUTPUTS[:5]
    expected = functional.cross_entropy(logits, TARGETS[:5]).item()
    assert loss({"loss": torch.tensor(3.0), "logits": logits}, TARGETS[:5]) == 3
    assert loss({"loss": None, "logits": logits}, TARGETS[:5]) == pytest.approx(expected)
    real = torch.linspace(0, 1, 5)
    assert loss({"logits": logits[:, :1]}, real) == pytest.approx(((logits[:, 0] - real) ** 2).mean().item())
    with pytest.raises(ConfigError, match="6 outputs do not fit targets that are real numbers"):
        loss({"logits": logits}, real)
    with pytest.raises(ConfigError, match="mean"):
        Loss("LossFromInput", {"reduction": "sum"})


def test_a_loss_that_its_keywords_make_fail_is_one_line():
    outputs, targets = torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])
    with pytest.raises(
        ConfigError, match=r"training\.loss: CrossEntropyLoss with training\.lossKwargs .*4, 3.*smoothing"
    ):
        Loss("CrossEntropyLoss", {"label_smoothing": 2})(outputs, targets)
    with pytest.raises(ConfigError, match=r"training\.lossKwargs\.weight: 2 numbers, but there is a class 2"):
        Loss("CrossEntropyLoss", {"weight": [1, 2]}).share(targets)
