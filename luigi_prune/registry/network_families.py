"""The families of networks: names that follow a pattern, or that torchvision, timm and transformers have."""

from __future__ import annotations

import re
from importlib.util import find_spec

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.continuous_families import CONTINUOUS_FAMILIES
from luigi_prune.registry.rows import Family, NetworkRow

_NETWORKS = "luigi_prune.compute.networks"
_RESNET = 5  # below, the last stage's input is one pixel, and BatchNorm cannot normalise a batch of one sample
_DENSENET = 8
_BOTTLENECKS = 44  # torchprune's networks for small images have bottleneck blocks from this depth on

# The classifiers of torchvision 0.21 to 0.29; `torchvision:NAME` reaches those of later versions.
_CLASSIFIERS = """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
    efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
    efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
    mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
    regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf
    regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34
    resnet50 resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
    shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn
    vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2
    wide_resnet50_2
"""
_SMALLEST = {
    **{"alexnet": 63, "convnext": 32, "densenet": 29, "googlenet": 15},
    **{"inception_v3": 75, "squeezenet": 21, "swin": 4, "vgg": 32},
}
_VGG = tuple(f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn"))
BY_SIZE = ("alexnet", *_VGG)
"""Names of two networks: for images below `SMALL_IMAGE` pixels that of CIFAR papers, else torchvision's."""
SMALL_IMAGE = 64
TORCHVISION = tuple(name for name in _CLASSIFIERS.split() if name not in BY_SIZE)


def _needs(module: str) -> None:
    """Raise ConfigError if the module of an optional dependency, whose extra bears the same name, is not installed."""
    if find_spec(module) is None:
        raise ConfigError(f"it needs the package {module}; pip install 'luigi-prune[{module}]'")


def _torchvision(match: re.Match[str]) -> NetworkRow:
    name = match[1]
    known = name in TORCHVISION or name in BY_SIZE
    smallest = next((pixels for kind, pixels in _SMALLEST.items() if known and name.startswith(kind)), 1)
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.torchvision_networks:classifier",
        summary=f"torchvision's {name}",
        smallest=smallest,
        settings={"name": match[0], "architecture": name},
        open_ended=True,
        channels=3,
    )


def _segmentation(match: re.Match[str]) -> NetworkRow:
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.torchvision_networks:segmentation",
        summary=f"torchvision's {match[0]} with its auxiliary head",
        settings={"name": match[0], "architecture": match[0]},
        open_ended=True,
        channels=3,
    )


def _by_size(match: re.Match[str]) -> NetworkRow:
    """Return the row of a name that the size of the images decides, or of the network for small images itself."""
    name, small = match[1], match[2] is not None
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.by_image_size:{'small_network' if small else 'network_by_size'}",
        summary=f"{name} for images below {SMALL_IMAGE} pixels" + ("" if small else ", else torchvision's"),
        smallest=29 if name == "alexnet" else 32,
        settings={"name": match[0], "architecture": name},
        open_ended=not small,
    )


def _resnet(match: re.Match[str]) -> NetworkRow:
    depth, blocks = int(match[1]), (int(match[1]) - 2) // 6
    if blocks < 1 or depth != 6 * blocks + 2:
        hint = nearest(match[0], [*_RESNETS, *TORCHVISION])
        raise ConfigError(f"a residual network for small images has 6 n + 2 layers{hint}")
    kind = (match[2] or ("_bottleneck" if depth >= _BOTTLENECKS else "_basic"))[1:]
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.resnet:resnet_cifar",
        summary=f"Residual network for small images, {blocks} {kind} blocks per stage",
        smallest=_RESNET,
        settings={"name": match[0], "blocks": blocks, "kind": kind},
    )


def _wide_resnet(match: re.Match[str]) -> NetworkRow:
    depth, width = int(match[1]), int(match[2])
    blocks = (depth - 4) // 6
    if blocks < 1 or depth != 6 * blocks + 4 or width < 1:
        raise ConfigError("a wide residual network has 6 n + 4 layers and a width of at least 1, such as wrn28_10")
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.wide_resnet:wide_resnet",
        summary=f"Wide residual network, {blocks} blocks per stage, {width} times as wide (arXiv 1605.07146)",
        smallest=_RESNET,
        settings={"name": match[0], "blocks": blocks, "width": width},
    )


def _densenet(match: re.Match[str]) -> NetworkRow:
    depth, growth = int(match[1] or 22), int(match[2] or (40 if match[1] == "190" else 12))
    layers = (depth - 4) // 6
    if layers < 1 or depth != 6 * layers + 4 or growth < 1:
        hint = nearest(match[0], [*_DENSENETS, *TORCHVISION])
        raise ConfigError(f"a DenseNet-BC for small images has 6 n + 4 layers{hint}")
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.densenet:densenet_bc",
        summary=f"DenseNet-BC, {layers} bottleneck layers per block, growth {growth} (arXiv 1608.06993)",
        smallest=_DENSENET,
        settings={"name": match[0], "layers": layers, "growth": growth},
    )


def _timm(match: re.Match[str]) -> NetworkRow:
    _needs("timm")
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.timm_networks:timm_network",
        summary=f"timm's {match[1]}",
        settings={"name": match[0], "architecture": match[1]},
        open_ended=True,
    )


def _transformers(match: re.Match[str]) -> NetworkRow:
    _needs("transformers")
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.transformers_networks:transformers_network",
        summary=f"{match[1]} of transformers",
        settings={"name": match[0], "model": match[1]},
        open_ended=True,
        several_inputs=True,
    )


def _bert(match: re.Match[str]) -> NetworkRow:
    _needs("transformers")
    return NetworkRow(
        match[0],
        f"{_NETWORKS}.transformers_networks:bert",
        summary="BERT of the size of bert-base-cased, for the classification of sequences",
        settings={"name": match[0]},
        open_ended=True,
        several_inputs=True,
    )


_RESNETS = tuple(f"resnet{depth}" for depth in (8, 20, 32, 44, 56, 110))
_DENSENETS = ("densenet22", "densenet40", "densenet100", "densenet190")
_DEPTH = "([1-9][0-9]*)"

NETWORK_FAMILIES: tuple[Family[NetworkRow], ...] = (
    Family(
        "NAME of torchvision.models",
        f"({'|'.join(TORCHVISION)})",
        _torchvision,
        "torchvision's classifier, such as `resnet50`, with random weights and without auxiliary heads",
        TORCHVISION,
    ),
    Family(
        "torchvision:NAME",
        r"torchvision:(\w+)",
        _torchvision,
        "torchvision's classifier NAME, for names that another network has, too",
    ),
    Family(
        "alexnet, vgg(11|13|16|19)[_bn]",
        r"(alexnet|vgg(?:11|13|16|19)(?:_bn)?)(_cifar)?",
        _by_size,
        f"For images below {SMALL_IMAGE} pixels the network of CIFAR papers, also called NAME_cifar; for larger images "
        "torchvision's, also called torchvision:NAME",
        BY_SIZE,
    ),
    Family(
        "resnet<depth>[_basic|_bottleneck]",
        rf"resnet{_DEPTH}(_basic|_bottleneck)?",
        _resnet,
        f"Residual network for small images of 6 n + 2 layers (arXiv 1512.03385); from {_BOTTLENECKS} layers on with "
        "bottleneck blocks unless it is called `_basic`, as in torchprune",
        _RESNETS,
    ),
    Family(
        "wrn<depth>_<width>",
        rf"wrn{_DEPTH}_{_DEPTH}",
        _wide_resnet,
        "Wide residual network for small images of 6 n + 4 layers (arXiv 1605.07146)",
        ("wrn16_8", "wrn28_2", "wrn28_10", "wrn40_1", "wrn40_4"),
    ),
    Family(
        "densenet<depth>[_k<growth>]",
        rf"densenet{_DEPTH}?(?:_k{_DEPTH})?",
        _densenet,
        "DenseNet-BC for small images of 6 n + 4 layers (arXiv 1608.06993), growth 12 unless given; 190: 40",
        _DENSENETS,
    ),
    Family(
        "(fcn|deeplabv3)_resnet(50|101)",
        "(?:fcn|deeplabv3)_resnet(?:50|101)",
        _segmentation,
        "torchvision's segmentation network with its auxiliary head, with random weights",
        ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"),
    ),
    Family("bert", "bert", _bert, "bert-base-cased for the classification of sequences (transformers)", ("bert",)),
    Family("timm:NAME", r"timm:([\w.-]+)", _timm, "timm's network NAME with random weights (extra `timm`)"),
    Family(
        "hf:NAME",
        r"hf:([\w./-]+)",
        _transformers,
        "The network NAME of transformers with random weights (extra `transformers`): a kind such as `vit`, or the "
        "folder or hub name of a configuration",
    ),
    *CONTINUOUS_FAMILIES,
)
