"""Experiments on samples that are more than images in memory: corrupted test sets, images with masks, texts."""

import csv
import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from luigi_prune.compute.data import load_raw
from luigi_prune.results.hdf5_file import read_result
from tests.experiments import run_to_tables, write_experiment

pytestmark = pytest.mark.long

SPACING = [{"type": "manual", "values": [0.5]}]
FLAT_NET = """
from torch import nn

def flat(input_shape, output_size):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, output_size, 1),
    )
"""


@pytest.fixture(autouse=True)
def _no_memory():
    load_raw.cache_clear()
    yield
    load_raw.cache_clear()


def evaluations(folder):
    """Return the loss, the metrics and the sizes of every evaluation, by file name without its key."""
    found = {path.name.rpartition("-")[0]: read_result(path) for path in (folder / "results").rglob("*-evaluate-*.h5")}
    return {name: {key: float(value) for key, value in result.arrays.items() if value.ndim == 0}
            for name, result in found.items()}  # fmt: skip


def test_a_corrupted_test_set_is_evaluated_beside_the_clean_one(tmp_path):
    tests = ["Digits", "Digits_C_Gauss_3", "Digits_C_Contrast_5"]
    run_to_tables(write_experiment(tmp_path, experiments__datasetTest=tests, experiments__spacing=SPACING))
    found = evaluations(tmp_path)
    assert len(found) == 6
    for which in ("net0-evaluate-", "keep0.5-evaluate-"):
        clean, noisy, pale = (found[which + name] for name in tests)
        assert clean["metrics/TopK1"] > 0.4
        assert noisy["metrics/TopK1"] != clean["metrics/TopK1"] or noisy["loss"] != clean["loss"]
        assert pale["metrics/TopK1"] < clean["metrics/TopK1"] - 0.1


def voc(root):
    """Write photographs of dark and bright halves whose classes are 1 and 2."""
    devkit = root / "VOCdevkit" / "VOC2012"
    folders = [devkit / "JPEGImages", root / "SegmentationClassAug", devkit / "SegmentationClass"]
    for folder in (*folders, devkit / "ImageSets" / "Segmentation"):
        folder.mkdir(parents=True)
    for number in range(24):
        classes = np.ones((20, 24), np.uint8)
        classes[:, 6 + number % 9 :] = 2
        classes[0] = 255
        mask = Image.fromarray(classes)
        mask.putpalette([value for value in range(256) for _ in range(3)])
        for folder in folders[1:]:
            mask.save(folder / f"{number}.png")
        Image.fromarray(np.stack([classes * 90] * 3, 2)).save(folders[0] / f"{number}.jpg")
    (devkit / "ImageSets" / "Segmentation" / "val.txt").write_text("20\n21\n22\n23\n")


def test_images_with_masks_are_trained_pruned_and_evaluated(tmp_path):
    voc(tmp_path / "data")
    (tmp_path / "parts.py").write_text(FLAT_NET)
    final = [{"type": "SegToTensor"}, {"type": "SegNormalize", "kwargs": {"mean": [0.5] * 3, "std": [0.25] * 3}}]
    file = write_experiment(
        tmp_path,
        network={"name": "parts:flat", "dataset": "VOCSegmentation2012"},
        directories={"results": str(tmp_path / "results"), "trainingData": str(tmp_path / "data"), "localData": ""},
        training__batchSize=4,
        training__numEpochs=8,
        training__transformsTrain=[
            {"type": "SegRandomResize", "kwargs": {"min_size": 16, "max_size": 24}},
            {"type": "SegRandomHorizontalFlip", "kwargs": {"flip_prob": 0.5}},
            {"type": "SegRandomCrop", "kwargs": {"size": 20}},
        ],
        training__transformsTest=[{"type": "SegCenterCrop", "kwargs": {"size": 20}}],
        training__transformsFinal=final,
        training__loss="CrossEntropyLossWithAuxiliary",
        training__lossKwargs={"ignore_index": 255},
        training__metricsTest=[{"type": "IoU"}, {"type": "TopK", "kwargs": {"topk": 1}}],
        training__lrSchedulers=[],
        retraining={},
        experiments__methods=["FT"],
        experiments__spacing=SPACING,
    )
    run_to_tables(file)
    found = evaluations(tmp_path)
    assert found["net0-evaluate-VOCSegmentation2012"]["metrics/TopK1"] > 0.9
    assert found["keep0.5-evaluate-VOCSegmentation2012"]["metrics/TopK1"] > 0.9


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
def test_texts_are_trained_pruned_and_evaluated(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "the"]
    tokenizer = tmp_path / "data" / "glue" / "bert-base-cased"
    tokenizer.mkdir(parents=True)
    (tokenizer / "vocab.txt").write_text("\n".join(words))
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    )
    (tmp_path / "data" / "glue" / "SST-2").mkdir()
    rows = [(f"{article} {kind} film", label) for kind, label in (("good", 1), ("bad", 0)) for article in ("a", "the")]
    for name, times in (("train", 20), ("dev", 3)):
        with open(tmp_path / "data" / "glue" / "SST-2" / f"{name}.tsv", "w", newline="") as out:
            csv.writer(out, delimiter="\t").writerows([("sentence", "label"), *(rows * times)])
    small = {"vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 128}  # fmt: skip
    file = write_experiment(
        tmp_path,
        network={"name": "bert", "dataset": "GlueSST2", "kwargs": small},
        directories={"results": str(tmp_path / "results"), "trainingData": str(tmp_path / "data"), "localData": ""},
        training__batchSize=8,
        training__numEpochs=4,
        training__optimizer="AdamW",
        training__optimizerKwargs={"lr": 0.01},
        training__loss="LossFromInput",
        training__lrSchedulers=[],
        retraining={},
        experiments__methods=["WT"],
        experiments__spacing=[{"type": "manual", "values": [0.8]}],
    )
    run_to_tables(file)
    found = evaluations(tmp_path)
    assert found["net0-evaluate-GlueSST2"]["metrics/TopK1"] > 0.9
    assert found["keep0.8-evaluate-GlueSST2"]["metrics/TopK1"] > 0.7
