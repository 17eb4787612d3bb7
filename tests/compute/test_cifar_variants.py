"""Variants of CIFAR10 and computed corruptions, read from small files in the published formats."""

import tarfile

import numpy as np
import pytest
import torch

from luigi_prune import registry
from luigi_prune.compute.data import RawData, Samples, load_raw
from luigi_prune.compute.data import cifar_variants as variants
from luigi_prune.compute.data.corrupted_images import corrupted
from luigi_prune.compute.data.corruptions import corrupt
from luigi_prune.compute.data.loading import load_batches
from luigi_prune.config.schema import Component
from luigi_prune.errors import ConfigError
from luigi_prune.registry.dataset_families import COMPUTED, CORRUPTIONS

TRAIN, BLOCK = 20, 4  # images of the training set; test images of one severity


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """CIFAR10 of a few images, by split."""
    load_raw.cache_clear()
    sets = {"train": RawData(pictures(TRAIN), np.arange(TRAIN) % 10), "test": RawData(pictures(3, 1), np.arange(3))}
    monkeypatch.setattr(variants, "read_vision", lambda name, split, *_: sets[split])
    yield sets
    load_raw.cache_clear()


def cifar10_c(folder, name="fog"):
    images, labels = pictures(5 * BLOCK, 2), np.tile(np.arange(BLOCK), 5)
    folder.mkdir(parents=True)
    np.save(folder / f"{name}.npy", images)
    np.save(folder / "labels.npy", labels)
    return images, labels


def read(name, split, folder, local=""):
    load_raw.cache_clear()
    return load_raw(name, split, str(folder), str(local))


def test_cifar10_1_is_a_test_set_for_cifar10(tmp_path, clean):
    np.save(tmp_path / "cifar10.1_v6_data.npy", pictures(6, 3))
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.arange(6, dtype=np.uint8))
    test = read("CIFAR10_1", "test", tmp_path, tmp_path / "local")
    assert np.array_equal(test.images, pictures(6, 3))
    assert test.targets.tolist() == list(range(6))
    assert test.targets.dtype == np.int64
    assert read("CIFAR10_1", "train", tmp_path).images is clean["train"].images


def test_a_severity_is_one_of_five_blocks_and_none_all(tmp_path):
    images, labels = cifar10_c(tmp_path / "CIFAR-10-C")
    third = read("CIFAR10_C_Fog_3", "test", tmp_path)
    assert np.array_equal(third.images, images[2 * BLOCK : 3 * BLOCK])
    assert third.targets.tolist() == labels[:BLOCK].tolist()
    assert np.array_equal(read("CIFAR10_C_Fog", "test", tmp_path).images, images)


def test_only_what_is_needed_leaves_the_archive_for_the_local_folder(tmp_path):
    images, _ = cifar10_c(tmp_path / "source" / "CIFAR-10-C")
    np.save(tmp_path / "source" / "CIFAR-10-C" / "frost.npy", images)
    (tmp_path / "shared").mkdir()
    with tarfile.open(tmp_path / "shared" / "CIFAR-10-C.tar", "w") as archive:
        archive.add(tmp_path / "source" / "CIFAR-10-C", arcname="CIFAR-10-C")
    assert np.array_equal(read("CIFAR10_C_Fog", "test", tmp_path / "shared", tmp_path / "local").images, images)
    assert sorted(path.name for path in (tmp_path / "local" / "CIFAR-10-C").iterdir()) == ["fog.npy", "labels.npy"]


@pytest.mark.parametrize("name", ["CIFAR10_C_Fog_3", "CIFAR10_1", "CIFAR10_C_Frost"])
def test_missing_files_say_what_is_put_where_and_from_where(tmp_path, name):
    with pytest.raises(ConfigError) as error:
        read(name, "test", tmp_path)
    assert name in str(error.value)
    assert f"is not in {tmp_path}" in str(error.value)
    assert "there, from https://" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"damaged", "damaged or of another format"),
        (np.zeros((10, 32, 32), np.uint8), "expected images of 32x32x3 bytes, got uint8 numbers of shape (10, 32, 32)"),
        (np.zeros((4, 32, 32, 3), np.uint8), "expected 4 class numbers"),
    ],
)
def test_malformed_files_are_one_line_that_names_the_file(tmp_path, content, words):
    cifar10_c(tmp_path / "CIFAR-10-C")
    path = tmp_path / "CIFAR-10-C" / "fog.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ConfigError) as error:
        read("CIFAR10_C_Fog_1", "test", tmp_path)
    assert words in str(error.value)
    assert str(tmp_path / "CIFAR-10-C") in str(error.value)
    assert "\n" not in str(error.value)


def test_training_images_come_from_their_archive_or_are_computed_with_a_warning(tmp_path, clean, caplog):
    computed = read("CIFAR10_C_Gauss_2", "train", tmp_path)
    assert "its training images are computed" in caplog.text
    assert np.array_equal(computed.images[7], corrupt(clean["train"].images[7], "Gauss", 2, 7))
    (tmp_path / "CIFAR-10-C-train").mkdir()
    np.save(tmp_path / "CIFAR-10-C-train" / "gaussian_noise_2.npy", pictures(TRAIN, 5))
    assert np.array_equal(read("CIFAR10_C_Gauss_2", "train", tmp_path).images, pictures(TRAIN, 5))
    with pytest.raises(ConfigError, match=r"Fog cannot be computed; put CIFAR-10-C-train.tar.gz, with"):
        read("CIFAR10_C_Fog", "train", tmp_path)


def test_a_mixture_is_drawn_anew_in_every_epoch_and_again_by_workers(tmp_path, clean, monkeypatch):
    monkeypatch.setitem(variants.MIXTURES, "1", ("Gauss", "Snow"))
    folder = tmp_path / "CIFAR-10-C-train"
    folder.mkdir()
    for severity in range(1, 6):
        np.save(folder / f"snow_{severity}.npy", np.full((TRAIN, 32, 32, 3), severity, np.uint8))
    mixed = read("CIFAR10_C_Mix1", "train", tmp_path)
    samples = Samples(mixed, [Component(type="ToTensor")])
    assert not samples.in_memory
    everything = np.arange(TRAIN)
    first, again, other = (samples.get(everything, epoch, 0)[0] for epoch in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    batches = list(load_batches(samples, [everything], epoch=1, seed=0, device=torch.device("cpu"), workers=1))
    assert torch.equal(batches[0][0], first)
    pixels = torch.cat([first, other]).mul(255).round()
    snowed = [int(image[0, 0, 0]) for image in pixels if image.unique().numel() == 1]
    assert set(snowed) <= {1, 2, 3, 4, 5}
    assert 5 < len(snowed) < 30  # 5 of 12 are expected, of 40
    originals = torch.from_numpy(np.tile(clean["train"].images, (2, 1, 1, 1))).permute(0, 3, 1, 2)
    unchanged = (pixels == originals).flatten(1).all(1).sum()
    assert 0 < unchanged < 20  # severity 0
    assert read("CIFAR10_C_Mix1", "test", tmp_path) is clean["test"]


def test_random_labels_are_those_of_the_file_or_drawn_by_the_reference_s_rule(tmp_path, clean):
    labels = np.tile(np.arange(10), 1000)
    drawn = variants.random_labels(labels, 20)
    changed = drawn != labels
    assert changed.sum() == 2000
    assert set((drawn - labels)[changed] % 10) == set(range(1, 9))
    assert np.array_equal(drawn, variants.random_labels(labels, 20))
    assert np.array_equal(read("CIFAR10Rand0", "train", tmp_path).targets, clean["train"].targets)
    (tmp_path / "CIFAR10_Rand_20").mkdir()
    np.save(tmp_path / "CIFAR10_Rand_20" / "CIFAR10_Rand_20_labels.npy", np.full(TRAIN, 9))
    assert set(read("CIFAR10Rand20", "train", tmp_path).targets) == {9}
    assert read("CIFAR10Rand20", "test", tmp_path) is clean["test"]


# ----------------------------------------------------------------------------------------------- computed corruptions


def photograph(edge):
    """A smooth picture with an edge, so that blurs and contrasts have something to change."""
    rows, columns = np.mgrid[0:edge, 0:edge] / edge
    picture = np.stack([rows, columns, (rows + columns) / 2], axis=2) * 200
    picture[:, : edge // 3] += 55
    return picture.astype(np.uint8)


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("edge", [32, 96])
def test_corruptions_grow_with_severity_and_are_the_same_for_the_same_image(name, edge):
    image = photograph(edge)
    distances = []
    for severity in (1, 3, 5):
        changed = corrupt(image, name, severity, 4)
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
        assert np.array_equal(changed, corrupt(image, name, severity, 4))
        distances.append(np.abs(changed.astype(int) - image).mean())
    assert distances[0] > 0
    assert distances[-1] > distances[0] or name == "Sat"  # which first bleaches, then intensifies
    drawn = name in ("Gauss", "Shot", "Impulse", "Speckle")
    assert np.array_equal(corrupt(image, name, 3, 4), corrupt(image, name, 3, 5)) != drawn


def test_noise_has_the_published_strength():
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert corrupt(grey, "Gauss", 5, 0).std() / 255 == pytest.approx(0.10, rel=0.05)
    assert corrupt(grey, "Speckle", 5, 0).std() / 128 == pytest.approx(0.2, rel=0.05)
    assert corrupt(grey, "Shot", 5, 0).std() / 255 == pytest.approx((128 / 255 / 50) ** 0.5, rel=0.05)
    impulses = corrupt(grey, "Impulse", 5, 0)
    assert (impulses == 0).mean() == pytest.approx((impulses == 255).mean(), rel=0.3)
    assert (impulses != 128).mean() == pytest.approx(0.07, rel=0.15)
    assert corrupt(grey, "Brightness", 3, 0).mean() == pytest.approx(128 + 0.15 * 255, abs=1)


def test_any_image_set_has_corrupted_versions():
    clean = load_raw("Digits", "test", "", "")
    blurred = load_raw("Digits_C_Blur_2", "test", "", "")
    assert blurred.images.shape == clean.images.shape
    assert blurred.targets.tolist() == clean.targets.tolist()
    assert np.array_equal(blurred.images[9], corrupt(clean.images[9], "Blur", 2, 9))
    assert corrupted(clean, "Gauss", 1).validation is None
    assert registry.find("dataset", "Digits_C_Blur_2").num_classes == 10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Digits_C_Frost_3", "Frost needs files that this data set does not have"),
        ("Digits_C_Sat_1", "Sat changes colours, and the images of Digits are grey"),
        ("CIFAR10_C_Fogg_3", "Fogg is not a corruption; did you mean 'Fog'?"),
        ("Digits_C_Gauss_6", "is not a data set"),
        ("CIFAR10Rand101", "is a percentage, at most 100"),
    ],
)
def test_names_that_no_corruption_has_are_refused_with_the_nearest(name, words):
    with pytest.raises(ConfigError) as error:
        registry.find("dataset", name)
    assert words in str(error.value)


def test_the_names_of_both_kinds_of_corruptions_are_the_same():
    assert set(COMPUTED) < set(CORRUPTIONS)
    assert set(variants.MIXTURES["1"]) | set(variants.MIXTURES["2"]) == set(CORRUPTIONS)
