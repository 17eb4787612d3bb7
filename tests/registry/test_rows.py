"""The light rows against the installed torch, torchvision and matplotlib, and what is said about other names."""

import importlib
import inspect

import pytest

from luigi_prune import registry
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError
from luigi_prune.registry import KINDS, METHODS, find, metric_label
from luigi_prune.registry.colors import CSS_COLORS, TABLEAU_COLORS, is_color

CLASSES = ("optimizer", "scheduler", "loss", "transform")
ROWS = [(kind, row) for kind in KINDS if kind != "method" for row in KINDS[kind].rows.values()]


def resolve(path):
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=[f"{kind}-{row.name}" for kind, row in ROWS])
def test_every_row_leads_somewhere(kind, row):
    assert callable(resolve(row.path))


@pytest.mark.parametrize(
    ("kind", "row"), [r for r in ROWS if r[0] in (*CLASSES, "metric")], ids=lambda value: getattr(value, "name", value)
)
def test_keywords_are_those_of_the_class(kind, row):
    parameters = inspect.signature(resolve(row.path)).parameters
    assert set(row.keywords) <= set(parameters)
    own = {"params", "optimizer", "last_epoch"}  # what the training loop gives
    needed = {name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD} - own
    assert set(row.required) == needed


def subclasses(module, ancestor):
    return {
        name
        for name, kind in vars(importlib.import_module(module)).items()
        if inspect.isclass(kind) and issubclass(kind, ancestor) and kind is not ancestor and not name.startswith("_")
    }


def test_no_class_of_torch_is_forgotten():
    import torch
    from packaging.version import Version

    if Version(torch.__version__) >= Version("2.15"):
        pytest.skip("a torch newer than the rows may have new classes")
    found = {
        "optimizer": subclasses("torch.optim", torch.optim.Optimizer),
        "scheduler": subclasses("torch.optim.lr_scheduler", torch.optim.lr_scheduler.LRScheduler),
        "loss": {name for name in subclasses("torch.nn", torch.nn.Module) if name.endswith("Loss")},
    }
    for kind, names in found.items():
        assert names <= {*KINDS[kind].rows, *KINDS[kind].unsuitable}, kind


def test_colours_are_those_of_matplotlib():
    from matplotlib.colors import CSS4_COLORS, XKCD_COLORS, is_color_like
    from matplotlib.colors import TABLEAU_COLORS as tableau

    assert set(CSS4_COLORS) == CSS_COLORS
    assert set(tableau) == TABLEAU_COLORS
    good = [
        "red",
        "#1f77b4",
        "#abc",
        "#11223344",
        "C3",
        "tab:blue",
        "xkcd:sky blue",
        "0.5",
        "k",
        "1.0",
        "1e-1",
        "TEAL",
        *XKCD_COLORS,
    ]
    bad = [
        "reddish",
        "#12",
        "tab:mauve",
        "1.5",
        "",
        "kk",
        "#gggggg",
        "xkcd:skyy",
        "c3",
        "C",
        "K",
        "nan",
        "-0.1",
        "xkcd:",
    ]
    for text in good:
        assert is_color(text), text
        assert is_color_like(text), text
    for text in bad:
        assert not is_color(text), text
        assert not is_color_like(text), text
    assert all(is_color(row.color) for row in METHODS.values())


def test_methods_can_be_told_apart():
    for attributes in (("short",), ("label",), ("color", "marker")):
        values = [tuple(getattr(row, attribute) for attribute in attributes) for row in METHODS.values()]
        assert len(set(values)) == len(values)
    assert not set(registry.SHORT_NAMES) & set(METHODS)


def test_rows_for_pruning_are_whole():
    for row in METHODS.values():
        pruned = row.granularity != "none"
        assert bool(row.score) == bool(row.allocation) == pruned
        assert (row.selection != "none") == pruned
    assert [row.name for row in METHODS.values() if not row.retrained] == ["ReferenceNet"]


def test_find_takes_short_names_of_methods():
    assert find("method", "WT") is METHODS["ThresNet"]
    assert find("optimizer", "SGD").path == "torch.optim:SGD"


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("optimizer", "SDG", "is not an optimizer; did you mean 'SGD'?"),
        ("method", "ThresNets", "is not a pruning method; did you mean 'ThresNet'?"),
        ("network", "resnett20", "is not a network; did you mean 'resnet20'?"),
        ("dataset", "cifar10", "did you mean 'CIFAR10'?"),
        ("method", "ALDSNets", "did you mean 'ALDSNet'?"),
        ("network", "node_l1_h64_tanh", "at least two layers"),
        ("network", "cnf_l4_h64_sigmoids_da", "did you mean 'cnf_l4_h64_sigmoid_da'?"),
        ("network", "wrn29_2", "has 6 n + 4 layers"),
        ("network", "resnet21", "has 6 n + 2 layers; did you mean"),
        ("network", "vgg17_bn", "did you mean 'vgg1"),
        ("network", "resnext", "no experiment file can give; choose a network with its depth"),
        ("dataset", "CIFAR10_C_Fogs_3", "did you mean 'Fog'?"),
        ("dataset", "GlueCola", "did you mean 'GlueCoLA'?"),
        ("dataset", "ToyMoon", "did you mean 'ToyMoons'?"),
        ("transform", "SegToTensors", "did you mean 'SegToTensor'?"),
        ("loss", "NLLBit", "did you mean 'NLL"),
        ("scheduler", "LambdaLR", "which YAML cannot express"),
        ("optimizer", "SparseAdam", "sparse gradients only"),
    ],
)
def test_other_names_are_refused_with_a_reason(kind, name, words):
    with pytest.raises(ConfigError) as error:
        find(kind, name)
    assert words in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("family", registry.NETWORKS.families, ids=lambda family: family.form)
def test_members_of_families_are_found_like_rows_and_only_well_known_ones_are_suggested(family):
    if "bert" in family.names:
        pytest.importorskip("transformers")
    for name in family.names:
        row = find("network", name)
        assert row.name == name
        assert name in registry.NETWORKS
        assert registry.resolve_name("network", name) == name
    assert set(family.names) <= set(registry.NETWORKS.choices)


def test_names_that_torchvision_shares_with_small_images_can_be_told_apart():
    assert find("network", "resnet50").settings["architecture"] == "resnet50"
    assert find("network", "torchvision:vgg16").path == find("network", "resnet50").path
    assert find("network", "vgg16").path != find("network", "vgg16_cifar").path
    assert find("network", "wrn34_3").settings["blocks"] == 5


def test_metric_labels():
    assert metric_label(Component(type="TopK", kwargs={"topk": 5})) == "TopK5"
    assert metric_label(Component(type="TopK")) == "TopK1"
    assert metric_label(Component(type="IoU")) == "IoU"
