"""Whole experiments on the device through the `luigi` command, into a temporary folder."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from benchmarks.gpu.facts import Facts
from luigi_prune.execution.job import Context, available_cores
from luigi_prune.results.hdf5_file import read_about, read_measured, read_result

JOBS = 8  # at once on one GPU: each is far too small to fill it
TOGETHER = 8  # trainings of one job
LEAST_ACCURACY = 0.9  # of the digits; the experiment's networks reach more in their 15 epochs


def write_settings(folder: Path, device: torch.device, **compute: object) -> None:
    """Write the luigi.cfg of a run: everything it writes lies in `folder`."""
    settings = {"device": device.type, **compute}
    lines = ["[compute]", *(f"{key}={value}" for key, value in settings.items())]
    lines += ["[directories]", f"results={folder / 'results'}"]
    (folder / "luigi.cfg").write_text("\n".join(lines) + "\n")


def start(folder: Path, config: str) -> subprocess.Popen[bytes]:
    """Start the luigi command on a packaged experiment, in a process group of its own."""
    arguments = ["-m", "luigi", "--module", "luigi_prune", "RunExperiment", "--config", config, "--local-scheduler"]
    workspace = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if "deterministic" in (folder / "luigi.cfg").read_text() else {}
    with open(folder / "output", "ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env={**os.environ, **workspace}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def finish(run: subprocess.Popen[bytes], folder: Path, seconds: float) -> str:
    """Wait for a run and return what went wrong, "" if nothing did."""
    try:
        code = run.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        kill(run)
        return f"unfinished after {seconds:.0f} s, {len(list(folder.rglob('*.h5')))} results there"
    if code == 0:
        return ""
    lines = (folder / "output").read_text(errors="replace").strip().splitlines()
    telling = [line for line in lines if "Error" in line or line.startswith("error")]
    return f"ended with {code}: {(telling or lines or ['it printed nothing'])[-1][:250]}"


def kill(run: subprocess.Popen[bytes]) -> None:
    """Kill a run and its processes."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def results(folder: Path) -> dict[str, str]:
    """Return the content hash of every result that is not a table, checked byte by byte."""
    found = {}
    for path in sorted((folder / "results").rglob("*.h5")):
        if path.name != "results.h5":
            read_result(path)
            found[path.relative_to(folder).as_posix()] = read_about(path)["content_sha256"]
    return found


def run_digits(facts: Facts, device: torch.device) -> None:
    """Run sample/digits.yaml with several jobs a GPU; look at the report and at what the results record."""
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        write_settings(folder, device, backend="local", jobs=min(JOBS, available_cores()), together=TOGETHER)
        wrong = finish(start(folder, "sample/digits.yaml"), folder, facts.seconds_left - 8)
        taken = time.monotonic() - began
        reports = list(folder.rglob("report.html"))
        facts.check(
            "the run ends with a report", not wrong and len(reports) == 1, wrong or f"{taken:.0f} s", seconds=taken
        )
        _look_at_results(facts, folder, device)


def _look_at_results(facts: Facts, folder: Path, device: torch.device) -> None:
    paths = [folder / path for path in results(folder)]
    families = Counter(read_about(path)["family"] for path in paths)
    facts.measure("results", ", ".join(f"{count} {family}" for family, count in sorted(families.items())))
    if not paths:
        return
    heavy = [path for path in paths if read_about(path)["family"] in ("TrainBase", "Prune", "Retrain", "Evaluate")]
    devices = Counter(read_about(path)["provenance"]["device"].partition(":")[0] for path in heavy)
    facts.check("every job ran on the device", set(devices) == {device.type}, dict(devices))
    trained = [path for path in paths if read_about(path)["family"] == "TrainBase"]
    best = [float(read_result(path).arrays["history/validation/TopK1"][-1]) for path in trained]
    shown = ", ".join(f"{100 * value:.1f} %" for value in best)
    facts.check("trained networks know the digits", bool(best) and min(best) >= LEAST_ACCURACY, shown)
    lost = [
        path.relative_to(folder / "results").as_posix()
        for path in paths
        if read_about(path)["family"] == "Retrain" and not read_result(path).arrays["history/train_loss"][-1] < 1e9
    ]
    shared = [path for path in paths if read_about(path)["provenance"].get("together")]
    facts.check("trainings shared a process", bool(shared), f"{len(shared)} of {families['Retrain']} retrainings")
    facts.check("retrained networks have a finite loss", not lost, ", ".join(lost) or "all")
    if device.type != "cuda":
        facts.skip("peak GPU memory is recorded", "no GPU")
        return
    for path in heavy[:1] + trained[:1]:
        family = read_about(path)["family"]
        peaks = {name: value for name, value in read_measured(path).items() if _is_gpu_memory(name)}
        value = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in peaks.items())
        facts.check(f"peak GPU memory is recorded by {family}", any(peaks.values()), value or "there is none")


def _is_gpu_memory(name: str) -> bool:
    return "bytes" in name and any(word in name for word in ("gpu", "cuda", "device"))


def run_tiny(facts: Facts, device: torch.device) -> None:
    """Run sample/tiny.yaml inline, and again with a kill after the first result: the same bits."""
    compute: dict[str, object] = {"backend": "inline"}
    deterministic = "deterministic" in {field.name for field in dataclasses.fields(Context)}
    if deterministic:
        compute["deterministic"] = "true"
    else:
        facts.skip("[compute] deterministic=true", "there is no such setting")
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        for folder in (one, other):
            write_settings(Path(folder), device, **compute)
        wrong = finish(start(Path(one), "sample/tiny.yaml"), Path(one), facts.seconds_left - 4)
        undisturbed = results(Path(one))
        facts.check("an inline run ends with a report", not wrong, wrong or f"{len(undisturbed)} results")
        if wrong:
            return
        run = start(Path(other), "sample/tiny.yaml")
        while run.poll() is None and not list(Path(other).rglob("*.h5")) and facts.seconds_left > 8:
            time.sleep(0.01)
        kill(run)
        there = len(results(Path(other)))
        wrong = finish(start(Path(other), "sample/tiny.yaml"), Path(other), facts.seconds_left - 4)
        again = results(Path(other))
        same = sum(undisturbed[path] == again.get(path) for path in undisturbed)
        value = wrong or f"killed with {there} results; {same} of {len(undisturbed)} have the same bits"
        name = "a run that was killed and run again"
        if not wrong and same < len(undisturbed) and device.type == "cuda" and not deterministic:
            facts.measure(name, value)
        else:
            facts.check(name, not wrong and same == len(undisturbed) == len(again), value)
