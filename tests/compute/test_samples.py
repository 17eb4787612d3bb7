import numpy as np
import pytest
import torch
import torchvision.transforms as tv
from PIL import Image

from luigi_prune.compute import networks
from luigi_prune.compute.data import RawData, Samples, load_raw, load_splits, load_test, loading
from luigi_prune.compute.data.foreign_data import foreign_data
from luigi_prune.compute.data.loading import load_batches
from luigi_prune.compute.data.sample_order import held_out
from luigi_prune.config.schema import Component, NetworkConfig, TrainingConfig
from luigi_prune.errors import ConfigError
from luigi_prune.registry import DatasetRow
from tests.compute.pretended_device import pretended_device

TO_TENSOR = Component(type="ToTensor")
NORMALIZE = Component(type="Normalize", kwargs={"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]})
CROP = Component(type="RandomCrop", kwargs={"size": 10, "padding": 2})
FLIP = Component(type="RandomHorizontalFlip")
JITTER = Component(type="ColorJitter", kwargs={"brightness": 0.4})


@pytest.fixture(scope="module")
def raw():
    rng = np.random.default_rng(0)
    return RawData(rng.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8), np.arange(40) % 5)


def everything(samples, epoch=0, seed=0):
    return samples.get(np.arange(len(samples)), epoch, seed)[0]


@pytest.mark.parametrize(
    "named",
    [
        [TO_TENSOR],
        [Component(type="Pad", kwargs={"padding": 3}), TO_TENSOR, NORMALIZE],
        [Component(type="Pad", kwargs={"padding": [1, 2], "padding_mode": "reflect"}), TO_TENSOR],
        [Component(type="Pad", kwargs={"padding": 1, "fill": [1, 2, 3]}), TO_TENSOR],
        [Component(type="CenterCrop", kwargs={"size": 7}), TO_TENSOR, NORMALIZE],
        [Component(type="Resize", kwargs={"size": 8, "interpolation": "nearest"}), TO_TENSOR, NORMALIZE],
        [Component(type="Grayscale"), TO_TENSOR],
    ],
    ids=lambda named: "-".join(component.type for component in named),
)
def test_deterministic_transforms_give_what_torchvision_gives(raw, named):
    def built(component):
        kwargs = dict(component.kwargs)
        if "interpolation" in kwargs:
            kwargs["interpolation"] = tv.InterpolationMode(kwargs["interpolation"])
        return getattr(tv, component.type)(**kwargs)

    compose = tv.Compose([built(component) for component in named])
    expected = torch.stack([compose(Image.fromarray(image)) for image in raw.images])
    samples = Samples(raw, named)
    assert torch.equal(everything(samples), expected)
    assert samples.in_memory
    assert not samples.random
    assert samples.input_shape == tuple(expected.shape[1:])
    assert torch.equal(everything(Samples(raw, named, cache_bytes=0)), expected)


@pytest.mark.parametrize("named", [[CROP, FLIP, TO_TENSOR, NORMALIZE], [JITTER, CROP, FLIP, TO_TENSOR]])
def test_draws_belong_to_seed_epoch_and_sample_not_to_the_batch(raw, named):
    samples = Samples(raw, named, chosen=np.arange(5, 40))
    assert samples.random
    whole = everything(samples, epoch=3, seed=7)
    assert torch.equal(samples.get([4, 30, 2], 3, 7)[0], whole[[4, 30, 2]])
    assert not torch.equal(whole, everything(samples, epoch=4, seed=7))
    assert not torch.equal(whole, everything(samples, epoch=3, seed=8))
    assert samples.get([], 3, 7)[0].shape == (0, *samples.input_shape)


def test_random_crops_and_flips_are_cut_from_the_padded_image(raw):
    crops = everything(Samples(raw, [CROP, FLIP, TO_TENSOR]), epoch=1)
    padded = torch.nn.functional.pad(everything(Samples(raw, [TO_TENSOR])), (2, 2, 2, 2))
    places, mirrored = set(), 0
    for crop, image in zip(crops, padded, strict=True):
        found = [
            (top, left, flipped)
            for top in range(7)
            for left in range(7)
            for flipped in (False, True)
            if torch.equal(crop.flip(2) if flipped else crop, image[:, top : top + 10, left : left + 10])
        ]
        assert len(found) == 1
        places.add(found[0][:2])
        mirrored += found[0][2]
    assert len(places) > 15  # of 49, by 40 draws
    assert 10 < mirrored < 30


def test_the_image_wise_path_leaves_the_global_generators_alone(raw):
    samples = Samples(raw, [JITTER, TO_TENSOR])
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    everything(samples)
    assert torch.equal(torch.rand(2), expected)


def test_workers_do_not_change_the_batches(raw):
    samples = Samples(raw, [JITTER, CROP, TO_TENSOR])
    batches = [np.arange(0, 16), np.arange(16, 25), np.array([3, 1])]
    settings = {"epoch": 2, "seed": 5, "device": torch.device("cpu")}
    assert not samples.in_memory
    for (x, y), (x2, y2) in zip(
        load_batches(samples, batches, **settings), load_batches(samples, batches, workers=2, **settings), strict=True
    ):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([FLIP], "add ToTensor"),
        ([Component(type="ToTensr")], "ToTensor"),
        ([Component(type="Pad", kwargs={"paddin": 1})], "Pad cannot be built"),
        ([Component(type="RandomCrop", kwargs={"size": 99}), TO_TENSOR], "cannot be applied to images"),
        ([TO_TENSOR, Component(type="Normalize", kwargs={"mean": [0, 0], "std": [1, 1]})], "cannot be applied"),
    ],
)
def test_a_pipeline_that_cannot_work_is_a_one_line_error(raw, named, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Samples(raw, named)
    assert "\n" not in str(caught.value)


def test_digits_are_split_once_and_for_all():
    train, test = load_raw("Digits", "train", "", ""), load_raw("Digits", "test", "", "")
    assert train.images.shape == (1437, 8, 8)
    assert test.images.shape == (360, 8, 8)
    assert (train.images.min(), train.images.max()) == (0, 255)
    per_class = np.bincount(np.concatenate([train.targets, test.targets]))
    assert np.abs(np.bincount(test.targets) - per_class * 360 / 1797).max() < 1
    # The test set belongs to the data set: if this sum changes, results are no longer comparable.
    assert int(test.images.astype(np.int64).sum()) == 1803815
    together = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(np.unique(together, axis=0)) == 1797


def test_a_tenth_is_held_out_by_seed_with_the_test_transforms_half_of_it_for_calibration():
    training = TrainingConfig(transforms_train=(Component(type="RandomCrop", kwargs={"size": 8, "padding": 1}),))
    network = NetworkConfig(name="lenet5", dataset="Digits", output_size=10)

    def split(seed):
        return load_splits(network, training, seed=seed, training_data="", local_data="")

    splits = split(3)
    assert (len(splits.train), splits.input_shape) == (1294, (1, 8, 8))
    assert splits.train.random
    for part, size in (("validation", 72), ("calibration", 71)):
        samples = getattr(splits, part)
        assert len(samples) == size
        assert not samples.random
        assert torch.equal(everything(samples), everything(getattr(split(3), part)))
        assert not torch.equal(samples.targets, getattr(split(4), part).targets)
    assert len(load_test("Digits", training, training_data="", local_data="")) == 360


@pytest.mark.parametrize(
    ("samples", "sizes"), [(1437, (1294, 72, 71)), (20, (18, 1, 1)), (5, (4, 1, 1)), (2, (1, 1, 1))]
)
def test_no_sample_is_in_two_parts_unless_a_single_one_is_held_out(samples, sizes):
    parts = held_out(samples, 0.1, seed=7)
    assert tuple(map(len, parts)) == sizes
    assert set(np.concatenate(parts)) == set(range(samples))
    assert sum(sizes) == samples or np.array_equal(parts[1], parts[2])


# ---------------------------------------------------------------------------------------------------- several inputs


class Dropped:
    """Replaces a word at random, and counts the words that the mask keeps."""

    def __call__(self, sample):
        words, mask = sample["words"].clone(), sample["mask"]
        words[torch.randint(len(words), ())] = 0
        return {"words": words, "count": mask.sum()}


def sentences(count=9):
    rng = np.random.default_rng(0)
    words = rng.integers(1, 30, (count, 5))
    return {"words": words, "mask": rng.random((count, 5)) < 0.5}, np.arange(count) % 3


def several(returned):
    return foreign_data(DatasetRow("Sentences", lambda split, folder: returned, 3), "train", "")


def test_several_inputs_are_tensors_from_the_start():
    inputs, targets = sentences()
    samples = Samples(several((inputs, targets)), [TO_TENSOR], chosen=np.arange(2, 9))
    assert samples.input_shape == {"words": (5,), "mask": (5,)}
    x, y = samples.get([4, 0])
    assert (x["words"].dtype, x["mask"].dtype) == (torch.int64, torch.bool)
    assert x["words"].tolist() == inputs["words"][[6, 2]].tolist()
    assert y.tolist() == [0, 2]
    assert samples.get([])[0]["words"].shape == (0, 5)
    as_tuple = Samples(several(((inputs["words"].astype(np.uint16), targets * 0.5), targets)), [])
    assert as_tuple.input_shape == ((5,), ())
    assert [part.dtype for part in as_tuple.get([1])[0]] == [torch.int64, torch.float32]


@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_get_all_inputs_of_a_sample_and_workers_pass_them_on(workers):
    named = [Component(type="tests.compute.test_samples:Dropped")]
    samples = Samples(several(sentences()), named)
    assert samples.random
    batches = [np.array([3, 1]), np.array([0])]
    loaded = list(load_batches(samples, batches, epoch=2, seed=5, device=torch.device("cpu"), workers=workers))
    wanted = [samples.get(batch, 2, 5)[0] for batch in batches]
    assert all(torch.equal(x[name], each[name]) for (x, _), each in zip(loaded, wanted, strict=True) for name in x)
    assert loaded[0][0]["count"].shape == (2,)
    assert not torch.equal(wanted[0]["words"], samples.get(batches[0], 3, 5)[0]["words"])


WORDS, TARGETS = sentences()[0]["words"], sentences()[1]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"words": WORDS, "mask": WORDS[:4]}, "got 4 inputs of input 'mask' and 9 targets"),
        ((WORDS, np.zeros((9, 4, 4), dtype=np.uint8)), "integers or bools, got uint8 numbers of input '1'"),
        ((WORDS, np.array(["a"] * 9)), "got <U1 numbers of input '1'"),
        ((WORDS, WORDS * np.nan), "inputs of input '1' are NaN or infinite"),
        (WORDS.astype(np.uint8), "expected floats, integers or uint8 images, got uint8 numbers, shape (9, 5)"),
        ((), "expected arrays, got an empty tuple"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_go_together_are_refused_by_name(inputs, words):
    with pytest.raises(ConfigError) as error:
        several((inputs, TARGETS))
    assert words in str(error.value)
    assert str(error.value).startswith("network.dataset: Sentences, split 'train'")


def test_transforms_of_images_and_networks_of_one_input_refuse_several():
    with pytest.raises(ConfigError, match=r"Normalize cannot be applied to inputs of shape \{'words': ") as error:
        Samples(several(sentences()), [NORMALIZE])
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="lenet300_100 takes one input, but the data set has several"):
        networks.build("lenet300_100", {"words": (5,), "mask": (5,)}, 3, seed=0)


def test_batches_of_a_device_are_sliced_several_at_a_time(raw, monkeypatch):
    with pretended_device() as device:
        samples = Samples(raw, [CROP, FLIP, TO_TENSOR, NORMALIZE]).to(device)
        monkeypatch.setattr(loading, "_AT_ONCE", 2 * 9 * samples.sample_bytes)
        batches = np.array_split(np.random.default_rng(1).permutation(40), 5)
        calls, get = [], samples.get
        monkeypatch.setattr(samples, "get", lambda *arguments: calls.append(arguments) or get(*arguments))
        loaded = list(load_batches(samples, batches, epoch=1, seed=2, device=device))
        assert len(calls) == 3
        for (x, y), batch in zip(loaded, batches, strict=True):
            alone = samples.get(batch, 1, 2)
            assert x.device == device
            assert torch.equal(x, alone[0])
            assert torch.equal(y, alone[1])
