"""Image folders, images with masks and drives, written small in the published formats."""

import csv
import json
import logging
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from luigi_prune import registry
from luigi_prune.compute.data import Samples, load_raw, load_splits
from luigi_prune.compute.data.loading import load_batches
from luigi_prune.config.schema import Component, NetworkConfig, TrainingConfig
from luigi_prune.errors import ConfigError

WNIDS = ("n01440764", "n01443537", "n02000000")
CLS_LOC = Path("ILSVRC/Data/CLS-LOC")
SIZED = [
    Component(type="Resize", kwargs={"size": 10}),
    Component(type="CenterCrop", kwargs={"size": 8}),
    Component(type="ToTensor"),
]


@pytest.fixture(autouse=True)
def _no_memory():
    load_raw.cache_clear()
    yield
    load_raw.cache_clear()


def picture(path, value=0, size=(14, 11)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), value, np.uint8)
    pixels[: size[1] // 2] //= 2
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}))


def imagenet(root, flat=True, train=(0, 1, 2)):
    for number in train:
        for image in range(4):
            picture(root / CLS_LOC / "train" / WNIDS[number] / f"{WNIDS[number]}_{image}.JPEG", 60 * number + image)
    rows = [(f"ILSVRC2012_val_{number}", WNIDS[2 - number]) for number in range(3)]
    for name, wnid in rows:
        picture(root / CLS_LOC / "val" / ("" if flat else wnid) / f"{name}.JPEG")
    with open(root / "LOC_val_solution.csv", "w", newline="") as file:
        csv.writer(file).writerows([("ImageId", "PredictionString"), *((n, f"{w} 1 2 3 4 ") for n, w in rows)])


def read(name, split, folder, local=""):
    load_raw.cache_clear()
    return load_raw(name, split, str(folder), str(local))


def one_line(name, split, folder, *words):
    with pytest.raises(ConfigError) as error:
        read(name, split, folder)[0]
    for word in words:
        assert str(word) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flat", [True, False])
def test_imagenet_s_classes_are_the_ranks_of_their_names(tmp_path, flat):
    imagenet(tmp_path, flat)
    train, test = read("ImageNet", "train", tmp_path), read("ImageNet", "test", tmp_path)
    assert train.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    image, target = train[9]
    assert image.size == (14, 11)
    assert abs(np.array(image)[-1, -1, 0] - 121) < 4
    assert target == 2
    assert sorted(test.targets) == [0, 1, 2]
    assert not flat or test.targets.tolist() == [2, 1, 0]  # of the list, in the order of file names


def test_imagenet_is_unpacked_once_into_the_local_folder(tmp_path, caplog):
    imagenet(tmp_path / "source")
    (tmp_path / "shared").mkdir()
    with tarfile.open(tmp_path / "shared" / "imagenet_object_localization.tar.gz", "w:gz") as archive:
        for entry in (tmp_path / "source").iterdir():
            archive.add(entry, arcname=entry.name)
    local = tmp_path / "local"
    with caplog.at_level(logging.INFO):
        assert len(read("ImageNet", "test", tmp_path / "shared", local)) == 3
    assert "unpacking" in caplog.text
    (tmp_path / "shared" / "imagenet_object_localization.tar.gz").write_bytes(b"")
    assert len(read("ImageNet", "train", tmp_path / "shared", local)) == 12
    assert not [path.name for path in local.iterdir() if path.is_dir() and path.name.startswith(".")]
    other = tmp_path / "other"
    with pytest.raises(ConfigError, match=r"imagenet_object_localization.tar.gz: cannot be unpacked"):
        read("ImageNet", "train", tmp_path / "shared", other)


def test_imagenet_says_what_is_wrong(tmp_path):
    one_line(
        "ImageNet", "train", tmp_path, "ImageNet is not in", tmp_path, CLS_LOC, "get it from https://www.kaggle.com"
    )
    imagenet(tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_0,n9 1 2\n")
    one_line("ImageNet", "test", tmp_path, tmp_path / "LOC_val_solution.csv", "damaged")
    (tmp_path / "LOC_val_solution.csv").unlink()
    one_line("ImageNet", "test", tmp_path, "there is no such file", "get it from https://")
    path = tmp_path / CLS_LOC / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    path.write_bytes(path.read_bytes()[:50])
    one_line("ImageNet", "train", tmp_path, path, "damaged or of another format")


def test_imagenet_c_has_the_numbers_of_all_classes_though_it_may_have_a_few(tmp_path):
    for number in (0, 2):
        picture(tmp_path / "fog" / "3" / WNIDS[number] / "a.JPEG")
    one_line("ImageNet_C_Fog_3", "test", tmp_path, "put LOC_synset_mapping.txt, from")
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} a fish, a bird\n" for wnid in WNIDS))
    assert read("ImageNet_C_Fog_3", "test", tmp_path).targets.tolist() == [0, 2]
    one_line("ImageNet_C_Frost_2", "test", tmp_path, "frost/2", "weather.tar", "https://zenodo.org")
    one_line("ImageNet_C_Fog_3", "train", tmp_path, "is a test set")
    picture(tmp_path / "fog" / "3" / "n09" / "a.JPEG")
    one_line("ImageNet_C_Fog_3", "test", tmp_path, "is the folder of no class")


def objectnet(root):
    mappings = root / "objectnet-1.0" / "mappings"
    mappings.mkdir(parents=True)
    folders = {"alarm_clock": "Alarm clock", "bag": "Bag", "chair": "Chair"}
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(folders))
    labels = {"Alarm clock": "analog clock; digital clock", "Chair": "folding chair"}
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(labels))
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps({"409": 1, "559": 2, "530": 0}))
    (mappings / "imagenet_to_label_2012_v2").write_text("digital clock\nanalog clock\nfolding chair\n")
    for folder in folders:
        path = root / "objectnet-1.0" / "images" / folder / "x.png"
        picture(path, 100)
        framed = np.array(Image.open(path))
        framed[:3] = framed[-3:] = (255, 0, 0)
        Image.fromarray(framed).save(path)
    return mappings


def test_objectnet_s_classes_that_imagenet_has_are_read_without_their_border(tmp_path):
    mappings = objectnet(tmp_path)
    test = read("ObjectNet", "test", tmp_path)
    assert test.targets.tolist() == [409, 559]  # the first of two labels; bags are none of ImageNet's classes
    assert test[0][0].size == (14 - 6, 11 - 6)
    assert np.array(test[0][0]).max() == 100
    noisy = read("ObjectNet_C_Gauss_5", "test", tmp_path)
    assert np.array(noisy[0][0]).max() > 100
    one_line("ObjectNet", "train", tmp_path, "is a test set")
    (mappings / "imagenet_to_label_2012_v2").write_text("digital clock\n")
    one_line("ObjectNet", "test", tmp_path, mappings / "imagenet_to_label_2012_v2", "no 'analog clock'")
    one_line("ObjectNet", "test", tmp_path / "empty", "objectnet-1.0/images", "https://objectnet.dev")


@pytest.mark.parametrize("workers", [0, 2])
def test_any_folder_of_images_is_a_data_set_decoded_by_workers(tmp_path, workers):
    for split, count in (("train", 10), ("val", 2)):
        for kind, name in enumerate(("cats", "dogs")):
            for image in range(count):
                picture(tmp_path / "pets" / split / name / f"{image}.png", 100 * kind + image, (14 + image, 12))
    row = registry.find("dataset", "ImageFolder:pets")
    assert (row.num_classes, row.input_shape) == (None, None)
    network = NetworkConfig(name="lenet5", dataset="ImageFolder:pets", output_size=2)
    jitter = Component(type="ColorJitter", kwargs={"brightness": 0.4})
    training = TrainingConfig(transforms_train=(jitter,), transforms_final=tuple(SIZED))
    splits = load_splits(network, training, seed=1, training_data=str(tmp_path), local_data="")
    assert (len(splits.train), splits.input_shape) == (18, (3, 8, 8))
    assert not splits.train.in_memory
    assert splits.validation.in_memory
    batches = [np.arange(5), np.array([17, 2])]
    loaded = load_batches(splits.train, batches, epoch=1, seed=2, device=torch.device("cpu"), workers=workers)
    for batch, (x, y) in zip(batches, loaded, strict=True):
        wanted = splits.train.get(batch, 1, 2)
        assert torch.equal(x, wanted[0])
        assert torch.equal(y, wanted[1])
    with pytest.raises(ConfigError, match=r"network.outputSize: 1 outputs do not fit ImageFolder:pets"):
        load_splits(network.model_copy(update={"output_size": 1}), training, seed=1, training_data=str(tmp_path),
                    local_data="")  # fmt: skip


def test_images_of_different_sizes_are_refused_before_they_are_stacked(tmp_path):
    for image in range(3):
        picture(tmp_path / "pets" / "train" / "cats" / f"{image}.png", 0, (14 + image, 12))
    samples = Samples(read("ImageFolder:pets", "train", tmp_path), [Component(type="ToTensor")])
    with pytest.raises(ConfigError, match=r"\(3, 12, 14\) and \(3, 12, 15\) are no batch; bring them to one size"):
        samples.get([0, 1])


# -------------------------------------------------------------------------------------------------- images with masks


def mask(path, classes):
    path.parent.mkdir(parents=True, exist_ok=True)
    indexed = Image.fromarray(classes.astype(np.uint8))
    indexed.putpalette([value for value in range(256) for _ in range(3)])
    indexed.save(path)


def classes_of(size, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 21, (size[1], size[0]))
    drawn[0, 0] = 255
    return drawn


def voc2012(root, sizes=((20, 14), (16, 30), (24, 24), (18, 12))):
    devkit = root / "VOCdevkit" / "VOC2012"
    for number, size in enumerate(sizes):
        picture(devkit / "JPEGImages" / f"2007_{number}.jpg", 50 * number, size)
        mask(root / "SegmentationClassAug" / f"2007_{number}.png", classes_of(size, number))
    mask(devkit / "SegmentationClass" / "2007_1.png", classes_of(sizes[1], 1))
    lists = devkit / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_1\n")
    return devkit


def test_voc2012_trains_on_the_augmented_masks_that_are_not_for_validation(tmp_path):
    devkit = voc2012(tmp_path)
    train, test = read("VOCSegmentation2012", "train", tmp_path), read("VOCSegmentation2012", "test", tmp_path)
    assert (len(train), len(test)) == (3, 1)
    image, classes = test[0]
    assert image.size == (16, 30)
    assert np.array_equal(classes, classes_of((16, 30), 1))
    (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2007_3\n2007_0\n")
    assert [each[0].size for each in read("VOCSegmentation2012", "train", tmp_path)] == [(18, 12), (20, 14)]
    (devkit / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_1 2007_9")
    one_line("VOCSegmentation2012", "test", tmp_path, "2007_9.jpg: there is no such file (1 of 2 are missing)")
    Image.new("RGB", (18, 12)).save(tmp_path / "SegmentationClassAug" / "2007_3.png")
    one_line("VOCSegmentation2012", "train", tmp_path, "2007_3.png", "got a picture of mode RGB")
    mask(tmp_path / "SegmentationClassAug" / "2007_3.png", classes_of((5, 5)))
    one_line("VOCSegmentation2012", "train", tmp_path, "expected a mask of 12x18 like its image, got 5x5")
    one_line("VOCSegmentation2012", "test", tmp_path / "empty", "VOCtrainval_11-May-2012.tar", "host.robots.ox.ac.uk")


def test_masks_arrive_in_a_zip_archive(tmp_path):
    voc2012(tmp_path)
    with zipfile.ZipFile(tmp_path / "SegmentationClassAug.zip", "w") as archive:
        for path in sorted((tmp_path / "SegmentationClassAug").iterdir()):
            archive.write(path, f"SegmentationClassAug/{path.name}")
            path.unlink()
    (tmp_path / "SegmentationClassAug").rmdir()
    assert len(read("VOCSegmentation2012", "train", tmp_path)) == 3


@pytest.mark.parametrize("below", ["benchmark_RELEASE/dataset", ""])
def test_voc2011_is_the_semantic_boundaries_dataset(tmp_path, below):
    root = tmp_path / below
    for name, split in (("a", "train"), ("b", "val")):
        picture(root / "img" / f"{name}.jpg", 90, (12, 10))
        (root / "cls").mkdir(exist_ok=True)
        savemat(root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": classes_of((12, 10), len(split))}})
        (root / f"{split}.txt").write_text(f"{name}\n")
    image, classes = read("VOCSegmentation2011", "test", tmp_path)[0]
    assert image.size == (12, 10)
    assert np.array_equal(classes, classes_of((12, 10), 3))
    (root / "cls" / "a.mat").write_bytes(b"damaged")
    one_line("VOCSegmentation2011", "train", tmp_path, root / "cls" / "a.mat", "damaged")


def test_corrupted_voc_is_read_from_its_folder_or_corrupted_here(tmp_path, caplog):
    voc2012(tmp_path)
    here = read("VOCSegmentation2012_C_Gauss_3", "test", tmp_path)[0]
    assert "so the images are corrupted here" in caplog.text
    clean = read("VOCSegmentation2012", "test", tmp_path)[0]
    assert torch.equal(here[1], clean[1])
    assert np.abs(np.array(here[0]).astype(int) - np.array(clean[0])).mean() > 1
    picture(tmp_path / "VOC2012_gaussian_noise_3" / "2007_1.jpg", 200, (16, 30))
    assert np.array(read("VOCSegmentation2012_C_Gauss_3", "test", tmp_path)[0][0]).max() > 190
    one_line("VOCSegmentation2012_C_Fog_1", "test", tmp_path, "put the folder VOC2012_fog_1")


def seg(name, **kwargs):
    return Component(type=name, kwargs=kwargs)


TO_TENSOR = seg("SegToTensor")
NORMALIZE = seg("SegNormalize", mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.5])


def test_segmentation_transforms_change_image_and_mask_together(tmp_path):
    """The red channel of every picture is its mask: after any transform they agree."""
    for number, size in enumerate(((20, 14), (16, 30))):
        classes = np.random.default_rng(number).integers(1, 21, (size[1], size[0]))
        path = tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([classes] * 3, 2).astype(np.uint8)).save(path)
        path.rename(path.with_suffix(".jpg"))
        mask(tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{number}.png", classes)
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("0\n1\n")
    source = read("VOCSegmentation2012", "test", tmp_path)
    named = [seg("SegRandomHorizontalFlip", flip_prob=0.5), seg("SegRandomCrop", size=18), TO_TENSOR]
    samples = Samples(source, named)
    assert samples.input_shape == (3, 18, 18)
    places = set()
    for epoch in range(12):
        x, y = samples.get([0, 1], epoch, 0)
        assert (y.dtype, y.shape) == (torch.int64, (2, 18, 18))
        assert torch.equal(torch.where(y == 255, 0, y), x[:, 0].mul(255).round().long())
        assert (y[0, 14:] == 255).all()  # padded at the bottom
        assert (y[0, :14] != 255).all()
        places.add(tuple(x[1, 0, 0, :3].tolist()))
    assert len(places) > 6  # of 13 rows, mirrored or not
    x, y = Samples(source, [seg("SegCenterCrop", size=18), TO_TENSOR, NORMALIZE]).get([0])
    assert [int((row == 255).all()) for row in y[0]] == [1] * 2 + [0] * 14 + [1] * 2
    assert x[0, 1, 0, 0] == -2  # black, normalised


def test_shorter_edges_are_drawn_up_to_both_sizes_and_classes_are_not_mixed(tmp_path):
    voc2012(tmp_path)
    source = read("VOCSegmentation2012", "test", tmp_path)
    samples = Samples(source, [seg("SegRandomResize", min_size=8, max_size=10), TO_TENSOR])
    shapes = set()
    for epoch in range(20):
        x, y = samples.get([0], epoch, 0)
        assert x.shape[2:] == y.shape[1:]
        assert set(y.unique().tolist()) <= set(np.unique(classes_of((16, 30), 1)))
        shapes.add(y.shape[2])
    assert shapes == {8, 9, 10}


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ([Component(type="ToTensor")], "ToTensor would change images and not their masks"),
        ([seg("SegCenterCrop", size=8)], "add SegToTensor to transformsFinal"),
        ([NORMALIZE, TO_TENSOR], "SegNormalize comes after SegToTensor"),
        ([seg("SegRandomResize", min_size=9, max_size=8)], "SegRandomResize cannot be built"),
    ],
)
def test_transforms_that_do_not_fit_masks_are_refused(tmp_path, named, words):
    voc2012(tmp_path)
    with pytest.raises(ConfigError) as error:
        Samples(read("VOCSegmentation2012", "test", tmp_path), named)
    assert words in str(error.value)
    with pytest.raises(ConfigError, match="SegToTensor is for images with masks"):
        Samples(load_raw("Digits", "test", "", ""), [TO_TENSOR])


# -------------------------------------------------------------------------------------------- drives, validation files


def drive(path, count=20, rows=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    camera = np.random.default_rng(count).integers(0, 256, (count, rows, 330, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file["camera_front"], file["inverse_r"] = camera, np.linspace(-1, 1, count)
    return camera


def test_the_first_nine_tenths_of_every_drive_are_for_training(tmp_path):
    folder = tmp_path / "deepknight" / "devens_large"
    first, second = drive(folder / "a.h5"), drive(folder / "b.h5", 10)
    train, test = read("Driving", "train", tmp_path), read("Driving", "test", tmp_path)
    assert (train.images.shape, test.images.shape) == ((27, 60, 240, 3), (3, 60, 240, 3))
    assert np.array_equal(train.images[18], second[0, 130:190, 80:320])
    assert np.array_equal(test.images[1], first[19, 130:190, 80:320])
    assert (train.targets.dtype, train.targets.shape) == (np.float32, (27, 1))
    assert test.targets[1, 0] == 1
    drive(folder / "b.h5", 10, rows=100)
    one_line("Driving", "train", tmp_path, folder / "b.h5", "expected at least 190x320 pixels")
    (folder / "b.h5").write_bytes(b"damaged")
    one_line("Driving", "train", tmp_path, folder / "b.h5", "damaged")
    one_line("Driving", "train", tmp_path / "empty", "it is private")


def test_the_reference_s_validation_file_decides_where_it_is(tmp_path, caplog):
    network = NetworkConfig(name="lenet5", dataset="Digits", output_size=10)
    order = np.random.default_rng(3).permutation(1437)

    def split(seed=0):
        return load_splits(network, TrainingConfig(), seed=seed, training_data=str(tmp_path), local_data="")

    path = tmp_path / "Digits_validation.npz"
    np.savez(path, set1Idx=order[:143], set2Idx=order[143:], ratioSet1=0.1)
    splits = split()
    assert "are those of this file" in caplog.text
    held = sorted([*splits.validation._chosen, *splits.calibration._chosen])
    assert held == sorted(order[:143])
    assert sorted(splits.train._chosen) == sorted(order[143:])
    assert len(splits.validation) == 72
    assert sorted(splits.validation._chosen) != sorted(split(1).validation._chosen)
    np.savez(path, set1Idx=order[:200], set2Idx=order[200:], ratioSet1=0.2)
    assert not set(split().validation._chosen) <= set(order[:200])
    assert "not used: its validation set is 0.2" in caplog.text
    for damage in ({"set1Idx": order[:143], "set2Idx": order[144:], "ratioSet1": 0.1}, {"set1Idx": order[:3]}):
        np.savez(path, **damage)
        with pytest.raises(ConfigError, match=r"Digits_validation.npz: damaged"):
            split()
