import re
from pathlib import Path

import pytest
import torch

from luigi_prune import registry
from luigi_prune.compute.named import resolve
from luigi_prune.compute.networks import InputTooSmall, build
from luigi_prune.compute.pruning import count_flops, layer_budgets
from luigi_prune.errors import ConfigError
from luigi_prune.registry.network_families import BY_SIZE, TORCHVISION

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
ROW = re.compile(r"\| `(\w+)` \| (\d+)x(\d+)x(\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| (\d+) \|")
SIZES = [
    tuple(int(text.replace(",", "")) if text[0].isdigit() else text for text in row)
    for row in ROW.findall(PAGE.read_text())
]
SMALL = sorted(name for name, row in registry.NETWORKS.items() if row.smallest <= 16)


@pytest.mark.parametrize("row", SIZES, ids=[f"{row[0]}-{row[1]}x{row[2]}x{row[3]}" for row in SIZES])
def test_the_page_of_networks_has_the_parameters_multiply_adds_and_layers_of_every_network(row):
    name, *shape, outputs, parameters, multiply_adds, layers = row
    with torch.device("meta"):  # shapes without values: nothing is computed
        network = build(name, tuple(shape), outputs, seed=0).eval()
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
        assert count_flops(network, torch.zeros(1, *shape)) == multiply_adds
    assert len(layer_budgets(network)) == layers


def test_the_page_of_networks_has_every_network():
    named = {name for family in registry.NETWORKS.families for name in family.names}
    listed = {row[0] for row in SIZES} | {"bert"}
    continuous = {name for name in named if re.match("(node|ffjord|cnf)_", name)}  # in test_continuous_networks.py
    assert set(registry.NETWORKS) | named - set(TORCHVISION) - continuous <= listed
    forms = [family.form.split("[")[0] for family in registry.NETWORKS.families if "<" in family.form]
    assert all(f"| `{form}" in PAGE.read_text() for form in (*forms, "timm:NAME", "hf:NAME"))


# Counted from torchprune's own definitions, and with torchvision for images of 224 pixels.
@pytest.mark.parametrize(
    ("name", "input_shape", "outputs", "parameters", "multiply_adds"),
    [
        ("lenet300_100", (1, 28, 28), 10, 266_610, 266_200),
        ("lenet500_300_100", (1, 28, 28), 10, 573_910, 573_000),
        ("fcnet_nettrim", (1, 28, 28), 10, 637_610, 636_200),
        ("lenet5", (1, 32, 32), 10, 81_194, 274_656),
        ("lenet5", (3, 32, 32), 10, 81_302, 371_856),
        ("cnn5", (3, 32, 32), 10, 1_557_066, 228_267_008),
        ("cnn60k", (3, 32, 32), 10, 2_393_002, 18_991_616),
        ("deepknight", (3, 60, 240), 1, 1_740_901, 27_576_260),
        ("resnet20", (3, 32, 32), 10, 272_474, 40_813_184),
        ("resnet32", (3, 32, 32), 10, 466_906, 69_124_736),
        ("resnet44", (3, 32, 32), 10, 684_058, 100_583_936),
        ("resnet56", (3, 32, 32), 10, 869_530, 127_322_624),
        ("resnet110", (3, 32, 32), 10, 1_704_154, 247_646_720),
        ("wrn16_8", (3, 32, 32), 10, 10_961_370, 1_548_145_664),
        ("wrn28_2", (3, 32, 32), 10, 1_467_610, 214_353_152),
        ("wrn28_10", (3, 32, 32), 10, 36_479_194, 5_243_328_768),
        ("wrn40_1", (3, 32, 32), 10, 563_930, 83_280_512),
        ("wrn40_4", (3, 32, 32), 10, 8_949_210, 1_298_582_016),
        ("densenet22", (3, 32, 32), 10, 71_686, 31_238_322),
        ("densenet100", (3, 32, 32), 10, 769_162, 287_929_692),
        ("densenet190", (3, 32, 32), 10, 25_624_430, 9_301_945_740),
        ("vgg11", (3, 32, 32), 10, 9_225_610, 152_769_536),
        ("vgg13_bn", (3, 32, 32), 10, 9_416_010, 228_267_008),
        ("vgg16_bn", (3, 32, 32), 10, 14_728_266, 313_201_664),
        ("vgg19_bn", (3, 32, 32), 10, 20_040_522, 398_136_320),
        ("alexnet", (3, 32, 32), 10, 2_472_266, 14_957_056),
        ("alexnet_bn", (3, 224, 224), 1000, 61_110_184, 714_188_480),
        ("alexnet", (3, 224, 224), 1000, 61_100_840, 714_188_480),
        ("vgg16_bn", (3, 224, 224), 1000, 138_365_992, 15_470_264_320),
        ("resnet18", (3, 224, 224), 1000, 11_689_512, 1_814_073_344),
        ("resnet50", (3, 224, 224), 1000, 25_557_032, 4_089_184_256),
        ("resnet101", (3, 224, 224), 1000, 44_549_160, 7_801_405_440),
        ("wide_resnet50_2", (3, 224, 224), 1000, 68_883_240, 11_398_021_120),
        ("densenet121", (3, 224, 224), 1000, 7_978_856, 2_834_161_664),
        ("mobilenet_v2", (3, 224, 224), 1000, 3_504_872, 300_774_272),
    ],
)
def test_networks_that_bear_a_name_of_torchprune_are_its_networks(
    name, input_shape, outputs, parameters, multiply_adds
):
    assert (name, *input_shape, outputs, parameters, multiply_adds) in [row[:7] for row in SIZES]


def test_bert_has_the_sizes_of_bert_base_cased():
    pytest.importorskip("transformers")
    with torch.device("meta"):
        network = build("bert", (128,), 2, seed=0).eval()
        assert sum(parameter.numel() for parameter in network.parameters()) == 108_311_810
        tokens = {"input_ids": torch.zeros(1, 128, dtype=torch.long)}
        flops = count_flops(network, tokens)
    assert f"| 108,311,810 | {flops:,} | {len(layer_budgets(network))} |" in PAGE.read_text()


def test_the_classifiers_of_torchvision_are_those_of_the_list():
    models = pytest.importorskip("torchvision.models")
    assert set(TORCHVISION) | set(BY_SIZE) == set(models.list_models(module=models))


def test_a_compiled_network_is_used_without_its_wrapper(monkeypatch, caplog):
    inner = torch.nn.Linear(4, 2)
    built = torch.nn.Sequential(torch.compile(inner))
    monkeypatch.setattr("luigi_prune.compute.networks.resolve", lambda path: lambda *_: torch.compile(built))
    network = build("lenet5", (4,), 2, seed=0)
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    assert type(network[0]) is torch.nn.Linear
    assert torch.equal(network[0].weight, inner.weight)
    assert "lenet5: used without torch.compile" in caplog.text


@pytest.mark.parametrize("name", SMALL)
def test_every_network_of_the_catalogue_gives_the_outputs_asked_for(name):
    network = build(name, (1, 16, 16), 7, seed=0).eval()
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize("name", ["lenet300_100", "cnn5", "cnn5_plain", "resnet8", "resnet44"])
def test_digits_are_large_enough(name):
    network = build(name, (1, 8, 8), 10, seed=0).eval()
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        (name, registry.NETWORKS[name].smallest)
        for name in (*SMALL, "deepknight", "wrn16_1", "densenet10", "alexnet_cifar")
        if registry.NETWORKS[name].smallest > 1
    ],
)
def test_an_input_that_is_too_small_is_refused_with_the_smallest_size(name, smallest):
    network = build(name, (1, smallest, smallest), 10, seed=0)
    assert network(torch.zeros(1, 1, smallest, smallest)).isfinite().all()  # in training, a single sample
    with pytest.raises(InputTooSmall, match=f"at least {smallest}x{smallest}, got {smallest - 1}x20") as caught:
        build(name, (1, smallest - 1, 20), 10, seed=0)
    assert isinstance(caught.value, ConfigError)


def test_a_name_of_two_networks_is_decided_by_the_size_of_the_images_and_said(caplog):
    caplog.set_level("INFO", logger="luigi_prune")
    with torch.device("meta"):
        small, large, forced = (
            build(name, (3, pixels, pixels), 10, seed=0)
            for name, pixels in (("alexnet", 63), ("alexnet", 64), ("alexnet_cifar", 64))
        )
    assert small[0].stride == forced[0].stride == (4, 4)
    assert (len(layer_budgets(small)), len(layer_budgets(large)), len(layer_budgets(forced))) == (6, 8, 6)
    assert "alexnet is that of CIFAR papers for images of 63x63 pixels; torchvision:alexnet" in caplog.text
    assert "alexnet is torchvision's for images of 64x64 pixels; alexnet_cifar" in caplog.text


@pytest.mark.parametrize(
    ("name", "shape", "kwargs", "words"),
    [
        ("resnet18", (1, 32, 32), {}, "resnet18 needs images of 3 channels, got 1; add the transform Grayscale"),
        ("vit_b_32", (3, 32, 64), {}, "vit_b_32 needs square images, got 32x64"),
        ("vit_b_16", (3, 40, 40), {}, "vit_b_16 fails for inputs of shape (3, 40, 40)"),
        ("resnet18", (3, 32, 32), {"weights": "DEFAULT"}, "give weights as network.weights"),
        ("resnet18", (3, 32, 32), {"widht": 2}, "unexpected keyword argument 'widht'"),
        ("vgg11", (3, 32, 32), {"dropout": 0.1}, "vgg11 has no keyword 'dropout' for images of 32x32 pixels"),
        ("torchvision:resnet19", (3, 32, 32), {}, "torchvision has no classifier 'resnet19'; did you mean 'resnet1"),
        ("inception_v3", (3, 32, 32), {}, "inception_v3 needs images of at least 75x75, got 32x32"),
    ],
)
def test_networks_of_torchvision_that_cannot_be_built_are_refused_in_one_line(name, shape, kwargs, words):
    with torch.device("meta"), pytest.raises(ConfigError) as error:
        build(name, shape, 10, 0, kwargs)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_networks_for_small_images_have_the_initial_weights_of_torchprune():
    torch.manual_seed(0)
    network = build("vgg11", (3, 32, 32), 10, seed=0)
    weight = network.conv3_1.weight
    assert weight.std().item() == pytest.approx((2 / (9 * weight.shape[0])) ** 0.5, rel=0.02)
    assert network.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not network.conv3_1.bias.any()
    assert not network.fc.bias.any()
    assert not build("wrn10_1", (3, 32, 32), 10, seed=0).fc.bias.any()


def test_a_seed_means_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first, again, other = (build("resnet8", (1, 8, 8), 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_shape_of_resnet_stages():
    network = build("resnet20", (3, 32, 32), 10, seed=0)
    x, sizes = network.relu1(network.bn1(network.conv1(torch.zeros(1, 3, 32, 32)))), []
    for stage in (network.stage1, network.stage2, network.stage3):
        x = stage(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 19 + 2


def test_paths_of_the_catalogue_name_builders():
    assert all(callable(resolve(row.path)) for row in registry.NETWORKS.values())
    with pytest.raises(ConfigError, match="did you mean 'resnet"):
        build("resnet21", (3, 32, 32), 10, seed=0)
