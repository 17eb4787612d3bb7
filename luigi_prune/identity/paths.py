"""All paths of the project, as functions of a spec.

    <results>/<data set>/<network>/TrainBase/net0-<key>.h5
    <results>/<data set>/<network>/TrainBase/scores/net0-rep0-<score>-<key>.h5
    <results>/<data set>/<network>/<Method>/net0-rep0/keep0.25-prune-<key>.h5
    <results>/<data set>/<network>/<Method>/net0-rep0/keep0.25-retrain-<key>.h5
    <results>/<data set>/<network>/<Method>/net0-rep0/keep0.25-evaluate-<test set>-<key>.h5
    <results>/<data set>/<network>/experiments/<experiment>/<key>/results.h5
    <results>/<data set>/<network>/experiments/<experiment>/<key>/report-<key>/report.html
    <results>/<data set>/<network>/tensorboard/...   one folder per run
    <results>/logs/                                  output of jobs
    <results>/<backend>/                             submissions and job state of a backend, such as slurm/

Keys in paths are shortened to twelve digits; the file contains the full key.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from luigi_prune.config.schema import Directories, NetworkConfig
from luigi_prune.identity.spec import REFERENCE, ChainSpec, EvaluateSpec, ExperimentSpec, TrainSpec
from luigi_prune.registry import plain

_KEY_DIGITS = 12


def network_folder(results: str | Path, network: NetworkConfig) -> Path:
    """Return the folder of one network on one data set."""
    return _network_folder(str(results), network.dataset, network.name)


@functools.lru_cache(maxsize=1024)
def _network_folder(results: str, dataset: str, network: str) -> Path:
    return Path(results) / _readable(dataset) / _readable(network)


def trained_path(directories: Directories, spec: TrainSpec, key: str) -> Path:
    """Return the path of a trained network, below `trained_networks` if set, else below the results."""
    root = directories.trained_networks or directories.results
    return network_folder(root, spec.network) / "TrainBase" / f"net{spec.net}-{key[:_KEY_DIGITS]}.h5"


def chain_path(directories: Directories, spec: ChainSpec, key: str) -> Path:
    """Return the path of the network after a chain's last step."""
    stage = "retrain" if spec.steps[-1].retrained else "prune"
    return _chain_folder(directories, spec) / f"keep{spec.keep_ratio:.6g}-{stage}-{key[:_KEY_DIGITS]}.h5"


def evaluate_path(directories: Directories, spec: EvaluateSpec, key: str) -> Path:
    """Return the path of an evaluation."""
    name = f"evaluate-{_readable(spec.test_set)}-{key[:_KEY_DIGITS]}.h5"
    if spec.chain is None:
        folder = network_folder(directories.results, spec.base.network) / REFERENCE
        return folder / f"net{spec.base.net}-{name}"
    return _chain_folder(directories, spec.chain) / f"keep{spec.chain.keep_ratio:.6g}-{name}"


def aggregate_path(directories: Directories, spec: ExperimentSpec, key: str) -> Path:
    """Return the path of an experiment's tables."""
    folder = network_folder(directories.results, spec.network) / "experiments" / spec.name
    return folder / key[:_KEY_DIGITS] / "results.h5"


def report_folder(aggregate: Path, key: str) -> Path:
    """Return the folder of a report, beside its tables."""
    return aggregate.parent / f"report-{key[:_KEY_DIGITS]}"


def tensorboard_folder(directories: Directories, network: NetworkConfig, run: Path) -> Path:
    """Return the folder of the TensorBoard logs of the task whose result file is `run`."""
    root = network_folder(directories.results, network) / "tensorboard"
    parts = run.with_suffix("").parts
    below_network = parts[::-1].index(_readable(network.name))
    return root / "-".join(parts[len(parts) - below_network :])


def checkpoint_path(result: str | Path) -> Path:
    """Return the path of a training's checkpoint, which exists until `result` is written."""
    path = Path(result)
    return path.with_name(f".{path.name}.checkpoint")


def scores_path(trained: Path, score: str, repetition: int, key: str) -> Path:
    """Return the path of the scores of a trained network, in a folder beside its file."""
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", score)
    name = f"{trained.stem.partition('-')[0]}-rep{repetition}-{readable}-{key[:_KEY_DIGITS]}.h5"
    return trained.parent / "scores" / name


def log_path(results: str | Path, title: str, key: str) -> Path:
    """Return the path of a task's log; every attempt appends to the same file."""
    readable = re.sub(r"[^A-Za-z0-9._=-]+", "-", title).strip("-.")
    return Path(results) / "logs" / f"{readable}-{key[:_KEY_DIGITS]}.log"


def jobs_folder(results: str | Path, backend: str) -> Path:
    """Return the folder of a backend's files: submissions and state of running jobs."""
    return Path(results) / backend


def _readable(name: str) -> str:
    """Return the name of a part for paths: `my_module.make_net` for an import path; the digest is in the key.

    A name that is a path itself, such as hf:google-bert/bert-base-cased, becomes one folder.
    """
    return plain(name).replace(":", ".").strip("/").replace("/", "-")


def _chain_folder(directories: Directories, spec: ChainSpec) -> Path:
    folder = network_folder(directories.results, spec.base.network)
    return _below(folder, spec.method, spec.base.net, spec.repetition)


@functools.lru_cache(maxsize=4096)
def _below(folder: Path, method: str, net: int, repetition: int) -> Path:
    return folder / _readable(method) / f"net{net}-rep{repetition}"
