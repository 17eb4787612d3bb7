"""What a report costs: `python -m benchmarks.report_building [EVALUATIONS]` (2,500), with made-up results in files.

Prints CPU and wall seconds of `python -m luigi_prune report` and the size of the page: of a whole experiment, of one of
which a fifth of the evaluations is missing, and of three experiments of a third the size each, with their comparison.
To be run in the repository's root, whose luigi.cfg names no folder of results. The files have 22
layers, 180 epochs, two metrics and the classes of 10,000 test samples.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from luigi_prune.commands.plan import reports_of
from luigi_prune.results.hdf5_file import write_result
from tests.synthetic import read

METHODS = ["ThresNet", "SiPPNet", "SnipNet", "UniNet", "FilterThresNet", "PFPNet", "FilterUniNet", "ALDSNet"]
SETS = ["Digits", "Digits_C_Gauss_2", "Digits_C_Blur_1", "Digits_C_Contrast_3"]
NETS, LAYERS, EPOCHS, SAMPLES = 5, 22, 180, 10_000


def main() -> None:
    """Measure."""
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 2500
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        whole = write_experiment(place / "whole", evaluations)
        measure("whole", [whole])
        partial = write_experiment(place / "partial", evaluations, every=5, momentum=0.8)
        measure("a fifth missing", [partial])
        thirds = [write_experiment(place / f"third{at}", evaluations // 3, momentum=0.9 + at / 50) for at in range(3)]
        measure("three experiments", thirds)


def write_experiment(folder: Path, evaluations: int, every: int = 0, momentum: float = 0.9) -> Path:
    """Write an experiment of about so many evaluations and their files, without every so-manieth; return its file."""
    ratios = max(2, round(evaluations / (len(METHODS) * NETS * len(SETS))))
    folder.mkdir()
    file = folder / "experiment.yaml"
    training = {"file": "training/digits/resnet.yaml", "optimizerKwargs": {"lr": 0.1, "momentum": round(momentum, 3)}}
    settings: dict[str, Any] = {
        "network": {"name": "resnet20", "dataset": "Digits"},
        "training": training,
        "retraining": {"startEpoch": 11},
        "directories": {"results": str(folder.parent / "results")},
        "experiments": {
            "methods": METHODS,
            "mode": "retrain",
            "numNets": NETS,
            "numRepetitions": 1,
            "spacing": [{"type": "geometric", "maxVal": 0.8, "minVal": 0.05, "numIntervals": ratios}],
            "datasetTest": SETS,
        },
    }
    file.write_text(yaml.safe_dump(settings))
    (report,) = reports_of(str(file))
    tasks = list({str(task.path): task for task in report.tables.evaluations.values()}.values())
    for number, task in enumerate(tasks):
        if every and number % every == 0 and task.method != "ReferenceNet":
            continue
        arrays, measured = made_up(task.test_set, task.net, task.keep_ratio, task.method)
        write_result(
            task.path, family="Evaluate", key=task.key, spec={}, provenance={}, arrays=arrays, measured=measured
        )
    print(f"{file}: {len(tasks)} evaluations", flush=True)
    return file


def made_up(test_set: str, net: int, ratio: float, method: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and measured numbers of an evaluation."""
    is_reference = method == "ReferenceNet"
    result = read(f"{test_set}/{net}/{method}" if is_reference else f"{test_set}/{net}/{ratio}/0/{method}")
    arrays = dict(result.arrays)
    random = np.random.default_rng(net)
    guess = random.integers(0, 10, SAMPLES, dtype=np.uint8)
    changed = np.random.default_rng(abs(hash((test_set, net, ratio, method))) % 2**32).random(SAMPLES) > ratio**0.05
    arrays["classes/guess"] = np.where(changed & (not is_reference), (guess + 1) % 10, guess).astype(np.uint8)
    arrays["classes/right"], arrays["classes/total"] = np.full(10, 900), np.full(10, 1000)
    arrays |= {"before/TopK1": np.float64(0.3), "before/loss": np.float64(2.0), "samples": np.int64(SAMPLES)}
    arrays |= {"calibration_error": np.float64(random.uniform(0.01, 0.1))}
    arrays["layers/name"] = np.asarray([f"layers.{at}.convolution" for at in range(LAYERS)])
    arrays["layers/total"] = np.full(LAYERS, 10_000)
    arrays["layers/kept"] = np.full(LAYERS, round(10_000 * (1.0 if is_reference else ratio)))
    for name in [name for name in arrays if name.startswith("history/")]:
        values = arrays[name]
        arrays[name] = np.arange(EPOCHS) if name == "history/epoch" else np.resize(values, EPOCHS)
    seconds = {"trainbase_seconds": 900.0} if is_reference else {"prune_seconds": 2.0, "retrain_seconds": 700.0}
    return arrays, {**result.measured, **seconds}


def measure(name: str, files: list[Path]) -> None:
    """Run the command and print its costs."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "luigi_prune", "report", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pages = [line.rpartition(": ")[2] for line in done.stdout.splitlines()]
    for page in pages:
        folder = Path(page).parent
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"  {Path(page).name}: {Path(page).stat().st_size / 1e6:.1f} MB; its folder {total / 1e6:.1f} MB")
    print(f"{name}: {cpu:.0f} s CPU, {wall:.0f} s wall", flush=True)


if __name__ == "__main__":
    main()
