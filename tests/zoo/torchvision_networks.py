"""Torchvision's networks, one per family, from small configurations."""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.maxvit import MaxVit
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation import DeepLabV3, deeplabv3
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer

from tests.zoo.networks import CLASSES, Specimen, noise

SMALL, LARGER = noise(3, 32, 32), noise(3, 64, 64)


def alexnet() -> nn.Module:
    """Return AlexNet with linear layers of 64 instead of 4096 outputs."""
    network = models.AlexNet(num_classes=CLASSES)
    for place, (inputs, outputs) in {1: (9216, 64), 4: (64, 64), 6: (64, CLASSES)}.items():
        network.classifier[place] = nn.Linear(inputs, outputs)
    return network


def vgg() -> nn.Module:
    """Return a VGG of five convolutions with BatchNorm, and linear layers of 64 outputs."""
    network = VGG(make_layers([8, "M", 16, "M", 16, "M", 32, "M", 32, "M"], batch_norm=True), init_weights=False)
    network.classifier = nn.Sequential(
        *(nn.Linear(32 * 49, 64), nn.ReLU(True), nn.Dropout()),
        *(nn.Linear(64, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, CLASSES)),
    )
    return network


def mobilenet_v3() -> nn.Module:
    """Return a MobileNetV3 of three blocks."""
    block = partial(InvertedResidualConfig, dilation=1, width_mult=1.0)
    settings = [
        block(16, 3, 16, 16, True, "RE", stride=2),
        block(16, 3, 32, 24, False, "RE", stride=2),
        block(24, 5, 48, 24, True, "HS", stride=1),
    ]
    return MobileNetV3(settings, last_channel=64, num_classes=CLASSES)


def efficientnet() -> nn.Module:
    """Return an EfficientNet of three stages."""
    block = partial(MBConvConfig, width_mult=1.0, depth_mult=1.0)
    settings = [block(1, 3, 1, 16, 8, 1), block(4, 3, 2, 8, 16, 2), block(4, 5, 2, 16, 24, 1)]
    return EfficientNet(settings, dropout=0.1, num_classes=CLASSES)


def regnet() -> nn.Module:
    """Return a RegNetY of widths 16 to 48, with groups and squeeze-and-excitation."""
    widths = BlockParams(
        depths=[1, 1, 1, 1], widths=[16, 16, 32, 48], group_widths=[8] * 4, bottleneck_multipliers=[1.0] * 4,
        strides=[2] * 4, se_ratio=0.25,
    )  # fmt: skip
    return RegNet(widths, num_classes=CLASSES)


def convnext() -> nn.Module:
    """Return a ConvNeXt of two stages."""
    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 2)], num_classes=CLASSES)


def vit() -> nn.Module:
    """Return a vision transformer of two layers, with its head of zeros."""
    return VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=CLASSES)


def swin() -> nn.Module:
    """Return a Swin transformer of two stages."""
    return SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4], num_classes=CLASSES)


def maxvit() -> nn.Module:
    """Return a MaxViT of two stages."""
    return MaxVit((32, 32), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=CLASSES)


def deeplab() -> nn.Module:
    """Return DeepLab over a ResNet of one block per stage, without its auxiliary head."""
    backbone = ResNet(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True])
    layers = {name: module for name, module in backbone.named_children() if name not in ("avgpool", "fc")}
    body = models._utils.IntermediateLayerGetter(nn.ModuleDict(layers), return_layers={"layer4": "out"})
    return DeepLabV3(body, deeplabv3.DeepLabHead(2048, CLASSES))


TORCHVISION: dict[str, Specimen] = {
    "alexnet": Specimen(alexnet, LARGER, large=True, note="linear layers of 64"),
    "vgg": Specimen(vgg, SMALL, note="widths 8 to 32"),
    "resnet of basic blocks": Specimen(
        lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES), SMALL, large=True, note="one block per stage"
    ),
    "resnet of bottlenecks": Specimen(
        lambda: ResNet(Bottleneck, [1, 1, 1, 1], num_classes=CLASSES), SMALL, large=True, note="one block per stage"
    ),
    "densenet": Specimen(
        lambda: DenseNet(4, (2, 2), 8, num_classes=CLASSES), SMALL, note="growth 4, two blocks of two layers"
    ),
    "googlenet": Specimen(
        lambda: models.GoogLeNet(CLASSES, aux_logits=False, init_weights=False), SMALL, large=True,
        note="without auxiliary heads",
    ),
    "inception_v3": Specimen(
        lambda: models.Inception3(CLASSES, aux_logits=False, init_weights=False), noise(3, 75, 75), large=True,
        note="without auxiliary head",
    ),
    "squeezenet": Specimen(lambda: models.SqueezeNet("1_1", CLASSES), SMALL),
    "shufflenet_v2": Specimen(
        lambda: ShuffleNetV2([1, 1, 1], [8, 16, 32, 32, 64], num_classes=CLASSES), SMALL, note="three blocks"
    ),
    "mobilenet_v2": Specimen(lambda: models.MobileNetV2(CLASSES, width_mult=0.1), SMALL, note="a tenth of the width"),
    "mobilenet_v3": Specimen(mobilenet_v3, SMALL, note="three blocks"),
    "mnasnet": Specimen(lambda: models.MNASNet(0.1, CLASSES), SMALL, note="a tenth of the width"),
    "efficientnet": Specimen(efficientnet, SMALL, note="three stages"),
    "regnet_y": Specimen(regnet, SMALL, note="widths 16 to 48"),
    "convnext": Specimen(convnext, SMALL, note="two stages"),
    "vit": Specimen(vit, SMALL, note="two layers of width 32"),
    "swin": Specimen(swin, SMALL, note="two stages"),
    "maxvit": Specimen(maxvit, SMALL, note="two stages"),
    "deeplabv3": Specimen(deeplab, SMALL, large=True, note="one block per stage"),
}  # fmt: skip
