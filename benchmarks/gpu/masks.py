"""Every method prunes on the device what it prunes on the CPU."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.gpu.facts import Facts
from benchmarks.gpu.subjects import LOSS, NETWORKS, calibration, full_precision, pruning_methods, synchronise
from luigi_prune import api
from luigi_prune.compute.pruning.low_rank import spectra
from luigi_prune.registry import MethodRow

CPU = torch.device("cpu")
LEAST_AGREEMENT = 0.999  # of the entries of all masks; the rest are near-ties that rounding decides
SAMPLES = 64


@dataclass(frozen=True)
class Comparison:
    """How a result on a device agrees with the CPU's."""

    agreement: float  # fraction of equal mask entries, or of layers with the same decomposition
    differing: list[str]  # names of layers whose decomposition differs
    strays: list[str]  # what does not live on the device
    cpu_seconds: float
    device_seconds: float


def prune(network: nn.Module, method: str, device: torch.device, samples: int = SAMPLES) -> tuple[api.Pruned, float]:
    """Return the network pruned to a half on `device`, and the seconds that it took."""
    spectra.clear_cache()
    network = network.to(device)
    batches = calibration(device, samples)
    synchronise(device)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pruned = api.prune(network, method, keep_ratio=0.5, calibration=batches, loss=LOSS)
    synchronise(device)
    return pruned, time.perf_counter() - began


def compare(method: MethodRow, network: str, device: torch.device) -> Comparison:
    """Prune on the CPU and on `device`."""
    ours, cpu_seconds = prune(NETWORKS[network](), method.name, CPU)
    theirs, seconds = prune(NETWORKS[network](), method.name, device)
    agreement, differing = _agreement(ours, theirs)
    return Comparison(agreement, differing, strays(theirs, device), cpu_seconds, seconds)


def _agreement(ours: api.Pruned, theirs: api.Pruned) -> tuple[float, list[str]]:
    if ours.structure or theirs.structure:
        pairs = list(zip(ours.layers, theirs.layers, strict=True))
        differing = [
            f"{a.name} (rank {a.rank}, groups {a.groups} on the CPU, {b.rank}, {b.groups} on the device)"
            for a, b in pairs
            if (a.rank, a.groups, a.folding) != (b.rank, b.groups, b.folding)
        ]
        return 1 - len(differing) / len(pairs), differing
    same = total = 0
    for name, parameter in ours.network.named_parameters():
        kept = [
            pruned.masks[name].cpu() if name in pruned.masks else torch.ones_like(parameter, dtype=torch.bool)
            for pruned in (ours, theirs)
        ]
        same += int((kept[0] == kept[1]).sum())
        total += kept[0].numel()
    return same / total, []


def strays(pruned: api.Pruned, device: torch.device) -> list[str]:
    """Return the names of the result's tensors that do not live on `device`."""
    tensors = {**pruned.network.state_dict(), **{f"mask of {name}": mask for name, mask in pruned.masks.items()}}
    tensors |= {f"mask of layer {layer.name}": layer.mask for layer in pruned.layers if layer.mask is not None}
    return [name for name, tensor in tensors.items() if tensor.device.type != device.type]


def report(facts: Facts, name: str, method: MethodRow, found: Comparison) -> None:
    """Report a comparison: with a verdict for what rounding alone can change."""
    what = "layers have the same decomposition" if method.granularity == "rank" else "of the masks equal"
    value = f"{100 * found.agreement:.3f} % {what}; {found.cpu_seconds:.3f} s on the CPU, {found.device_seconds:.3f} s"
    if found.differing:
        value += f"; differ: {', '.join(found.differing[:3])}"
    numbers = {
        "agreement": found.agreement, "cpu_seconds": found.cpu_seconds, "device_seconds": found.device_seconds,
    }  # fmt: skip
    if method.randomised:
        facts.measure(name, value, **numbers)
    else:
        facts.check(name, agrees(method, found), value, **numbers)
    if found.strays:
        facts.check(f"{name} lives on the device", False, f"{len(found.strays)} do not: {', '.join(found.strays[:3])}")


def agrees(method: MethodRow, found: Comparison) -> bool:
    """Return whether a method's results are the same apart from near-ties; all ranks have to be the same."""
    return found.agreement >= (1.0 if method.granularity == "rank" else LEAST_AGREEMENT)


def run(facts: Facts, device: torch.device) -> None:
    """Compare all methods on two networks; then those that read data in torch's default precision (TF32)."""
    prune(NETWORKS["conv"](), "SiPPNet", device)  # loads the kernels, so that no method's seconds hold that
    with full_precision():
        for network in NETWORKS:
            for method in pruning_methods():
                name = f"{network} {method.name}"
                with facts.attempt(name):
                    report(facts, name, method, compare(method, network, device))
    if device.type != "cuda":
        facts.skip("conv, torch's default precision", "CUDA only")
        return
    for method in pruning_methods():
        if method.needs_data and not method.randomised:
            with facts.attempt(f"conv {method.name}, torch's default precision"):
                found = compare(method, "conv", device)
                value = f"{100 * found.agreement:.3f} %"
                facts.measure(f"conv {method.name}, torch's default precision", value, agreement=found.agreement)
