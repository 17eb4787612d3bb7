"""What zeros mean for a network, found without tracing it: run it with other numbers at the same places.

A copy of the network gets random *positive* numbers wherever a parameter is not removed, and random positive inputs.
Sums of positive numbers cannot cancel, so a channel is exactly zero in the copy if and only if nothing that was not
removed feeds it, and the gradient of a positive sum of the outputs is exactly zero if and only if the channel feeds
nothing. The answer holds for every weight and every input, not for some calibration data. Rows are scaled to sum 1, so
that depth neither overflows nor underflows; activations that go flat (ReLU, its clipped relatives, rounding) get 0.3 x
added, which leaves zeros zero and constants constant but lets every gradient through. Samples differ in brightness, so
a channel that is equal over all samples and positions is structurally constant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.overrides import TorchFunctionMode

from luigi_prune.compute.pruning.layers import READERS, tensors_in
from luigi_prune.compute.pruning.masks import Masks

SAME = 1e-5  # relative spread below which numbers are equal but for float rounding; others differ by over 1e-3
LEAK = 0.3
FLAT = {
    "relu",
    "relu_",
    "relu6",
    "hardtanh",
    "hardtanh_",
    "hardswish",
    "hardsigmoid",
    "clamp",
    "clamp_",
    "clamp_min",
} | {
    *("clamp_min_", "clamp_max", "clamp_max_", "threshold", "threshold_", "softshrink", "hardshrink", "clip", "clip_"),
    *("round", "round_", "floor", "floor_", "ceil", "ceil_", "sign", "sign_", "maximum", "minimum", "trunc"),
}


class _Leaky(TorchFunctionMode):
    """Add 0.3 x to functions that have flat parts, and let gradients through `detach`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in FLAT and args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            value = args[0]
            return func(value.clone(), *args[1:], **(kwargs or {})) + LEAK * value
        if name in ("detach", "detach_"):
            return args[0]
        return func(*args, **(kwargs or {}))


@dataclass
class Structure:
    """What one run found. Keys are module names; vectors run over a module's input or output channels."""

    zero_inputs: dict[str, Tensor] = field(default_factory=dict)  # exactly zero in every call
    constant_inputs: dict[str, Tensor] = field(
        default_factory=dict
    )  # one number per call, over all samples and positions
    reaching: dict[str, Tensor] = field(default_factory=dict)  # output channels that the network's output depends on
    linked: dict[str, Tensor] = field(
        default_factory=dict
    )  # (filters, channels): not zero at one end, reaching at other
    calls: dict[str, int] = field(default_factory=dict)
    silenced: dict[str, Tensor] = field(default_factory=dict)  # BatchNorm channels that read only what was cut
    normalised_by: dict[str, str] = field(default_factory=dict)  # module -> the BatchNorm that alone reads it


def is_norm(module: nn.Module) -> bool:
    """Return whether `module` scales and shifts channel by channel with parameters of its own."""
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
        return False
    known = isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm))
    return known and isinstance(module._parameters.get("weight"), nn.Parameter)


def is_reader(module: nn.Module) -> bool:
    """Return whether `module` is a linear map from input to output channels with a weight of its own."""
    return isinstance(module, READERS) and isinstance(module._parameters.get("weight"), nn.Parameter)


def channels_last(module: nn.Module, value: Tensor) -> Tensor:
    """Return `value`, an input or output of `module`, as (samples and positions, channels)."""
    if isinstance(module, (nn.Linear, nn.LayerNorm)):
        return value.reshape(-1, value.shape[-1])
    spatial = len(module.kernel_size) if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) else value.dim() - 2
    axis = value.dim() - 1 - spatial
    return value.movedim(axis, -1).reshape(-1, value.shape[axis])


def spread_columns(module: nn.Module, channels: Tensor) -> Tensor:
    """Return a vector over a reader's input channels laid out as its weight's rows and columns, groups respected."""
    groups = getattr(module, "groups", 1)
    weight = module.weight
    assert isinstance(weight, Tensor)
    per_group = channels.view(groups, -1)
    return per_group.repeat_interleave(weight.shape[0] // groups, dim=0)


class StructureProbe:
    """The copy with other numbers, and what it finds for given masks."""

    def __init__(self, network: nn.Module, example_input: Tensor, *, samples: int = 2) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(True)
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in self.network.parameters()):
            self.network.float()  # half precision could not tell nearly equal from equal
            example_input = example_input.float() if example_input.is_floating_point() else example_input
        self._generator = torch.Generator().manual_seed(0x5EED)
        self._modules = {n: m for n, m in self.network.named_modules() if is_reader(m) or is_norm(m)}
        self._bare_norms = {
            n: m for n, m in self.network.named_modules() if isinstance(m, _BatchNorm) and not is_norm(m)
        }
        self._input = self._random_input(example_input, samples)
        self._values = self._random_parameters()
        self._projections: list[Tensor] = []
        self.can_see_constants = self._input.is_floating_point() or example_input.shape[0] > 1
        everything = {name: torch.ones_like(p, dtype=torch.bool) for name, p in self.network.named_parameters()}
        baseline = self.observe(everything, silence=False)
        self._first_zero = baseline.zero_inputs
        self._shared = {name for name, calls in baseline.calls.items() if calls > 1} | self._tied()
        self.normalised_by = baseline.normalised_by

    def _tied(self) -> set[str]:
        """Return the names of modules whose parameters other modules use as well."""
        owners: dict[int, set[str]] = {}
        for name, module in self.network.named_modules():
            for parameter in module._parameters.values():
                owners.setdefault(id(parameter), set()).add(name)
        none = id(None)
        return {name for key, names in owners.items() if key != none and len(names) > 1 for name in names}

    def _uniform(self, like: Tensor, low: float, high: float) -> Tensor:
        numbers = torch.rand(like.shape, generator=self._generator, dtype=torch.float32)
        return (low + (high - low) * numbers).to(like)

    def _random_input(self, example: Tensor, samples: int) -> Tensor:
        if not example.is_floating_point():
            return example[: max(samples, 2)].clone()
        like = example.new_empty((samples, *example.shape[1:]))
        brightness = torch.linspace(1.0, 0.4, samples).to(like).view(-1, *[1] * (like.dim() - 1))
        return self._uniform(like, 0.2, 1.0) * brightness

    def _random_parameters(self) -> dict[str, Tensor]:
        ranges: dict[int, tuple[float, float]] = {}
        for module in self._modules.values():
            # Outputs of normalisations by sample have both signs: a large shift makes them positive.
            by_sample = is_norm(module) and not isinstance(module, _BatchNorm)
            shift = (2.0, 3.0) if by_sample else (0.05, 0.15)
            ranges[id(module.weight)] = (0.1, 0.2) if by_sample else (0.5, 1.5) if is_reader(module) else (0.5, 1.0)
            ranges[id(module.bias)] = shift
        for module in self.network.modules():
            if isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor):
                module.running_mean.copy_(self._uniform(module.running_mean, -0.1, 0.0))
            if isinstance(module, _BatchNorm) and isinstance(module.running_var, Tensor):
                module.running_var.copy_(self._uniform(module.running_var, 0.8, 1.2))
        parameters = self.network.named_parameters()
        return {name: self._uniform(p.detach(), *ranges.get(id(p), (0.5, 1.5))) for name, p in parameters}

    @torch.no_grad()
    def _fill(self, masks: Masks) -> None:
        """Put random numbers where `masks` keep; the rows of linear maps sum to 1."""
        rows = {id(module.weight) for module in self._modules.values() if is_reader(module)}
        for name, parameter in self.network.named_parameters():
            value = self._values[name] * masks[name].to(self._values[name].dtype)
            if id(parameter) in rows:
                sums = value.flatten(1).sum(1).clamp_min(1e-20)
                value /= sums.view(-1, *[1] * (value.dim() - 1))
            parameter.copy_(value)

    def observe(self, masks: Masks, *, silence: bool) -> Structure:
        """Return what the masks make of the network.

        `silence`: a BatchNorm channel whose input has become zero, because all it reads was cut, is cut with it.
        """
        self._fill(masks)
        found = Structure()
        taps = _Taps(self, found, silence)
        with ExitStack() as stack, torch.enable_grad():
            for name, module in {**self._modules, **self._bare_norms}.items():
                stack.callback(module.register_forward_pre_hook(taps.before(name)).remove)
                stack.callback(module.register_forward_hook(taps.after(name)).remove)
            with _Leaky():
                outputs = [out for out in tensors_in(self.network(self._input.clone())) if out.requires_grad]
            if not outputs:
                taps.everything_reaches()
                return found
            if not self._projections:
                self._projections = [self._uniform(out.detach(), 0.5, 1.5) for out in outputs]
            total = sum((out * p).sum() for out, p in zip(outputs, self._projections, strict=True))
            assert isinstance(total, Tensor)
            if taps.watched:  # gradients of activations only: the hooks do the rest
                torch.autograd.grad(total, taps.watched, allow_unused=True)
        taps.find_sole_readers()
        return found


class _Taps:
    """The hooks of one run: they fill a `Structure` while the network computes forward and backward."""

    def __init__(self, probe: StructureProbe, found: Structure, silence: bool) -> None:
        self.found, self.silence = found, silence
        self.modules = {**probe._modules, **probe._bare_norms}
        self._first_zero: dict[str, Tensor] = getattr(probe, "_first_zero", {})
        self._shared: set[str] = getattr(probe, "_shared", set())
        self.watched: list[Tensor] = []
        self._alive_inputs: dict[str, Tensor] = {}
        self._latest: dict[int, tuple[str, Tensor]] = {}  # outputs of readers by identity, to see what reads them
        self._pairs: dict[str, str] = {}
        self._gradients: dict[str, Tensor] = {}

    def before(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            value = inputs[0]
            rows = channels_last(module, value.detach())
            largest, smallest = rows.amax(0), rows.amin(0)
            zero = (largest == 0) & (smallest == 0)
            size = torch.maximum(largest.abs(), smallest.abs())
            constant = (largest - smallest) <= SAME * size
            found = self.found
            found.zero_inputs[name] = found.zero_inputs.get(name, zero) & zero
            found.constant_inputs[name] = found.constant_inputs.get(name, constant) & constant
            found.calls[name] = found.calls.get(name, 0) + 1
            self._alive_inputs[name] = ~zero
            if isinstance(module, _BatchNorm):
                return self._before_norm(name, module, value, zero, inputs)
            return None

        return hook

    @torch.no_grad()
    def _silence(self, name: str, module: _BatchNorm, zero: Tensor) -> None:
        gone = zero & ~self._first_zero.get(name, torch.zeros_like(zero))
        self.found.silenced[name] = gone
        for tensor in (module.weight, module.bias, module.running_mean):
            if isinstance(tensor, Tensor):
                tensor.data.masked_fill_(gone, 0)

    def _before_norm(self, name: str, module: _BatchNorm, value: Tensor, zero: Tensor, inputs: tuple[Any, ...]) -> Any:
        if self.silence and name not in self._shared:
            self._silence(name, module, zero)
        source = self._latest.get(id(value))
        if source is None or source[1] is not value or not value.requires_grad:
            return None
        self._pairs[source[0]] = name
        seen = value.view_as(value)
        seen.register_hook(lambda gradient: self._gradients.__setitem__(f"in {name}", gradient))
        return (seen, *inputs[1:])

    def after(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Any:
            rows, columns = self._shape(name)
            found = self.found
            found.reaching.setdefault(name, torch.zeros(rows, dtype=torch.bool, device=output.device))
            linked = found.linked.setdefault(name, torch.zeros(rows, columns, dtype=torch.bool, device=output.device))
            if not output.requires_grad:
                found.reaching[name][:] = True
                linked[:] = True
                return None
            if is_reader(module):
                alive = spread_columns(module, self._alive_inputs[name])
                self._latest[id(output)] = (name, output)
            else:
                alive = torch.ones_like(linked)

            def collect(gradient: Tensor) -> None:
                reaches = (channels_last(module, gradient) != 0).any(0)
                found.reaching[name] |= reaches
                found.linked[name] |= reaches[:, None] & alive
                if is_reader(module):
                    self._gradients[f"out {name}"] = gradient

            output.register_hook(collect)
            self.watched.append(output)
            return None

        return hook

    def _shape(self, name: str) -> tuple[int, int]:
        module = self.modules[name]
        if is_reader(module):
            return int(module.weight.shape[0]), int(module.weight.shape[1])
        return int(getattr(module, "num_features", 0) or module.weight.shape[0]), 1

    def everything_reaches(self) -> None:
        """Say of every channel that the output may depend on it: there is no gradient to tell."""
        for name in self.found.calls:
            rows, columns = self._shape(name)
            self.found.reaching[name] = torch.ones(rows, dtype=torch.bool)
            self.found.linked[name] = torch.ones(rows, columns, dtype=torch.bool)

    def find_sole_readers(self) -> None:
        """Note each BatchNorm through which the whole gradient of a layer's output comes: nothing else reads it."""
        for layer, norm in self._pairs.items():
            whole, through = self._gradients.get(f"out {layer}"), self._gradients.get(f"in {norm}")
            once = self.found.calls[layer] == 1 and self.found.calls[norm] == 1
            if once and whole is not None and through is not None and torch.equal(whole, through):
                self.found.normalised_by[layer] = norm
