"""Data sets on disk: small files in the formats of MNIST and CIFAR, read through torchvision without a network."""

import gzip
import hashlib
import multiprocessing
import os
import pickle
import struct
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tvd

from luigi_prune.compute.data import load_raw, vision
from luigi_prune.errors import ConfigError

SAMPLES = 6


@pytest.fixture(autouse=True)
def _no_memory_no_network(monkeypatch):
    load_raw.cache_clear()

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    yield
    load_raw.cache_clear()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_files(folder: Path) -> dict[str, np.ndarray]:
    """Write the four gzipped files of MNIST below `folder` and return what is in them."""
    rng, written = np.random.default_rng(0), {}
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        written[part] = rng.integers(0, 256, (SAMPLES, 28, 28), dtype=np.uint8)
        labels = np.arange(SAMPLES, dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(written[part])))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return written


def trust_mnist(monkeypatch, kind, folder: Path) -> None:
    """Let torchvision expect the checksums of the files that were written."""
    sums = [(name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name, _ in kind.resources]
    monkeypatch.setattr(kind, "resources", sums)


def cifar_files(monkeypatch, kind, root: Path, label_key: str) -> dict[str, np.ndarray]:
    """Write the pickled batches of a CIFAR below `root`, let torchvision expect them, and return their images."""
    rng, written, sums = np.random.default_rng(1), {}, {}
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    for name, _ in (*kind.train_list, *kind.test_list):
        written[name] = rng.integers(0, 256, (SAMPLES, 3 * 32 * 32), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": written[name], label_key: list(range(SAMPLES))}))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: ["a", "b"]}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[name, sums[name]] for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
    return written


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_gzipped_idx_files_are_unpacked_and_read(monkeypatch, tmp_path, name):
    written = mnist_files(tmp_path / name / "raw")
    trust_mnist(monkeypatch, getattr(tvd, name), tmp_path / name / "raw")
    train, test = load_raw(name, "train", str(tmp_path), ""), load_raw(name, "test", str(tmp_path), "")
    assert np.array_equal(train.images, written["train"])
    assert np.array_equal(test.images, written["t10k"])
    assert train.targets.dtype == np.int64
    assert train.targets.tolist() == list(range(SAMPLES))
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name.startswith(".")]


@pytest.mark.parametrize(("name", "key"), [("CIFAR10", "labels"), ("CIFAR100", "fine_labels")])
def test_cifar_batches_are_read_in_order(monkeypatch, tmp_path, name, key):
    kind = getattr(tvd, name)
    written = cifar_files(monkeypatch, kind, tmp_path, key)
    train = load_raw(name, "train", str(tmp_path), "")
    expected = np.concatenate([written[batch] for batch, _ in kind.train_list]).reshape(-1, 3, 32, 32)
    assert np.array_equal(train.images.transpose(0, 3, 1, 2), expected)
    assert train.targets.tolist() == list(range(SAMPLES)) * len(kind.train_list)
    assert len(load_raw(name, "test", str(tmp_path), "").targets) == SAMPLES


def test_an_archive_is_unpacked_into_the_local_folder_where_the_shared_one_is_read_only(monkeypatch, tmp_path):
    shared, local = tmp_path / "shared", tmp_path / "local"
    cifar_files(monkeypatch, tvd.CIFAR10, tmp_path / "source", "labels")
    shared.mkdir()
    with tarfile.open(shared / tvd.CIFAR10.filename, "w:gz") as archive:
        archive.add(tmp_path / "source" / tvd.CIFAR10.base_folder, arcname=tvd.CIFAR10.base_folder)
    content = (shared / tvd.CIFAR10.filename).read_bytes()
    monkeypatch.setattr(tvd.CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path) != shared)
    assert len(load_raw("CIFAR10", "train", str(shared), str(local)).targets) == 5 * SAMPLES
    assert [path.name for path in shared.iterdir()] == [tvd.CIFAR10.filename]
    assert vision.files_of(tvd.CIFAR10).complete(local)


def test_the_local_copy_is_made_once_and_read_from_then_on(monkeypatch, tmp_path):
    shared, local = tmp_path / "shared", tmp_path / "local"
    cifar_files(monkeypatch, tvd.CIFAR10, shared, "labels")
    first = load_raw("CIFAR10", "train", str(shared), str(local))
    copied = sorted(path.name for path in (local / tvd.CIFAR10.base_folder).iterdir())
    assert copied == sorted(path.name for path in (shared / tvd.CIFAR10.base_folder).iterdir())
    for path in (shared / tvd.CIFAR10.base_folder).iterdir():
        path.unlink()
    load_raw.cache_clear()
    assert np.array_equal(load_raw("CIFAR10", "train", str(shared), str(local)).images, first.images)


def _copy(root: str) -> None:
    vision.data_root(vision.files_of(tvd.MNIST), f"{root}/shared", f"{root}/local")


def test_several_processes_make_one_whole_copy(monkeypatch, tmp_path):
    written = mnist_files(tmp_path / "shared" / "MNIST" / "raw")
    trust_mnist(monkeypatch, tvd.MNIST, tmp_path / "shared" / "MNIST" / "raw")
    load_raw("MNIST", "train", str(tmp_path / "shared"), "")
    children = [multiprocessing.get_context("fork").Process(target=_copy, args=(str(tmp_path),)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    load_raw.cache_clear()
    assert np.array_equal(load_raw("MNIST", "train", "/nowhere", str(tmp_path / "local")).images, written["train"])
    assert len(list((tmp_path / "local" / "MNIST" / "raw").iterdir())) == 4


def test_a_local_folder_that_cannot_be_written_is_done_without(monkeypatch, tmp_path, caplog):
    cifar_files(monkeypatch, tvd.CIFAR10, tmp_path, "labels")
    (tmp_path / "file").write_text("in the way")
    assert len(load_raw("CIFAR10", "test", str(tmp_path), str(tmp_path / "file" / "local")).targets) == SAMPLES
    assert "no local copy of CIFAR10" in caplog.text


def test_missing_files_are_a_one_line_error_that_names_the_folder(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_raw("CIFAR10", "train", str(tmp_path), "")
    text = str(caught.value)
    assert f"CIFAR10 is not in {tmp_path}" in text
    assert "cifar-10-python.tar.gz" in text
    assert "\n" not in text
    assert [path.name for path in tmp_path.iterdir()] == [".CIFAR10.lock"]


def test_damaged_files_are_a_one_line_error_that_says_what_to_remove(monkeypatch, tmp_path):
    cifar_files(monkeypatch, tvd.CIFAR10, tmp_path, "labels")
    (tmp_path / tvd.CIFAR10.base_folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=f"damaged.*remove {tmp_path / tvd.CIFAR10.base_folder}"):
        load_raw("CIFAR10", "train", str(tmp_path), "")
