"""Result files: complete or absent, every byte verified, arrays unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from luigi_prune.errors import DamagedResult
from luigi_prune.results.hdf5_file import (
    HDF5Target,
    content_sha256,
    read_about,
    read_result,
    set_aside,
    verify,
    write_result,
)

ABOUT = {"family": "Prune", "key": "ab" * 32, "spec": {"keep_ratio": 0.5}, "provenance": {"host": "here"}}


def write(path: Path, arrays: dict[str, np.ndarray], **more: object) -> bool:
    return write_result(path, arrays=arrays, **ABOUT, **more)  # type: ignore[arg-type]


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


NAMES = st.lists(
    st.text("abcxyz0._", min_size=1, max_size=6).filter(lambda text: text.strip(".")),
    min_size=1,
    max_size=6,
    unique=True,
)
ARRAYS = hnp.arrays(
    dtype=st.sampled_from(["f4", "f8", "f2", "i8", "i4", "u1", "?"]), shape=hnp.array_shapes(min_dims=0, max_side=40)
)


@settings(deadline=None)
@given(names=NAMES, data=st.data(), sparse=st.floats(0, 1))
def test_arrays_survive_bit_for_bit_and_in_order(tmp_path_factory, names, data, sparse):
    rng = np.random.default_rng(0)
    arrays = {}
    for name in names:
        array = data.draw(ARRAYS)
        arrays[f"weights/{name}"] = np.where(rng.random(array.shape) < sparse, np.zeros_like(array), array)
    arrays["layers/name"] = np.array(["conv1", "größe"])
    path = tmp_path_factory.mktemp("targets") / "r.h5"
    assert write(path, arrays)
    read = read_result(path).arrays
    assert list(read) == list(arrays)
    assert all(same(read[name], arrays[name]) for name in arrays if arrays[name].dtype.kind != "U")
    assert read["layers/name"].tolist() == ["conv1", "größe"]


def test_negative_zeros_and_nan_survive_in_sparse_arrays(tmp_path):
    array = np.zeros(5000, dtype="f4")
    array[::50] = -0.0
    array[::77] = np.nan
    write(tmp_path / "r.h5", {"a": array})
    assert same(read_result(tmp_path / "r.h5").arrays["a"], array)


def test_about_and_measured(tmp_path):
    path = tmp_path / "r.h5"
    write(path, {"a": np.arange(3)}, meta={"types": {"a": "bfloat16"}}, measured={"train_seconds": 1.5})
    result = read_result(path)
    assert (result.family, result.key, result.spec) == ("Prune", "ab" * 32, {"keep_ratio": 0.5})
    assert result.meta == {"types": {"a": "bfloat16"}}
    assert result.measured["train_seconds"] == 1.5
    assert "measured/train_seconds" not in result.arrays
    about = read_about(path)
    assert about["content_sha256"] == content_sha256({"a": np.arange(3)}, {"types": {"a": "bfloat16"}})


def test_measured_and_provenance_are_outside_the_content_hash(tmp_path):
    write(tmp_path / "a.h5", {"a": np.arange(3)}, measured={"train_seconds": 1.5})
    write(tmp_path / "b.h5", {"a": np.arange(3)}, measured={"train_seconds": 2.5})
    write(tmp_path / "c.h5", {"a": np.arange(1, 4)})
    hashes = [read_about(tmp_path / f"{name}.h5")["content_sha256"] for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_first_writer_wins(tmp_path):
    path = tmp_path / "r.h5"
    assert write(path, {"a": np.zeros(3)})
    assert not write(path, {"a": np.ones(3)})
    assert read_result(path).arrays["a"].sum() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


def test_a_damaged_winner_is_set_aside(tmp_path):
    path = tmp_path / "r.h5"
    path.write_bytes(b"rubbish")
    assert write(path, {"a": np.ones(3)})
    assert read_result(path).arrays["a"].sum() == 3
    assert len(list(tmp_path.glob("r.h5.corrupt.*"))) == 1


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "r.h5"
    write(
        path,
        {"weights/a": np.random.default_rng(0).normal(size=(30, 30)).astype("f4"), "masks/a": np.ones((30, 30), bool)},
    )
    whole = path.read_bytes()
    for at in range(0, len(whole), 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(DamagedResult):
            read_result(path)
    path.write_bytes(whole)
    verify(path)


@pytest.mark.parametrize("keep", [0, 1, 100, 511, 512, 513, 3000, -1])
def test_a_truncated_file_is_found(tmp_path, keep):
    path = tmp_path / "r.h5"
    write(path, {"a": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedResult, match=r"r\.h5"):
        read_result(path)


def test_bytes_appended_are_found(tmp_path):
    path = tmp_path / "r.h5"
    write(path, {"a": np.arange(1000)})
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DamagedResult):
        verify(path)


def test_a_missing_file_is_missing_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path / "none.h5")
    assert not HDF5Target(tmp_path / "none.h5").exists()


def test_set_aside_keeps_the_bytes(tmp_path):
    path = tmp_path / "r.h5"
    path.write_bytes(b"rubbish")
    aside = set_aside(path)
    assert not path.exists()
    assert aside.read_bytes() == b"rubbish"
    assert aside.name.startswith("r.h5.corrupt.")


def test_a_writer_killed_in_the_middle_leaves_no_result(tmp_path):
    code = textwrap.dedent(
        f"""
        import os, signal, numpy as np, luigi_prune.results.hdf5_file as targets
        original = targets._write_array
        def deadly(file, name, array):
            if name == "b":
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            original(file, name, array)
        targets._write_array = deadly
        targets.write_result(r"{tmp_path / "r.h5"}", family="f", key="k", spec={{}}, provenance={{}},
                             arrays={{"a": np.ones(9), "b": np.ones(9)}})
        """
    )
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert ended.returncode == -9
    assert not (tmp_path / "r.h5").exists()
    assert len(list(tmp_path.glob(".r.h5.tmp.*"))) == 1


def test_a_network_with_ninety_percent_zeros_takes_at_most_35_percent(tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(16, 16, 3, 3)] * 7 + [(32, 32, 3, 3)] * 6 + [(64, 64, 3, 3)] * 6 + [(16,), (32,), (64,)] * 15
    dense = {f"weights/{i}": rng.normal(size=shape).astype("f4") for i, shape in enumerate(shapes)}
    masks = {name: rng.random(array.shape) < 0.1 for name, array in dense.items()}
    pruned = {name: np.where(masks[name], array, np.float32(0)) for name, array in dense.items()}
    write(tmp_path / "dense.h5", dense)
    write(tmp_path / "pruned.h5", pruned | {name.replace("weights", "masks"): mask for name, mask in masks.items()})
    assert (tmp_path / "pruned.h5").stat().st_size <= 0.35 * (tmp_path / "dense.h5").stat().st_size
