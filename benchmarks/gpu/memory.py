"""Out of memory is one line that names the method or stage, the batch and the cure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from benchmarks.gpu.backends import carry
from benchmarks.gpu.facts import Facts, one_line
from benchmarks.gpu.masks import prune
from benchmarks.gpu.subjects import LOSS, calibration, conv_net
from luigi_prune import api
from luigi_prune.config.loader.experiment_files import load_experiments
from luigi_prune.errors import LuigiPruneError
from luigi_prune.execution.job import ComputeSettings, Job
from luigi_prune.workflow.job_task import walk
from luigi_prune.workflow.settings import directories_for
from luigi_prune.workflow.tasks import Report

BATCH = 4096  # of 3x32x32: the first convolution's outputs alone take 256 MiB
LITTLE = 16  # MiB; methods split the batch, and then less than its activations is enough
CURES = ("smaller", "fewer", "reduce", "lower", "another device", "device=cpu")


@contextmanager
def little_memory(device: torch.device, mebibytes: int) -> Iterator[None]:
    """Let this process allocate so much more than it holds now."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + mebibytes * 2**20) / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()


def shortcomings(message: str, named: str, batch: int) -> list[str]:
    """Return what a message about memory lacks."""
    return [
        *(["one line"] if len(message.strip().splitlines()) != 1 else []),
        *([f"the name {named}"] if named.lower() not in message.lower() else []),
        *([f"the batch size {batch}"] if str(batch) not in message else []),
        *(["a cure"] if not any(cure in message.lower() for cure in CURES) else []),
    ]


def check_message(facts: Facts, name: str, message: str, named: str, batch: int) -> None:
    """Report a message, and what it lacks."""
    lacks = shortcomings(message, named, batch)
    last = message.strip().splitlines()[-1][:250] if message.strip() else "no message"
    facts.check(name, not lacks, f"{last}{' [lacks ' + ', '.join(lacks) + ']' if lacks else ''}")


def prune_out_of_memory(method: str, device: torch.device) -> str:
    """Return what `api.prune` says if its calibration batch does not fit; raises what is no error of ours."""
    network, batches = conv_net().to(device), calibration(device, BATCH, batch=BATCH)
    with little_memory(device, LITTLE):
        try:
            api.prune(network, method, keep_ratio=0.5, calibration=batches, loss=LOSS)
        except LuigiPruneError as error:
            return str(error)
    raise RuntimeError("the batch fitted into the memory that was left")


def training_job(folder: Path, batch_size: int) -> Job:
    """Return the TrainBase job of a small experiment whose batches are large."""
    file = folder / "large.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "network": {"name": "resnet20", "dataset": "Digits"},
                "training": {"file": "training/digits/resnet.yaml", "batchSize": batch_size},
                "experiments": {
                    "methods": ["ThresNet"],
                    "mode": "cascade",
                    "spacing": [{"type": "manual", "values": [0.5]}],
                },
                "directories": {"results": str(folder / "results")},
            }
        )
    )
    (experiment,) = load_experiments(str(file))
    tasks = walk(Report.of(experiment, directories_for(experiment)))
    return next(task for task in tasks if task.task_family == "TrainBase").job()  # type: ignore[attr-defined]


def run(facts: Facts, device: torch.device) -> None:
    """Run out of memory in pruning and in a training job, and go on afterwards."""
    if device.type != "cuda":
        with facts.attempt("the job that would run out of memory"), tempfile.TemporaryDirectory() as name:
            job = training_job(Path(name), 1000)
            facts.check("the job that would run out of memory", job.family == "TrainBase", job.name)
        facts.skip("out of memory", "CUDA only")
        return
    prune(conv_net(), "SiPPNet", device, 4)  # kernels and workspaces are loaded before memory is short
    for method in ("SiPPNet", "PFPNet", "PCANet"):
        with facts.attempt(f"api.prune, {method}"):
            check_message(facts, f"api.prune, {method}", prune_out_of_memory(method, device), method, BATCH)
    with facts.attempt("pruning goes on afterwards"):
        pruned, _ = prune(conv_net(), "SiPPNet", device, 4)
        facts.check("pruning goes on afterwards", abs(pruned.keep_ratio - 0.5) < 0.01, f"kept {pruned.keep_ratio:.3f}")
    with facts.attempt("a training job"), tempfile.TemporaryDirectory() as name:
        job = training_job(Path(name), 1000)
        with little_memory(device, LITTLE):
            settings = ComputeSettings(backend="inline", device="cuda")
            (outcome,) = carry(settings, [job], facts.seconds_left)
        if outcome.status != "failed":
            raise RuntimeError(f"the job ended as {outcome.status}: {one_line(RuntimeError(outcome.message))}")
        check_message(facts, "a training job", outcome.message, "train", 1000)
        facts.check("a training job is not tried again", not outcome.retry, f"retry={outcome.retry}")
