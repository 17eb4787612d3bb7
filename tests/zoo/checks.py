"""What must hold when a method prunes a network: one function per check, and `examine`, which runs them for a pair."""

from __future__ import annotations

import copy
import gc
import tempfile
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune import api
from luigi_prune.compute.network_inputs import call, tensors_in, tensors_of
from luigi_prune.compute.pruning.engine.pruning_result import CONSTANT, REDRAWN, UNTRAINED
from luigi_prune.errors import LuigiPruneError
from luigi_prune.registry import METHODS
from tests.zoo.networks import Specimen, loss_of

RATIO = 0.5
TOLERANCE = 0.005  # relative; a larger difference takes a warning
# Relative; outputs for two samples that differ by less are the same. Half of what causes the warning, which depends on
# other samples.
ROUNDING = 5e-7
NEARLY = 1e-3  # likewise; they are nearly the same


@dataclass(frozen=True)
class Subject:
    """A pruned network, with what it was made from."""

    specimen: Specimen
    original: nn.Module
    pruned: api.Pruned
    example: Any

    def outputs(self, network: nn.Module, example: Any = None) -> list[Tensor]:
        """Return all tensors of the network's output in evaluation mode, of a copy of it."""
        network = copy.deepcopy(network).eval()
        with torch.no_grad():
            return tensors_in(call(network, copy.deepcopy(self.example if example is None else example)))


@dataclass
class Finding:
    """What came of one network under one method: a refusal, or warnings and the results of the checks.

    `failures` and `impossible`: the reason by the name of the check.
    """

    refusal: str = ""
    keep_ratio: float = 1.0
    warnings: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)


class Impossible(Exception):
    """The unpruned network does not pass the check either."""


def examine(specimen: Specimen, method: str, checks: Collection[str]) -> Finding:
    """Prune a network of the zoo by `method`, and run the checks of these names on the result."""
    finding = Finding()
    network = specimen.network()
    before, state = fingerprint(network), torch.get_rng_state()
    try:
        pruned = prune(specimen, network, method)
    except LuigiPruneError as error:
        finding.refusal = str(error)
        if "\n" in finding.refusal:
            finding.failures["runs"] = "the refusal has several lines"
        return finding
    except Exception as error:
        finding.failures["runs"] = reason(error)
        return finding
    finding.warnings, finding.keep_ratio = pruned.warnings, pruned.keep_ratio
    finding.passed.append("runs")
    if "input" in checks:
        changed = differences(before, fingerprint(network))
        if not torch.equal(state, torch.get_rng_state()):
            changed.append("the global random generator")
        _note(finding, "input", f"changed: {', '.join(changed)}" if changed else "")
    subject = Subject(specimen, network, pruned, specimen.batches()[0][0])
    for name in (name for name in CHECKS if name in checks):
        try:
            _note(finding, name, CHECKS[name](subject) or "")
        except Impossible as error:
            finding.impossible[name] = str(error)
        except Exception as error:
            _note(finding, name, reason(error))
    if "memory" in checks:
        del subject, pruned
        _note(finding, "memory", growth(lambda: prune(specimen, network, method)))
    return finding


def _note(finding: Finding, check: str, failure: str) -> None:
    """Enter the result of a check."""
    if failure:
        finding.failures[check] = failure
    else:
        finding.passed.append(check)


def prune(specimen: Specimen, network: nn.Module, method: str, ratio: float = RATIO) -> api.Pruned:
    """Return the network pruned as all checks do; its warnings are in the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return api.prune(network, method, ratio, calibration=specimen.batches(), loss=loss_of)


def reason(error: BaseException) -> str:
    """Return the type and the first line of an exception."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no text'])[0]}"


def fingerprint(network: nn.Module) -> dict[str, Any]:
    """Return everything about a network that pruning must not change."""
    facts: dict[str, Any] = {f"weights of {name}": value.clone() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        facts[f"parameter {name}"] = (id(parameter), parameter.requires_grad, parameter.grad is None)
    for name, module in network.named_modules():
        hooks = [key for key, value in vars(module).items() if "hook" in key and value]
        facts[f"module {name}"] = (id(module), module.training, hooks)
    return facts


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of the facts in which two fingerprints differ."""

    def equal(left: Any, right: Any) -> bool:
        return torch.equal(left, right) if isinstance(left, Tensor) and isinstance(right, Tensor) else left == right

    return [name for name in one | other if name not in one or name not in other or not equal(one[name], other[name])]


def close(one: list[Tensor], other: list[Tensor], tolerance: float = 0.0) -> str:
    """Return how the outputs of two networks differ; "" if by at most `tolerance` relative to the largest number."""
    if [value.shape for value in one] != [value.shape for value in other]:
        return f"{len(other)} outputs of other shapes"
    for left, right in zip(one, other, strict=True):
        limit = tolerance * max(1.0, float(left.abs().max()))
        if not bool(((left - right).abs() <= limit).all()):  # NaN, too
            return f"the output differs by {float((left - right).abs().max()):.2g}"
    return ""


def growth(run: Callable[[], object]) -> str:
    """Return by how many live tensors each of two runs exceeds the one before it; "" if one of them does not.

    A cache may hold more after a second run, but what is never released grows with every run.
    """
    counts = []
    for _ in range(3):
        run()
        counts.append(live_tensors())
        if len(counts) > 1 and counts[-1] <= counts[-2]:
            return ""
    return f"{counts[1] - counts[0]} and {counts[2] - counts[1]} more tensors after another prune"


def live_tensors() -> int:
    """Return the number of tensors that the garbage collector tracks."""
    gc.collect()
    return sum(issubclass(type(each), Tensor) for each in gc.get_objects())


# ------------------------------------------------------------------------------------------------------------- checks


def check_ratio(subject: Subject) -> str | None:
    """The size is that of the network, and the ratio is met, or a warning has both numbers."""
    pruned = subject.pruned
    if METHODS[pruned.method].granularity == "none":
        return None  # controls report the size that they would have
    removed = sum(int((~mask).sum()) for mask in pruned.masks.values())
    size = sum(parameter.numel() for parameter in pruned.network.parameters()) - removed
    if size != pruned.size:
        return f"the network has {size} parameters, the record has {pruned.size}"
    if abs(pruned.keep_ratio - RATIO) <= TOLERANCE * RATIO or any("closest" in text for text in pruned.warnings):
        return None
    return f"keep ratio {pruned.keep_ratio:.4f} without a warning"


def check_alive(subject: Subject) -> str | None:
    """The output is finite, and depends on the input by more than rounding if it did before, or a warning tells.

    A warning that it is the freshly drawn weights, and not pruning, holds for the network drawn without pruning, too.
    """
    outputs = subject.outputs(subject.pruned.network)
    if not all(bool(value.isfinite().all()) for value in outputs):
        return "the output is not finite"
    text = " ".join(subject.pruned.warnings)
    if UNTRAINED in text:
        whole = prune(subject.specimen, subject.original, subject.pruned.method, 1.0)
        return "a wrong warning of fresh weights" if variation(subject.outputs(whole.network)) > NEARLY else None
    dead = variation(subject.outputs(subject.original)) > ROUNDING >= variation(outputs)
    return "the output is the same for all samples" if dead and not (CONSTANT in text or REDRAWN in text) else None


def variation(outputs: list[Tensor]) -> float:
    """Return by how much outputs of samples differ from the first one's, relative to the largest, at most."""
    pairs = [(float((value - value[:1]).abs().max()), float(value.abs().max())) for value in outputs]
    return max((difference / largest for difference, largest in pairs if largest), default=0.0)


def check_everything(subject: Subject) -> str | None:
    """At ratio 1 nothing is removed, and outputs stay, unless the method draws weights anew."""
    whole = prune(subject.specimen, subject.original, subject.pruned.method, 1.0)
    redrawn = METHODS[subject.pruned.method].reinitialised
    changed = "" if redrawn else close(subject.outputs(subject.original), subject.outputs(whole.network))
    return changed or ("entries are removed" if whole.masks or whole.structure else None)


def check_trains(subject: Subject) -> str | None:
    """Two steps of training change weights, and leave pruned ones at zero."""
    network = copy.deepcopy(subject.pruned.network).train()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    for inputs, targets in subject.specimen.batches():
        optimizer.zero_grad()
        loss = loss_of(call(network, inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = dict(network.named_parameters())
    if not bool(loss.isfinite()):
        return "the loss is not finite"
    if any(bool(after[name][~mask].any()) for name, mask in subject.pruned.masks.items()):
        return "pruned entries are not zero any more"
    return "no weight changed" if all(torch.equal(before[name], after[name]) for name in after) else None


def check_copy(subject: Subject) -> str | None:
    """A copy computes the same, and training the copy does not change the network."""
    copied = copy.deepcopy(subject.pruned.network)
    wrong = close(subject.outputs(subject.pruned.network), subject.outputs(copied))
    shared = {id(value) for value in copied.parameters()} & {id(value) for value in subject.pruned.network.parameters()}
    return wrong or ("it shares parameters" if shared else None)


def check_state_dict(subject: Subject) -> str | None:
    """The state dict fits a network of the same structure: the unpruned one, unless layers were decomposed."""
    pruned = subject.pruned
    fresh = copy.deepcopy(pruned.network) if pruned.structure else subject.specimen.network()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(1)
    fresh.load_state_dict(pruned.network.state_dict())
    return close(subject.outputs(pruned.network), subject.outputs(fresh))


def check_file(subject: Subject) -> str | None:
    """A saved network comes back with the same outputs, masks and sizes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.h5"
        subject.pruned.save(path)
        loaded = api.load(path, subject.specimen.network())
    if differences({**loaded.masks, "size": loaded.size}, {**subject.pruned.masks, "size": subject.pruned.size}):
        return "masks or sizes differ"
    return close(subject.outputs(subject.pruned.network), subject.outputs(loaded.network))


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs as the positional and named arguments of a call."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    return ((), inputs) if isinstance(inputs, dict) else (tuple(inputs), {})


def by_export(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return the outputs of the program that torch.export makes of `network`."""
    positional, named = arguments(inputs)
    with torch.no_grad():
        return tensors_in(torch.export.export(network, positional, named).module()(*positional, **named))


def by_onnx(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return the outputs that onnxruntime computes for `network`."""
    import onnxruntime

    positional, named = arguments(inputs)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "pruned.onnx")
        torch.onnx.export(network, positional, path, kwargs=named, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        values = dict(zip(names, [value.numpy() for value in tensors_of(inputs)], strict=True))
        return [torch.from_numpy(value) for value in session.run(None, values)]


def _same_by(run: Callable[[nn.Module, Any], list[Tensor]], subject: Subject) -> str | None:
    """Return how the outputs of another way to run the network differ; raise Impossible if the original fails, too."""
    try:
        found = run(copy.deepcopy(subject.pruned.network).eval(), subject.example)
    except Exception:
        try:
            run(copy.deepcopy(subject.original).eval(), subject.example)
        except Exception as error:
            raise Impossible(reason(error)) from error
        raise
    return close(subject.outputs(subject.pruned.network), found, 1e-4)


def check_export(subject: Subject) -> str | None:
    """torch.export takes it, and the exported program computes the same."""
    return _same_by(by_export, subject)


def check_onnx(subject: Subject) -> str | None:
    """ONNX export takes it, and another runtime computes the same."""
    return _same_by(by_onnx, subject)


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "ratio": check_ratio,
    "alive": check_alive,
    "ratio 1": check_everything,
    "trains": check_trains,
    "deepcopy": check_copy,
    "state dict": check_state_dict,
    "file": check_file,
    "torch.export": check_export,
    "ONNX": check_onnx,
}
EXPORTS = ("torch.export", "ONNX")
QUICK = ("input", *(name for name in CHECKS if name not in EXPORTS), "memory")
