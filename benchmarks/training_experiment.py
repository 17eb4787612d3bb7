"""Whole experiments with trainings one by one and together: CPU seconds on one thread.

python benchmarks/training_experiment.py [--together 1 8] [--epochs 20] [--training-data DIR] [--rounds 1]

Runs `sample/digits.yaml`, and a cascade of lenet300_100 with 4 methods and 8 keep ratios, inline, each run in a process
of its own, in turn. Prints the CPU seconds of the process from the first task to the tables, those of TrainBase and
Retrain among them, and the largest difference of a metric from the first run. Data of the cascade: the first 1,400
images of MNIST, if --training-data has it, else Digits padded to 28x28; transforms: `training/mnist/lenet.yaml`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import luigi
import yaml

METHODS = ["ThresNet", "SiPPNet", "FilterThresNet", "ALDSNet"]
RATIOS = [0.64, 0.41, 0.26, 0.17, 0.11, 0.07, 0.04, 0.02]
IMAGES = 1400


def cut_mnist(source: Path, folder: Path) -> None:
    """Write the first images of MNIST's two splits in its own format."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", IMAGES), ("t10k", 1000)):
        images = (source / "MNIST" / "raw" / f"{split}-images-idx3-ubyte").read_bytes()[16 : 16 + count * 784]
        labels = (source / "MNIST" / "raw" / f"{split}-labels-idx1-ubyte").read_bytes()[8 : 8 + count]
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 28, 28) + images)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + labels)


def write_cascade(folder: Path, epochs: int, training_data: str) -> str:
    """Write the experiment file of the cascade; return its path."""
    training: dict[str, Any] = {
        "file": "training/mnist/lenet.yaml",
        "numEpochs": epochs,
        "lrSchedulers": [
            {
                "type": "MultiStepLR",
                "stepKwargs": {"milestones": [epochs * 0.6, epochs * 0.9]},
                "kwargs": {"gamma": 0.1},
            }
        ],
    }
    if not training_data:
        training["transformsTest"] = [{"type": "Pad", "kwargs": {"padding": 10}}]
        training["transformsTrain"] = [
            {"type": "Pad", "kwargs": {"padding": 14}},
            {"type": "RandomCrop", "kwargs": {"size": 28}},
        ]
    experiment = {
        "network": {"name": "lenet300_100", "dataset": "MNIST" if training_data else "Digits", "outputSize": 10},
        "training": training,
        "retraining": {},
        "experiments": {
            "methods": METHODS,
            "mode": "cascade",
            "numNets": 1,
            "numRepetitions": 1,
            "spacing": [{"type": "manual", "values": RATIOS}],
            "plotting": {"minVal": 0.01, "maxVal": 0.7},
        },
    }
    file = folder / "cascade.yaml"
    file.write_text(yaml.safe_dump(experiment))
    return str(file)


def run(config: str, together: int, folder: str, training_data: str) -> dict[str, Any]:
    """Run an experiment up to its tables; return CPU seconds, in all and of trainings, and metrics on the test data."""
    from luigi_prune.config.loader.experiment_files import load_experiments
    from luigi_prune.execution import inline
    from luigi_prune.jobs import evaluate_job, prune_job, report_job, together_job  # noqa: F401
    from luigi_prune.results.hdf5_file import read_result
    from luigi_prune.workflow.settings import directories_for
    from luigi_prune.workflow.tasks import Report

    settings = luigi.configuration.get_config()
    for section, key, value in (
        ("compute", "backend", "inline"),
        ("compute", "threads", "1"),
        ("compute", "device", "cpu"),
        ("compute", "together", str(together)),
        ("directories", "results", folder),
        *([("directories", "training_data", training_data)] if training_data else []),
    ):
        settings.set(section, key, value)
    trained = 0.0
    original = inline.run_members

    def timed(members: Any, *more: Any) -> None:
        nonlocal trained
        began = time.process_time()
        original(members, *more)
        if members[0].family in ("TrainBase", "Retrain"):
            trained += time.process_time() - began

    inline.run_members = timed
    tables = [Report.of(each, directories_for(each)).tables for each in load_experiments(config)]
    began = time.process_time()
    if not luigi.build(tables, local_scheduler=True, log_level="WARNING"):
        raise SystemExit("the experiment failed")
    found = [read_result(path) for path in Path(folder).rglob("*.h5")]
    accuracies = {
        json.dumps([result.spec, name], sort_keys=True): float(value)
        for result in found
        if result.family == "Evaluate"
        for name, value in result.arrays.items()
        if name.startswith("metrics/")
    }
    return {"all": time.process_time() - began, "trained": trained, "accuracies": accuracies}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--together", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--experiments", nargs="+", default=["digits", "cascade"])
    parser.add_argument("--training-data", default="")
    options = parser.parse_args()
    print(
        "| experiment | together | CPU s | of which trainings | largest difference of a metric |\n"
        "|---|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = str(folder / "data") if options.training_data else ""
        if data:
            cut_mnist(Path(options.training_data), Path(data))
        files = {"digits": "sample/digits.yaml", "cascade": write_cascade(folder, options.epochs, data)}
        for experiment in options.experiments:
            first: dict[str, float] = {}
            for number in range(options.rounds):
                for together in options.together:
                    results = str(folder / f"{experiment}-{together}-{number}")
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        found = pool.apply(run, (files[experiment], together, results, data))
                    first = first or found["accuracies"]
                    different = max((abs(value - first[key]) for key, value in found["accuracies"].items()), default=0)
                    row = (experiment, together, f"{found['all']:.1f}", f"{found['trained']:.1f}", f"{different:.4f}")
                    print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
