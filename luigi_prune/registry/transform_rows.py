"""The image transforms of torchvision (0.21 or later) that YAML can describe, and those of images with masks."""

from __future__ import annotations

from luigi_prune.registry.rows import TransformRow, by_name

_PAIRS = "luigi_prune.compute.data.pair_transforms"
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
POLICIES = ("imagenet", "cifar10", "svhn")
PADDINGS = ("constant", "edge", "reflect", "symmetric")
_CHOICES = {"interpolation": INTERPOLATIONS, "policy": POLICIES, "padding_mode": PADDINGS}


def _transform(name: str, required: str = "", optional: str = "") -> TransformRow:
    row = TransformRow(name, f"torchvision.transforms:{name}", tuple(required.split()), tuple(optional.split()))
    choices = {keyword: _CHOICES[keyword] for keyword in row.keywords if keyword in _CHOICES}
    return TransformRow(name, row.path, row.required, row.optional, choices)


TRANSFORMS = by_name(
    [
        _transform("AugMix", "", "severity mixture_width chain_depth alpha all_ops interpolation fill"),
        _transform("AutoAugment", "", "policy interpolation fill"),
        _transform("CenterCrop", "size"),
        _transform("ColorJitter", "", "brightness contrast saturation hue"),
        _transform("ElasticTransform", "", "alpha sigma interpolation fill"),
        _transform("GaussianBlur", "kernel_size", "sigma"),
        _transform("Grayscale", "", "num_output_channels"),
        _transform("Normalize", "mean std", "inplace"),
        _transform("PILToTensor"),
        _transform("Pad", "padding", "fill padding_mode"),
        _transform("RandAugment", "", "num_ops magnitude num_magnitude_bins interpolation fill"),
        _transform("RandomAdjustSharpness", "sharpness_factor", "p"),
        _transform("RandomAffine", "degrees", "translate scale shear interpolation fill center"),
        _transform("RandomAutocontrast", "", "p"),
        _transform("RandomCrop", "size", "padding pad_if_needed fill padding_mode"),
        _transform("RandomEqualize", "", "p"),
        _transform("RandomErasing", "", "p scale ratio value inplace"),
        _transform("RandomGrayscale", "", "p"),
        _transform("RandomHorizontalFlip", "", "p"),
        _transform("RandomInvert", "", "p"),
        TransformRow("RandomNoise", "luigi_prune.compute.data.dequantisation:RandomNoise", (), ("normalization",)),
        _transform("RandomPerspective", "", "distortion_scale p interpolation fill"),
        _transform("RandomPosterize", "bits", "p"),
        _transform("RandomResizedCrop", "size", "scale ratio interpolation antialias"),
        _transform("RandomRotation", "degrees", "interpolation expand center fill"),
        _transform("RandomSolarize", "threshold", "p"),
        _transform("RandomVerticalFlip", "", "p"),
        _transform("Resize", "size", "interpolation max_size antialias"),
        _transform("ToPILImage", "", "mode"),
        _transform("ToTensor"),
        *(
            TransformRow(name, f"{_PAIRS}:{name}", tuple(required.split()), tuple(optional.split()), masks=True)
            for name, required, optional in (
                ("SegCenterCrop", "size", ""),
                ("SegNormalize", "mean std", ""),
                ("SegRandomCrop", "size", ""),
                ("SegRandomHorizontalFlip", "", "flip_prob"),
                ("SegRandomResize", "min_size max_size", ""),
                ("SegToTensor", "", ""),
            )
        ),
        _transform("TrivialAugmentWide", "", "num_magnitude_bins interpolation fill"),
    ]
)

UNSUITABLE_TRANSFORMS = {
    "Compose": "is not needed: the transforms of the list are composed",
    **dict.fromkeys(("RandomApply", "RandomChoice", "RandomOrder"), "takes transforms as arguments"),
    **dict.fromkeys(("FiveCrop", "TenCrop"), "returns several images per image"),
    "ConvertImageDtype": "takes a dtype, which YAML cannot express",
    "Lambda": "takes a function, which YAML cannot express",
    "LinearTransformation": "takes tensors, which YAML cannot express",
}
