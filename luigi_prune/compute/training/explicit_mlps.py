"""Steps of several MLPs on a CPU without autograd: one loss and one optimizer for all, sparse layers where they pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from luigi_prune.compute.training.explicit_layers import ExplicitLinear, KeptLinear, explicit_layers, plain_layers
from luigi_prune.compute.training.lean_steps import OptimizerSteps
from luigi_prune.compute.training.optimizers import build_optimizer
from luigi_prune.compute.training.run import Run
from luigi_prune.compute.training.step import seed_step
from luigi_prune.compute.training.steppers import Batch

_OPTIMIZERS = ("SGD", "Adam", "AdamW")


class _Trained(NamedTuple):
    """A parameter that the common optimizer trains for a run."""

    optimizer: Optimizer  # the run's own
    parameter: Tensor  # the network's
    own: Tensor  # the same, or its kept entries
    places: Tensor | None  # where those are in the flattened parameter


class ExplicitMlps:
    """Takes the steps of MLPs of any sizes together; the results are those of separate runs within rounding."""

    @staticmethod
    def suits(run: Run) -> bool:
        """Return whether the steps of a run can be taken here."""
        request, training = run.request, run.request.training
        layers = plain_layers(run.network)
        parameters = list(run.network.parameters())
        return (
            request.device.type == "cpu"
            and all(isinstance(size, int) for size in request.splits.train.input_shape)  # one tensor
            and request.ranks.size == 1
            and training.optimizer in _OPTIMIZERS
            and run.keeps_zeros
            and not training.compile
            and (training.micro_batch_size or training.batch_size) >= training.batch_size
            and layers is not None
            and len(parameters) == sum(len(list(linear.parameters())) for linear, _ in layers)
            and all(parameter.requires_grad for parameter in parameters)
        )

    def prepare(self, runs: Sequence[Run]) -> None:
        """Take over the runs, all of which suit, with the states of their optimizers."""
        self._runs = runs
        self._transposed: dict[int, Tensor] = {}
        self._layers = [explicit_layers(run.network, run.masked, self._transposed) for run in runs]
        self._trained = [
            trained
            for run, layers in zip(runs, self._layers, strict=True)
            for layer in layers
            for trained in _trained_by(run.optimizer, layer)
        ]
        whole = {trained.own for trained in self._trained}
        self._masked = [[masked for masked in run.masked if masked.parameter in whole] for run in runs]
        training = runs[0].request.training
        self._optimizer = build_optimizer(
            training.optimizer,
            training.optimizer_kwargs,
            [trained.own for trained in self._trained if isinstance(trained.own, nn.Parameter)],
        )
        for optimizer, parameter, own, places in self._trained:
            if state := optimizer.state.get(parameter):
                self._optimizer.state[own] = state if places is None else _gathered(state, places)
        self._steps = OptimizerSteps(self._optimizer)
        self._joint_loss = all(_is_plain_cross_entropy(run) for run in runs)
        self._last_step: int | None = None

    def step(self, batches: Sequence[Batch]) -> list[Exception | None]:
        """Take a step of each run: all forward passes and losses, all backward passes, one step of the optimizer."""
        runs = self._runs
        self._last_step = runs[0].progress.epoch * runs[0].steps_per_epoch + runs[0].progress.step
        runs[0].schedule.apply(self._optimizer, self._last_step)
        self._transposed.clear()
        try:
            with torch.no_grad():
                passes = self._losses(batches)
                for number, one in enumerate(passes):
                    if not isinstance(one, Exception):
                        self._backward(number, one.gradient)
                # Those that failed take a step, too, which nobody reads.
                self._steps.step()
        except Exception as error:
            return [error] * len(runs)
        for run, one in zip(runs, passes, strict=True):
            if not isinstance(one, Exception):
                run.tally.add(one.outputs, one.y, one.value, run.loss.share(one.y))
        return [one if isinstance(one, Exception) else None for one in passes]

    def write_back(self) -> None:
        """Bring the networks and the optimizers of the runs up to date."""
        if self._last_step is None:
            return
        for layers in self._layers:
            for layer in layers:
                layer.write_back()
        for optimizer, parameter, own, places in self._trained:
            state = self._optimizer.state[own]
            optimizer.state[parameter] = state if places is None else _scattered(state, places, parameter)
        for run in self._runs:
            run.schedule.apply(run.optimizer, self._last_step)
            run.steps = OptimizerSteps(run.optimizer)

    def _losses(self, batches: Sequence[Batch]) -> list[_Pass | Exception]:
        """Return the outputs, losses and gradients of the outputs, with an exception in place of those that fail."""
        outputs: list[Tensor | Exception] = []
        for layers, batch in zip(self._layers, batches, strict=True):
            try:
                outputs.append(_forward(layers, batch.x))
            except Exception as error:
                outputs.append(error)
        if self._joint_loss and not any(isinstance(each, Exception) for each in outputs):
            try:
                return _cross_entropies(outputs, [batch.y for batch in batches])  # type: ignore[arg-type]
            except (RuntimeError, IndexError, TypeError):  # one of the targets is no class: each alone shows which
                pass
        return [
            each if isinstance(each, Exception) else _loss(run, each, batch.y)
            for run, each, batch in zip(self._runs, outputs, batches, strict=True)
        ]

    def _backward(self, number: int, gradient: Tensor) -> None:
        layers = self._layers[number]
        for place in reversed(range(len(layers))):
            gradient = layers[place].backward(gradient, to_input=place > 0)
        for masked in self._masked[number]:
            masked.clear_gradient()


class _Pass(NamedTuple):
    """The forward pass of a run: outputs, targets, loss, and the gradient of the loss by the outputs."""

    outputs: Tensor
    y: Tensor
    value: Tensor
    gradient: Tensor


def _forward(layers: Sequence[ExplicitLinear], x: Tensor) -> Tensor:
    """Return outputs in memory of their own: tallies keep them for many steps."""
    value = x.flatten(1)
    for layer in layers[:-1]:
        value = layer.forward(value)
    return layers[-1].forward(value, value.new_empty(len(value), layers[-1].width))


def _loss(run: Run, outputs: Tensor, y: Tensor) -> _Pass | Exception:
    """Return a run's loss, whatever it is, and its gradient."""
    try:
        seed_step(run)  # a loss may draw random numbers
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            value = run.loss(leaf, y)
        (gradient,) = torch.autograd.grad(value, leaf)
    except Exception as error:
        return error
    return _Pass(outputs, y, value.detach(), gradient)


def _is_plain_cross_entropy(run: Run) -> bool:
    training = run.request.training
    return training.loss == "CrossEntropyLoss" and training.loss_kwargs in ({}, {"reduction": "mean"})


def _cross_entropies(outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> list[_Pass | Exception]:
    """Return the mean cross entropies of all runs, computed at once."""
    logarithms = functional.log_softmax(torch.stack(list(outputs)), dim=2)
    classes = torch.stack(list(targets))[:, :, None]
    values = -logarithms.gather(2, classes).mean((1, 2))
    gradients = logarithms.exp_()
    gradients.scatter_add_(2, classes, gradients.new_full((), -1.0).expand(classes.shape))
    gradients /= classes.shape[1]
    return [_Pass(*each) for each in zip(outputs, targets, values, gradients, strict=True)]


def _trained_by(optimizer: Optimizer, layer: ExplicitLinear) -> list[_Trained]:
    """Return the parameters of a layer."""
    if isinstance(layer, KeptLinear):
        first = _Trained(optimizer, layer.linear.weight, layer.values, layer.places)
    else:
        first = _Trained(optimizer, layer.linear.weight, layer.linear.weight, None)
    bias = layer.linear.bias
    return [first] if bias is None else [first, _Trained(optimizer, bias, bias, None)]


def _gathered(state: dict[str, Any], places: Tensor) -> dict[str, Any]:
    """Return the optimizer's state of a parameter's kept entries."""
    return {
        name: value.flatten()[places] if isinstance(value, Tensor) and value.dim() else value
        for name, value in state.items()
    }


def _scattered(state: dict[str, Any], places: Tensor, parameter: Tensor) -> dict[str, Any]:
    """Return the state of the whole parameter, whose pruned entries have gathered none."""
    return {
        name: torch.zeros(parameter.numel(), dtype=value.dtype).index_copy_(0, places, value).view_as(parameter)
        if isinstance(value, Tensor) and value.dim()
        else value
        for name, value in state.items()
    }
