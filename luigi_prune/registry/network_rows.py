"""The networks and data sets, one row each, and the names planned for later versions."""

from __future__ import annotations

from luigi_prune.registry.rows import NetworkRow, by_name

_NETWORKS = "luigi_prune.compute.networks"
_RESNET = 5  # below, the last stage's input is one pixel, and BatchNorm cannot normalise a batch of one sample

NETWORKS = by_name(
    [
        NetworkRow(
            "lenet300_100", f"{_NETWORKS}.lenet:lenet300_100", summary="Three linear layers (LeCun et al. 1998)"
        ),
        NetworkRow(
            "lenet500_300_100",
            f"{_NETWORKS}.lenet:lenet500_300_100",
            summary="Linear layers of 500, 300, 100 and the outputs",
        ),
        NetworkRow(
            "fcnet_nettrim",
            f"{_NETWORKS}.lenet:fcnet_nettrim",
            summary="Linear layers of 300, 1000, 100 and the outputs: Net-Trim's (arXiv 1611.05162)",
        ),
        NetworkRow(
            "lenet5",
            f"{_NETWORKS}.lenet:lenet5",
            summary="6 and 16 3x3 filters, 120 units as a convolution, 84: torchprune's LeNet-5 "
            "(after LeCun et al. 1998)",
            smallest=10,
        ),
        NetworkRow(
            "lenet5_caffe",
            f"{_NETWORKS}.lenet:lenet5_caffe",
            summary="20 and 50 5x5 filters, 500 units: Caffe's LeNet-5, that of many pruning papers",
            smallest=16,
        ),
        NetworkRow(
            "cnn5",
            f"{_NETWORKS}.cnn5:cnn5",
            summary="Four convolutions with BatchNorm, 64 to 512 filters, and a linear layer (Nakkiran et al. 2020, "
            "arXiv 1912.02292)",
            smallest=8,
        ),
        NetworkRow(
            "cnn5_plain",
            f"{_NETWORKS}.cnn5:cnn5_plain",
            summary="Five convolutions and three linear layers: Conv-6 of Frankle and Carbin (arXiv 1803.03635) "
            "without its last convolution",
            smallest=8,
        ),
        NetworkRow(
            "cnn60k",
            f"{_NETWORKS}.cnn60k:cnn60k",
            summary="Two 5x5 convolutions of 32 filters, one of 512 over the whole map, and a linear layer",
            smallest=10,
        ),
        NetworkRow(
            "deepknight",
            f"{_NETWORKS}.deepknight:deepknight",
            summary="Six convolutions and two linear layers that steer a car",
            smallest=53,
        ),
        NetworkRow(
            "alexnet_bn",
            f"{_NETWORKS}.alexnet:alexnet_bn",
            summary="AlexNet with BatchNorm, whose hidden layers are convolutions",
            smallest=63,
        ),
        *(
            NetworkRow(
                f"resnet{depth}",
                f"{_NETWORKS}.resnet:resnet{depth}",
                summary=f"Residual network for small images with {depth} layers (He et al. 2016, arXiv 1512.03385)",
                smallest=_RESNET,
            )
            for depth in (8, 20, 32)
        ),
        *(
            NetworkRow(
                f"resnet{depth}",
                f"{_NETWORKS}.resnet:resnet{depth}",
                summary=f"torchprune's resnet{depth}: {(depth - 2) // 6} bottleneck blocks per stage, "
                f"{(depth - 2) // 2 * 3 + 2} layers",
                smallest=_RESNET,
            )
            for depth in (44, 56, 110)
        ),
        *(
            NetworkRow(
                f"resnet{depth}_basic",
                f"{_NETWORKS}.resnet:resnet{depth}_basic",
                summary=f"Residual network for small images with {depth} layers (He et al. 2016, arXiv 1512.03385)",
                smallest=_RESNET,
            )
            for depth in (44, 56, 110)
        ),
    ]
)

_NO_DEPTH = (
    "is a function of torchprune whose depth no experiment file can give; choose a network with its depth, such as "
)
UNSUITABLE_NETWORKS = {
    "resnet": f"{_NO_DEPTH}resnet20",
    "wrn": f"{_NO_DEPTH}wrn28_10",
    "preresnet": f"{_NO_DEPTH}resnet20 or wrn28_2, whose blocks are pre-activated",
    "resnext": f"{_NO_DEPTH}resnext50_32x4d",
}
