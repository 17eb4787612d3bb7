"""Training steps on a GPU as CUDA graphs: the kernels of a step are recorded once and then start with one call.

Launching the kernels of a small network takes longer than running them, so that a GPU waits for the CPU. Trainings that
run together replay a graph each, on a stream each. Recorded is the step of one network, with the kernels that it also
uses alone. Learning rates are a tensor on the device, batches are copied into the same memory, and random numbers of
data are drawn outside; a training that a graph cannot repeat takes its steps as usual.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from luigi_prune.compute.network_inputs import Inputs, copied, form, map_tensors, prediction, tensors_of
from luigi_prune.compute.training.hidden_state import State, changed, hidden_state
from luigi_prune.compute.training.run import Run
from luigi_prune.compute.training.step import optimize, take_step
from luigi_prune.compute.training.steppers import Batch, failure

log = logging.getLogger(__name__)

_USUAL_STEPS = 2  # before recording: they create the optimizer's state and choose kernels
_TOLERANCE = 1e-3  # of the largest entry of a tensor, between a recorded step and a usual one


class Graphed:
    """Replays a graph of each run on a stream of its own: a stepper for a GPU (see `steppers.py`)."""

    def __init__(self, device: torch.device):
        self._device = device
        self._steps: dict[int, tuple[GraphedStep, torch.cuda.Stream]] = {}  # by the id of the run, which they hold
        self._runs: Sequence[Run] = ()

    def prepare(self, runs: Sequence[Run]) -> None:
        """Take over the runs; those that were there before keep their graphs."""
        kept = {id(run): self._steps.get(id(run)) for run in runs}
        self._steps = {id(run): kept[id(run)] or (GraphedStep(run), torch.cuda.Stream(self._device)) for run in runs}
        self._runs = runs

    def step(self, batches: Sequence[Batch]) -> list[Exception | None]:
        """Start a step of each run."""
        loaded = torch.cuda.current_stream(self._device).record_event()
        errors: list[Exception | None] = []
        for run, (x, y, size) in zip(self._runs, batches, strict=True):
            take, stream = self._steps[id(run)]
            stream.wait_event(loaded)
            for tensor in (*tensors_of(x), y):
                tensor.record_stream(stream)  # its memory is not used again before the stream has read it
            with torch.cuda.stream(stream):
                errors.append(failure(take, x, y, size))
        return errors

    def write_back(self) -> None:
        """Let the current stream wait for all steps."""
        main = torch.cuda.current_stream(self._device)
        for _, stream in self._steps.values():
            main.wait_stream(stream)


class GraphedStep:
    """Takes the steps of one run, as `optimize` does, on the current stream, which must not be the default one."""

    def __init__(self, run: Run):
        self._run = run
        self._usual_size = min(run.request.training.batch_size, len(run.request.splits.train))
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.obstacle = obstacle(run)  # why steps are not recorded; "": they are, or will be

    def __call__(self, x: Inputs, y: Tensor, batch_size: int) -> None:
        """Take the next step and add its outputs and loss to the tally."""
        undecided = self._graph is None and not self.obstacle
        if undecided and self._taken >= _USUAL_STEPS and batch_size == self._usual_size:
            self._record(x, y, batch_size)
        elif self._graph is not None and _form(x, y) == _form(self._x, self._y):
            self._replay(x, y)
        else:  # such as the last batch of an epoch, if it is smaller
            before = hidden_state(self._run.network) if undecided else {}
            # Runs share batches, and a network may change its own.
            optimize(self._run, copied(x), y.clone(), batch_size)
            if undecided:
                self._look_for_changes(before)
        self._taken += 1

    def _look_for_changes(self, before: State) -> None:
        """Find out whether the last step did what a graph would not repeat."""
        if _drew_random_numbers(self._run.request.device):
            self.obstacle = "the network draws random numbers"
        elif name := changed(before, hidden_state(self._run.network)):
            self.obstacle = f"a step changes {name}"

    def _record(self, x: Inputs, y: Tensor, batch_size: int) -> None:
        """Record a step, and take it as usual and by the graph; keep the graph if both end alike."""
        run, device = self._run, self._run.request.device
        self._x, self._y = map_tensors(torch.clone, x), y.clone()
        self._rate = torch.zeros((), device=device)
        scaler = run.scaler.state_dict()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            with _recordable(run.optimizer, self._rate):
                stream = torch.cuda.current_stream(device)
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    (recorded,) = take_step(run, [(self._x, self._y)], None)
        except Exception as error:
            _end_failed_recording(device, pool)
            cause = error.__context__ or error  # the end of a recording fails, too, if the step did
            self._give_up(" ".join(str(cause).split())[:200])
            run.optimizer.zero_grad(set_to_none=True)
            run.scaler = torch.amp.GradScaler(device.type, enabled=run.scales)
            run.scaler.load_state_dict(scaler)
            optimize(run, copied(x), y.clone(), batch_size)
            return
        self._outputs, self._value = prediction(recorded.outputs).detach(), recorded.value.detach()
        self._graph = graph
        before = [(tensor, tensor.clone()) for tensor in _changing(run)]
        optimize(run, copied(x), y.clone(), batch_size)
        expected = [tensor.clone() for tensor, _ in before]
        for tensor, value in before:
            tensor.copy_(value)
        if run.scales:
            run.scaler.load_state_dict(scaler)
        self._rate.fill_(run.optimizer.param_groups[0]["lr"])
        graph.replay()
        if not all(_alike(tensor, value) for (tensor, _), value in zip(before, expected, strict=True)):
            self._give_up("a recorded step differs from a usual one")
            for (tensor, _), value in zip(before, expected, strict=True):
                tensor.copy_(value)

    def _give_up(self, why: str) -> None:
        self.obstacle, self._graph = why, None
        log.warning("steps are not recorded as a CUDA graph: %s", why)

    def _replay(self, x: Inputs, y: Tensor) -> None:
        run = self._run
        rate = run.schedule.apply(run.optimizer, run.progress.epoch * run.steps_per_epoch + run.progress.step)
        self._rate.fill_(rate)
        for memory, value in zip([*tensors_of(self._x), self._y], [*tensors_of(x), y], strict=True):
            memory.copy_(value)
        assert self._graph is not None
        self._graph.replay()
        run.tally.add(self._outputs.clone(), y, self._value.clone(), run.loss.share(y))


def _form(x: Inputs, y: Tensor) -> tuple[object, ...]:
    """Return what batches must have in common to be copied into the same memory."""
    return form(x, dtypes=True), [len(tensor) for tensor in tensors_of(x)], y.shape, y.dtype


def _end_failed_recording(device: torch.device, pool: tuple[int, int]) -> None:
    """Free the allocator and the generator of `device` from a recording that failed.

    Torch up to 2.12 leaves both waiting for its end (pytorch/pytorch#180395): batches that several streams read would
    never be freed, and the next random number, of any network, would be refused. Later versions have nothing to do.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    with suppress(AttributeError, RuntimeError):
        torch._C._cuda_endAllocateToPool(index, pool)
    with suppress(AttributeError, IndexError, RuntimeError):
        fresh = torch.Generator(torch.device("cuda", index))  # each step seeds it
        torch.cuda.default_generators[index].graphsafe_set_state(fresh.graphsafe_get_state())


def obstacle(run: Run) -> str:
    """Return why the steps of a training cannot be recorded, as far as its settings say; "" if they can."""
    training = run.request.training
    if run.request.device.type != "cuda":
        return "the device is no GPU"
    if run.request.ranks.size > 1:
        return "several processes train the network"
    if not run.optimizer.defaults.get("fused"):
        return f"the optimizer {training.optimizer} has no fused form"
    if run.schedule.momenta:
        return "a schedule changes the momentum"
    if training.micro_batch_size and training.micro_batch_size < training.batch_size:
        return "batches are split (microBatchSize)"
    if training.compile:
        return "the network is compiled"
    return ""


@contextmanager
def _recordable(optimizer: torch.optim.Optimizer, rate: Tensor) -> Iterator[None]:
    """Let the optimizer read its rate from a tensor, and allow that its step is recorded."""
    own = [dict(group) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, values in zip(optimizer.param_groups, own, strict=True):
            group.update(values)


def _changing(run: Run) -> list[Tensor]:
    """Return the tensors that a step changes: those of the network and of the optimizer."""
    states = [value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [*(value.detach() for value in run.network.parameters()), *run.network.buffers(), *states]


def _alike(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    largest = float(other.abs().max())
    return torch.equal(one, other) or float((one - other).abs().max()) <= _TOLERANCE * largest


def _drew_random_numbers(device: torch.device) -> bool:
    """Return whether random numbers were drawn since the seeds were set, on the CPU or on the device."""
    cpu = torch.Generator().manual_seed(torch.initial_seed()).get_state()
    fresh = torch.Generator(device).manual_seed(torch.cuda.initial_seed()).get_state()
    return not (torch.equal(cpu, torch.get_rng_state()) and torch.equal(fresh, torch.cuda.get_rng_state(device)))
