"""Toys, tables in the format of their files, dequantisation, and the losses and metrics of densities."""

import io
import math
import tarfile

import h5py
import numpy as np
import pytest
import torch

from luigi_prune import registry
from luigi_prune.compute.counted_noise import normals_of, seeds_of
from luigi_prune.compute.data import load_raw, load_splits
from luigi_prune.compute.data.samples import RawData, Samples
from luigi_prune.compute.data.tables import read_table
from luigi_prune.compute.data.toys import TOYS, read_toy
from luigi_prune.compute.metrics.losses import Loss
from luigi_prune.compute.metrics.metric_set import MetricSet
from luigi_prune.config.schema import Component, NetworkConfig, TrainingConfig
from luigi_prune.errors import ConfigError

POINTS = {
    "ToyConcentric": (1024, 512), "ToyMoons": (1024, 512), "ToySpirals": (2048, 1024), "ToySpirals2": (32768, 16384),
    "ToyGaussians": (16380, 8190), "ToyGaussiansSpiral": (16380, 8190), "ToyDiffeqml": (16384, 8192),
}  # fmt: skip


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_the_same_points_every_time_and_normalised_by_one_number(name, tmp_path):
    for split, count in zip(("train", "test"), POINTS[name], strict=True):
        raw, again = (read_toy(name, split, str(tmp_path), "") for _ in range(2))
        assert raw.images.shape == (count, 2)
        assert raw.images.dtype == np.float32
        assert np.array_equal(raw.images, again.images)
        assert raw.images.mean() == pytest.approx(0, abs=1e-4)
        assert raw.images.std(ddof=1) == pytest.approx(1, abs=1e-4)
        assert len(np.unique(raw.targets)) == registry.DATASETS[name].num_classes


def test_stored_toys_are_read_instead_also_from_their_archive(tmp_path):
    train = np.arange(8.0).reshape(4, 2)
    with tarfile.open(tmp_path / "torchdyn_toy_moons.tar.gz", "w:gz") as archive:
        for axis, array in (("x", train), ("y", np.array([0, 1, 1, 0]))):
            for split in ("train", "test"):
                buffer = io.BytesIO()
                np.save(buffer, array)
                member = tarfile.TarInfo(f"torchdyn_toy_moons/{axis}_data_{split}.npy")
                member.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(member, buffer)
    raw = read_toy("ToyMoons", "train", str(tmp_path), str(tmp_path / "local"))
    assert np.array_equal(raw.images, train)
    assert raw.targets.tolist() == [0, 1, 1, 0]
    (tmp_path / "local/torchdyn_toy_moons/x_data_train.npy").write_bytes(b"no numbers")
    with pytest.raises(ConfigError, match=r"ToyMoons: .*x_data_train.npy cannot be read") as caught:
        read_toy("ToyMoons", "train", str(tmp_path), str(tmp_path / "local"))
    assert "\n" not in str(caught.value)


def write_table(name, folder, rng):
    """Write a small table in the format of its files."""
    for sub in ("power", "gas", "hepmass", "miniboone", "BSDS300"):
        (folder / "data" / sub).mkdir(parents=True, exist_ok=True)
    root = folder / "data"
    if name == "Power":
        np.save(root / "power/data.npy", rng.normal(size=(100, 8)))
    elif name == "Miniboone":
        np.save(root / "miniboone/data.npy", rng.normal(size=(100, 43)))
    elif name == "Gas":
        own = rng.normal(size=(100, 8))
        columns = [np.arange(100.0), rng.normal(size=100), rng.normal(size=100), own[:, 0] * 2 + 1, *own.T]
        names = ["Time", "Meth", "Eth", *(f"R{index}" for index in range(9))]
        np.savetxt(
            root / "gas/ethylene_CO.csv", np.stack(columns, 1), delimiter=",", header=",".join(names), comments=""
        )
    elif name == "Hepmass":
        for split, extra in (("train", 0), ("test", 1)):
            features = rng.normal(size=(200, 22))
            features[:, 4] = np.maximum(features[:, 4], 0)  # its smallest value repeats: dropped
            rows = np.hstack([(np.arange(200) % 2)[:, None], features, np.zeros((200, extra))])
            header = ",".join(["# label", *(f"f{index}" for index in range(22))])
            np.savetxt(root / f"hepmass/1000_{split}.csv", rows, delimiter=",", header=header, comments="")
    else:
        with h5py.File(root / "BSDS300/BSDS300.hdf5", "w") as file:
            for part, count in (("train", 30), ("validation", 5), ("test", 7)):
                file[part] = rng.normal(size=(count, 63))


SPLITS = {"Power": (81, 9, 10), "Gas": (81, 9, 10), "Hepmass": (90, 10, 100), "Miniboone": (81, 9, 10)}
FEATURES = {"Power": 6, "Gas": 8, "Hepmass": 21, "Miniboone": 43, "Bsds300": 63}


@pytest.mark.parametrize("name", FEATURES)
def test_tables_are_split_and_standardised(name, tmp_path):
    write_table(name, tmp_path, np.random.default_rng(0))
    train, validation, test = SPLITS.get(name, (30, 5, 7))
    raw, tested = (read_table(name, split, str(tmp_path), "") for split in ("train", "test"))
    assert raw.images.shape == (train + validation, FEATURES[name])
    assert raw.validation.tolist() == list(range(train, train + validation))
    assert tested.images.shape == (test, FEATURES[name])
    assert not raw.targets.any()
    if name in ("Power", "Miniboone"):
        assert raw.images.mean(0) == pytest.approx(np.zeros(FEATURES[name]), abs=1e-5)
        assert raw.images.std(0) == pytest.approx(np.ones(FEATURES[name]), abs=1e-5)


def test_the_validation_rows_of_a_table_are_held_out(tmp_path):
    write_table("Miniboone", tmp_path, np.random.default_rng(0))
    training = TrainingConfig(loss="NLLNatsLoss", metrics_test=(Component(type="NLLNats"),))
    network = NetworkConfig(name="ffjord_l1_hm1_f1_tanh", dataset="Miniboone", output_size=43)
    load_raw.cache_clear()
    splits = load_splits(network, training, seed=0, training_data=str(tmp_path), local_data="")
    assert len(splits.train) == 81
    assert len(splits.validation) + len(splits.calibration) == 9
    assert splits.input_shape == (43,)


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("Power", "power/data.npy", b"text", "Power: power/data.npy"),
        ("Miniboone", "miniboone/data.npy", None, "expected 43 columns"),
        ("Gas", "gas/ethylene_CO.csv", b"Time,R1\n1,x\n", "Gas: gas/ethylene_CO.csv"),
        ("Hepmass", "hepmass/1000_test.csv", b"label\n1,2\n1,x\n", "Hepmass: hepmass/1000_train.csv"),
        ("Bsds300", "BSDS300/BSDS300.hdf5", b"text", "Bsds300: BSDS300/BSDS300.hdf5"),
    ],
)
def test_a_malformed_table_is_one_line(name, file, content, words, tmp_path):
    write_table(name, tmp_path, np.random.default_rng(0))
    if content is None:
        np.save(tmp_path / "data" / file, np.zeros((5, 3)))
    else:
        (tmp_path / "data" / file).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_table(name, "train", str(tmp_path), "")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FEATURES)
def test_a_missing_table_says_what_to_get_from_where(name, tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_table(name, "train", str(tmp_path), "")
    for words in (name, str(tmp_path), "data.tar.gz", "https://zenodo.org/records/1161203"):
        assert words in str(caught.value)


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "data/gas").mkdir(parents=True)
    (tmp_path / "data/gas/ethylene_CO.pickle").write_bytes(b"never read")
    with pytest.raises(ConfigError, match=r"is a pickle, .* convert it once: python -c .*read_pickle.*ethylene_CO.csv"):
        read_table("Gas", "train", str(tmp_path), "")


def test_random_noise_fills_the_gaps_between_grey_values_alone_and_in_batches():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    raw = RawData(images, np.zeros(6, dtype=np.int64))
    steps = [Component(type="ToTensor"), Component(type="RandomNoise", kwargs={"normalization": 255.0})]
    in_batches = Samples(raw, steps)
    one_by_one = Samples(raw, [*steps, Component(type="RandomAdjustSharpness", kwargs={"sharpness_factor": 1, "p": 0})])
    for samples in (in_batches, one_by_one):
        x = samples.get(range(6), epoch=1, seed=3)[0]
        noise = x * 256 - torch.from_numpy(images)[:, None]
        assert float(noise.min()) >= -1e-4
        assert float(noise.max()) <= 1 + 1e-4
        assert float(noise.mean()) == pytest.approx(0.5, abs=0.05)
        assert len(noise.mul(1e4).round().unique()) > 100
        assert torch.equal(x[2:4], samples.get([2, 3], epoch=1, seed=3)[0])
        assert not torch.equal(x, samples.get(range(6), epoch=2, seed=3)[0])


def test_counted_noise_is_standard_normal_and_a_function_of_the_sample():
    x = torch.randn(500, 3)
    noise = normals_of(seeds_of(x), 40)
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert float((noise[:, 1:] * noise[:, :-1]).mean()) == pytest.approx(0, abs=0.03)
    assert torch.equal(normals_of(seeds_of(x[7:9]), 40), noise[7:9])
    assert len(seeds_of(torch.cat([x, x.flip(1)])).unique()) == 1000


@pytest.mark.parametrize("name", ["NLLPrior", "NLLNats", "NLLBits"])
def test_losses_and_metrics_of_densities(name):
    z, a, targets = torch.randn(10, 4), torch.randn(10), torch.zeros(10, dtype=torch.int64)
    outputs = torch.cat([a[:, None], z], dim=1)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    nats = normal - a
    expected = -nats.mean() if name != "NLLBits" else -(nats.mean() / 4 - math.log(256)) / math.log(2)
    loss = Loss(f"{name}Loss", {})
    assert float(loss(outputs, targets)) == pytest.approx(float(expected), rel=1e-5)
    metrics = MetricSet([Component(type=name)])
    for part in (slice(0, 3), slice(3, 10)):
        metrics.update(outputs[part], targets[part])
    restored = MetricSet([Component(type=name)])
    restored.load(metrics.state(), torch.device("cpu"))
    assert restored.compute() == metrics.compute() == {name: pytest.approx(-float(expected), rel=1e-5)}
    with pytest.raises(ConfigError, match="read the output of a flow"):
        loss(torch.zeros(3, 4, 4), targets[:3])
