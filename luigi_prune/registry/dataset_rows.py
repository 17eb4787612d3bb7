"""The data sets, one row each; families of them are in `registry/dataset_families.py`."""

from __future__ import annotations

from luigi_prune.registry.rows import DatasetRow, by_name
from luigi_prune.registry.vector_dataset_rows import VECTOR_DATASETS

_DATA = "luigi_prune.compute.data"
_VISION = f"{_DATA}.vision:read_vision"
_CIFAR = f"{_DATA}.cifar_variants"
_IMAGENET = (3, 224, 224)
_VOC = (3, 513, 513)
_TEXT = {"input_ids": (128,), "token_type_ids": (128,), "attention_mask": (128,), "labels": ()}

DATASETS = by_name(
    [
        DatasetRow(
            "Digits", f"{_DATA}.digits:read_digits", 10, (1, 8, 8), "Handwritten digits included in scikit-learn"
        ),
        DatasetRow("MNIST", _VISION, 10, (1, 28, 28), "Handwritten digits"),
        DatasetRow("FashionMNIST", _VISION, 10, (1, 28, 28), "Articles of clothing"),
        DatasetRow("CIFAR10", _VISION, 10, (3, 32, 32), "Small colour photographs, 10 classes"),
        DatasetRow("CIFAR100", _VISION, 100, (3, 32, 32), "Small colour photographs, 100 classes"),
        DatasetRow(
            "CIFAR10_1",
            f"{_CIFAR}:read_cifar10_1",
            10,
            (3, 32, 32),
            "2,000 new test images for CIFAR10 (CIFAR-10.1 v6); training: CIFAR10's",
        ),
        *(
            DatasetRow(
                f"CIFAR10_C_Mix{number}",
                f"{_CIFAR}:read_mix",
                10,
                (3, 32, 32),
                "CIFAR10 whose training images are corrupted anew at every access, at severities 0 to 5, by those of "
                f"mixture {number}; test: CIFAR10's",
            )
            for number in (1, 2)
        ),
        DatasetRow(
            "ImageNet", f"{_DATA}.imagenet:read_imagenet", 1000, _IMAGENET, "Photographs of 1000 classes (ILSVRC 2012)"
        ),
        DatasetRow(
            "ObjectNet",
            f"{_DATA}.objectnet:read_objectnet",
            1000,
            _IMAGENET,
            "Test images for ImageNet: the 113 classes that both have",
            test_only=True,
        ),
        DatasetRow(
            "VOCSegmentation2011",
            f"{_DATA}.voc:read_voc",
            21,
            _VOC,
            "Photographs with a class per pixel: Semantic Boundaries Dataset",
            masks=True,
        ),
        DatasetRow(
            "VOCSegmentation2012",
            f"{_DATA}.voc:read_voc",
            21,
            _VOC,
            "Photographs with a class per pixel: PASCAL VOC 2012 with the augmented training set",
            masks=True,
        ),
        *(
            DatasetRow(f"Glue{task}", f"{_DATA}.glue:read_glue", classes, _TEXT, f"GLUE: {what}")
            for task, classes, what in (
                ("CoLA", 2, "whether a sentence is grammatical"),
                ("SST2", 2, "sentiment of a sentence"),
                ("MRPC", 2, "whether two sentences mean the same"),
                ("STSB", None, "similarity of two sentences, 0 to 5 (regression: 1 output)"),
                ("QQP", 2, "whether two questions mean the same"),
                ("MNLI", 3, "entailment, neutral or contradiction; test: matched"),
                ("QNLI", 2, "whether a sentence answers a question"),
                ("RTE", 2, "entailment or not"),
                ("WNLI", 2, "entailment or not, by a pronoun"),
            )
        ),
        DatasetRow(
            "Driving",
            f"{_DATA}.driving:read_driving",
            None,
            (3, 60, 240),
            "Camera images of drives with the curvature of the road (regression: 1 output); private",
        ),
        *VECTOR_DATASETS,
    ]
)
