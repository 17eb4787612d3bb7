"""The effect of zeros on a network, found without tracing: by running it with other numbers at the same positions.

A copy of the network gets random *positive* numbers for all parameters that are not pruned, and random positive inputs.
Sums of positive numbers cannot cancel, so a channel is exactly zero in the copy if and only if no remaining parameter
feeds it, and the gradient of a positive sum of the outputs is exactly zero if and only if the channel feeds nothing.
The result holds for all weights and inputs, not only for calibration data. Numbers are scaled at every layer, so that
they neither overflow nor underflow at any depth; functions with flat parts (ReLU, clipping, rounding, sigmoid) get a
term added that keeps zeros zero and constants constant but lets every gradient through. Samples differ in brightness,
so a channel that is equal over all samples and positions is structurally constant. A module that takes long with random
numbers, such as an adaptive solver, may have a method `simplify_for_probe`, which the copy calls: channels must depend
on each other as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from luigi_prune.compute.copied_modules import copy_all
from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.network_inputs import Inputs, call_on_copy, map_tensors, sample_count, tensors_in
from luigi_prune.compute.pruning.problem.call_hooks import after_calls, before_calls
from luigi_prune.compute.pruning.problem.free_inputs import free_inputs, other_mask
from luigi_prune.compute.pruning.problem.masks import Masks
from luigi_prune.compute.pruning.structure.channel_hooks import Structure, is_norm, is_reader
from luigi_prune.compute.pruning.structure.remembered_baselines import compressed, key_of, recall, remember
from luigi_prune.compute.pruning.structure.taps import Taps
from luigi_prune.compute.zeros import to_numbers

LEAK = 0.3
_RELU = ("relu", "relu_")  # one operation instead of three
_CLIPPING = (
    *("relu6", "hardtanh", "hardtanh_", "hardswish", "threshold", "threshold_", "softshrink"),
    *("hardshrink", "clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_", "clip", "clip_"),
    *("maximum", "minimum", "round", "round_", "floor", "floor_", "ceil", "ceil_", "sign", "sign_", "trunc"),
)
_DROPOUT = (
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    *("dropout_", "alpha_dropout_", "feature_dropout", "feature_dropout_", "feature_alpha_dropout_"),
)  # of networks that drop in evaluation mode, too: by chance, a channel would be zero in every sample
_SQUASHING = ("sigmoid", "sigmoid_", "hardsigmoid", "tanh", "tanh_", "softmax", "log_softmax", "erf")


class _Leaky(TorchFunctionMode):
    """Let gradients through functions with flat parts, and through `detach`, and drop nothing.

    Clipping functions get 0.3 x added. Squashing functions often are gates, which must stay bounded: 0.3 x / (1 + |x|).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        flat = name in _RELU or name in _CLIPPING or name in _SQUASHING
        if flat and args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            value = args[0]
            if name in _RELU:
                return F.leaky_relu(value, LEAK)
            leak = torch.nan_to_num(value, neginf=0.0, posinf=0.0)  # attention masks are infinite
            leak = F.softsign(leak) if name in _SQUASHING else leak
            return func(value.clone(), *args[1:], **(kwargs or {})) + LEAK * leak
        if name in ("embedding", "embedding_bag") and len(args) > 1:
            return func(*_all_rows(*args[:2]), *args[2:], **(kwargs or {}))
        if name in ("detach", "detach_") or (name in _DROPOUT and args):
            return args[0]
        return func(*args, **(kwargs or {}))


def _all_rows(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the arguments of an embedding, in their order, with as many of its rows as there are indices.

    The example may hold one category or token only, whose features are not constant for that. A feature that is pruned
    from these rows, but not from all, is not zero.
    """
    indices, table = (other, one) if one.is_floating_point() else (one, other)
    if bool((table[: max(1, indices.numel())] == 0).any()):
        slope = torch.linspace(0.5, 1, len(table), device=table.device, dtype=table.dtype)
        table = torch.where(table == 0, table.detach().amax(0) * slope[:, None], table)
    varied = torch.arange(indices.numel(), device=indices.device).view(indices.shape) % max(1, len(table))
    return (table, varied) if one.is_floating_point() else (varied, table)


@dataclass(frozen=True)
class _Precision:
    """The size of shifts, small enough that the input still shows after many layers, and the tolerance of equality."""

    dtype: torch.dtype
    shift: float
    same: float  # relative spread


_SINGLE = _Precision(torch.float32, shift=1e-4, same=1e-5)  # several times as fast
_DOUBLE = _Precision(torch.float64, shift=1e-40, same=1e-9)
_SAFE = 1e-20, 1e20  # range of numbers that are safe in single precision
_BLOCK = 2**16 + 1  # random numbers that larger parameters repeat; a prime, so no multiple of a number of channels


class ChangingShapes(ValueError):
    """The outputs of two runs of a network have other shapes, as those of detections: no run shows its structure."""


class StructureProbe:
    """A copy of the network with random numbers; `observe` returns the structure under masks."""

    def __init__(self, network: nn.Module, example_input: Inputs, *, samples: int = 2) -> None:
        """Raises RuntimeError, TypeError or ValueError if the network cannot run this way."""
        try:
            if self._prepare(network, example_input, samples, _SINGLE):
                return
        except (RuntimeError, TypeError):  # a network that requires double precision
            pass
        self._prepare(network, example_input, samples, _DOUBLE)

    def _prepare(self, network: nn.Module, example_input: Inputs, samples: int, precision: _Precision) -> bool:
        """Set up the copy in this precision; return whether the numbers of a first run are safe in it."""
        self._precision = precision
        self.network, self._parameters = _hollow_copy(network, precision.dtype)
        self._generator = torch.Generator().manual_seed(0x5EED)
        self._modules = {n: m for n, m in self.network.named_modules() if is_reader(m) or is_norm(m)}
        self._bare_norms = {
            n: m for n, m in self.network.named_modules() if isinstance(m, _BatchNorm) and not is_norm(m)
        }
        self._input = self._random_input(example_input, samples)
        self._blocks = self._random_parameters()
        self._projections: list[Tensor] = []
        free = free_inputs(example_input)
        self._given_inputs = not all(free)
        self.can_see_constants = any(free) or sample_count(example_input) > 1
        self._may_silence: dict[str, Tensor] = {}
        key = key_of(self.network, self._parameters, self._input, self._given_inputs, precision)
        known = recall(key)
        if known is None:
            baseline, sizes = self._run(None, silence=False, find_sole_readers=True)
            known = compressed(baseline), not sizes or _are_safe(torch.cat([size.flatten() for size in sizes]))
            remember(key, *known)
        self.baseline, is_safe = known
        baseline = self.baseline
        shared = {name for name, calls in baseline.calls.items() if calls > 1} | self._tied()
        self._may_silence = {
            name: ~zero
            for name, zero in baseline.zero_inputs.items()
            if name not in shared and isinstance(self._modules.get(name, self._bare_norms.get(name)), _BatchNorm)
        }
        self.normalised_by = baseline.normalised_by
        return is_safe

    def _tied(self) -> set[str]:
        """Return the names of modules that share parameters with other modules."""
        owners: dict[int, set[str]] = {}
        for name, module in self.network.named_modules():
            for parameter in module._parameters.values():
                owners.setdefault(id(parameter), set()).add(name)
        none = id(None)
        return {name for key, names in owners.items() if key != none and len(names) > 1 for name in names}

    @torch.no_grad()
    def _random_blocks(self, likes: list[Tensor], ranges: list[tuple[float, float]]) -> list[Tensor]:
        """Return the random numbers, each from its range, that tensors like these repeat."""
        if not likes:
            return []
        sizes = [min(like.numel(), _BLOCK) for like in likes]
        flat = torch.rand(sum(sizes), generator=self._generator)  # on the CPU: the same numbers for every device
        blocks = list(flat.split(sizes))
        torch._foreach_mul_(blocks, [high - low for low, high in ranges])
        torch._foreach_add_(blocks, [low for low, _ in ranges])
        if len({(like.dtype, like.device) for like in likes}) == 1:
            return list(flat.to(likes[0], non_blocking=True).split(sizes))
        return [block.to(like, non_blocking=True) for block, like in zip(blocks, likes, strict=True)]

    def _uniform(self, like: Tensor, low: float, high: float) -> Tensor:
        uniform = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        _repeat(self._random_blocks([like], [(low, high)])[0], uniform, None)
        return uniform

    def _random_input(self, example: Inputs, samples: int) -> Inputs:
        """Return `samples` samples like the example, with random numbers in all inputs but tokens and masks."""
        free = free_inputs(example)
        replaceable = iter(free)

        def replaced(value: Tensor) -> Tensor:
            if not next(replaceable):
                value = other_mask(value, samples if any(free) else min(max(samples, 2), len(value)))
                return value.to(self._precision.dtype) if value.is_floating_point() else value
            like = value.new_empty((samples, *value.shape[1:]), dtype=self._precision.dtype)
            brightness = torch.linspace(1.0, 0.4, samples).to(like).view(-1, *[1] * (like.dim() - 1))
            return self._uniform(like, 0.2, 1.0) * brightness

        return map_tensors(replaced, example)

    def _random_parameters(self) -> dict[str, Tensor]:
        ranges: dict[int, tuple[float, float]] = {}
        low, high = self._precision.shift, 3 * self._precision.shift
        for module in self._modules.values():
            # Outputs of normalisations by sample have both signs: a large shift makes them positive.
            by_sample = is_norm(module) and not isinstance(module, _BatchNorm)
            shift = (2.0, 3.0) if by_sample else (low, high)
            ranges[id(module.weight)] = (0.1, 0.2) if by_sample else (0.5, 1.5) if is_reader(module) else (0.8, 1.2)
            ranges[id(module.bias)] = shift
        statistics: list[tuple[Tensor, tuple[float, float]]] = []
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                for value, within in ((module.running_mean, (-high, -low)), (module.running_var, (0.8, 1.2))):
                    if isinstance(value, Tensor):
                        statistics.append((value, within))
        parameters = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        of_parameters = [ranges.get(id(parameter), (0.5, 1.5)) for parameter in self.network.parameters()]
        blocks = self._random_blocks(
            [*(value for value, _ in statistics), *parameters.values()],
            [*(each for _, each in statistics), *of_parameters],
        )
        values = [value for value, _ in statistics]
        if all(value.numel() <= _BLOCK for value in values):
            copy_all(values, [block.view(value.shape) for block, value in zip(blocks, values, strict=False)])
        else:
            for value, block in zip(values, blocks, strict=False):
                _repeat(block, value, None)
        return dict(zip(parameters, blocks[len(values) :], strict=True))

    @contextmanager
    def _filled(self, masks: Masks | None) -> Iterator[None]:
        """Set entries kept by `masks` (None: all) to random numbers, the others to zero; free them afterwards."""
        sizes = [(p.untyped_storage(), p.numel() * p.element_size()) for p in self._parameters]
        try:
            for storage, size in sizes:
                storage.resize_(size)
            for name, parameter in self.network.named_parameters():
                _repeat(self._blocks[name], parameter.detach(), None if masks is None else masks[name])
            yield
        finally:
            for storage, _ in sizes:
                storage.resize_(0)

    def _mark_embeddings(self, stack: ExitStack, observed: Iterable[nn.Module]) -> None:
        """Let parameters of modules that are not observed require gradients: what depends on them is no bare input."""
        known = {id(parameter) for module in observed for parameter in module.parameters(recurse=False)}
        for parameter in self.network.parameters():
            if id(parameter) not in known and parameter.is_floating_point():
                stack.callback(parameter.requires_grad_(True).requires_grad_, False)

    def observe(self, masks: Masks, *, silence: bool) -> Structure:
        """Return the network's structure under `masks`.

        `silence`: a BatchNorm channel whose input has become zero, because all its sources are pruned, is pruned, too.
        """
        if not silence and all(to_numbers(mask.all() for mask in masks.values())):
            return self.baseline
        return self._run(masks, silence=silence)[0]

    def _run(
        self, masks: Masks | None, *, silence: bool, find_sole_readers: bool = False
    ) -> tuple[Structure, list[Tensor]]:
        """Return the network's structure under `masks`, and the magnitudes of all channels in the run."""
        modules = {**self._modules, **self._bare_norms}
        may_silence = self._may_silence if silence else None
        taps = Taps(
            modules,
            may_silence,
            self._precision.same,
            find_sole_readers=find_sole_readers,
            given_inputs=self._given_inputs,
        )
        with ExitStack() as stack, torch.enable_grad():
            stack.enter_context(self._filled(masks))
            stack.callback(taps.release)
            if self._given_inputs:
                self._mark_embeddings(stack, modules.values())
            for name, module in modules.items():
                stack.callback(before_calls(module, taps.before(name)).remove)
                stack.callback(after_calls(module, taps.after(name)).remove)
            with _Leaky():
                outputs = [out for out in tensors_in(call_on_copy(self.network, self._input)) if out.requires_grad]
            if outputs and taps.first:  # gradients of activations only; the hooks collect them
                if not self._projections:
                    self._projections = [self._uniform(out.detach(), 0.5, 1.5) for out in outputs]
                if [out.shape for out in outputs] != [weights.shape for weights in self._projections]:
                    raise ChangingShapes("the shapes of its outputs depend on its weights")
                totals = [(out * weights).sum() for out, weights in zip(outputs, self._projections, strict=True)]
                torch.autograd.grad(totals, taps.first, allow_unused=True)
            return taps.structure, taps.finish(reached=bool(outputs))


def _hollow_copy(network: nn.Module, dtype: torch.dtype) -> tuple[nn.Module, list[Tensor]]:
    """Return a copy of `network` in evaluation mode, and those of its parameters whose storage is not allocated yet.

    They are of `dtype`, and hold memory only while a run needs them.
    """
    hollow: dict[int, Any] = {}
    for parameter in network.parameters():
        if type(parameter) is nn.Parameter and parameter.layout == torch.strided:
            kind = dtype if parameter.is_floating_point() else parameter.dtype
            empty = torch.empty(parameter.shape, dtype=kind, device=parameter.device)
            hollow[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    parameters = list(hollow.values())
    copy = duplicate(network, hollow).to(dtype).eval().requires_grad_(False)
    for module in copy.modules():
        if callable(simplify := getattr(module, "simplify_for_probe", None)):
            simplify()
    return copy, parameters


@torch.no_grad()
def _repeat(block: Tensor, target: Tensor, mask: Tensor | None) -> None:
    """Fill `target` with repetitions of `block`, and with zeros if `mask` is False."""
    whole = target.numel() // max(1, len(block)) * len(block)
    flat = target.view(-1) if target.is_contiguous() else torch.empty_like(target).view(-1)
    for part, numbers in ((slice(whole), block), (slice(whole, None), block[: target.numel() - whole])):
        if not len(numbers):
            continue
        rows = flat[part].view(-1, len(numbers))
        if mask is None:
            rows.copy_(numbers)
        else:
            torch.mul(numbers, mask.reshape(-1)[part].view(rows.shape), out=rows)
    if not target.is_contiguous():
        target.copy_(flat.view(target.shape))


def _are_safe(sizes: Tensor) -> bool:
    """Return whether no non-zero number is close to underflow or overflow."""
    low, high = _SAFE
    return bool(((sizes == 0) | ((sizes > low) & (sizes < high))).all())
