"""Ways of training K masked ResNet20s on one GPU: images per second summed over them, against one after another.

Bare loops with the data on the device: what `[compute] together` can gain, whatever the package adds to it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmarks.gpu.facts import Facts
from benchmarks.gpu.subjects import synchronise
from benchmarks.gpu.together import masks_of
from luigi_prune.compute.networks import build
from luigi_prune.compute.zeros import bits_of, keep_bits

BATCH = 128
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "fused": True}
Take = Callable[[], None]  # one step of all networks


class Trained:
    """A network with its masks, its optimizer and its next batch."""

    def __init__(self, seed: int, device: torch.device):
        self.device = device
        self.network = build("resnet20", (3, 32, 32), 10, seed=seed).to(device).train()
        self.parameters = dict(self.network.named_parameters())
        masks = {name: bits_of(mask, torch.float32) for name, mask in masks_of(self.network, seed).items()}
        self.masks = {name: bits.to(device) for name, bits in masks.items() if bits is not None}
        self.optimizer = torch.optim.SGD(self.network.parameters(), **SGD)
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(BATCH, 3, 32, 32, generator=generator).to(device)
        self.y = torch.randint(0, 10, (BATCH,), generator=generator).to(device)

    def step(self, half: torch.dtype | None) -> None:
        """Take one step."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, half) if half else contextlib.nullcontext():
            value = F.cross_entropy(self.network(self.x), self.y)
        value.backward()
        for name, bits in self.masks.items():
            gradient = self.parameters[name].grad
            assert gradient is not None
            keep_bits(gradient, bits)
        self.optimizer.step()


def one_by_one(all_: list[Trained], half: torch.dtype | None) -> Take:
    """One network after another, kernel by kernel."""

    def take() -> None:
        for trained in all_:
            trained.step(half)

    return take


def streams(all_: list[Trained], half: torch.dtype | None) -> Take:
    """Kernel by kernel, each network on a stream of its own."""
    own = [torch.cuda.Stream() for _ in all_]

    def take() -> None:
        for stream, trained in zip(own, all_, strict=True):
            with torch.cuda.stream(stream):
                trained.step(half)

    return take


def one_graph(all_: list[Trained], half: torch.dtype | None, parallel: bool) -> Take:
    """The steps of all networks captured as one CUDA graph, one below the other or on streams of their own."""
    main = torch.cuda.Stream()
    main.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(main):
        for trained in all_:
            for _ in range(2):
                trained.step(half)
    main.synchronize()
    own = [torch.cuda.Stream() if parallel else main for _ in all_]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=main):
        for stream, trained in zip(own, all_, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                trained.step(half)
        for stream in own:
            main.wait_stream(stream)
    return graph.replay


def graph_each(all_: list[Trained], half: torch.dtype | None) -> Take:
    """A graph for each network, replayed on a stream of its own."""
    replays = [one_graph([trained], half, parallel=False) for trained in all_]
    own = [torch.cuda.Stream() for _ in all_]

    def take() -> None:
        for stream, replay in zip(own, replays, strict=True):
            with torch.cuda.stream(stream):
                replay()

    return take


def stacked(all_: list[Trained]) -> Take:
    """Weights stacked along a new axis: torch.func.vmap, which makes grouped convolutions."""
    networks = [trained.network for trained in all_]
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]
    masks = {name: torch.stack([trained.masks[name] for trained in all_]) for name in all_[0].masks}
    x, y = (torch.stack([getattr(trained, name) for trained in all_]) for name in ("x", "y"))
    optimizer = torch.optim.SGD(list(parameters.values()), **SGD)
    model = networks[0]

    def loss(values: dict[str, Tensor], state: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, (values, state), (images,)), labels)

    gradients = vmap(grad_and_value(loss), in_dims=(0, 0, 0, 0))

    def take() -> None:
        found, _ = gradients(parameters, buffers, x, y)
        for name, parameter in parameters.items():
            parameter.grad = found[name]
            if name in masks:
                keep_bits(found[name], masks[name])
        optimizer.step()

    return take


def captured(take: Take) -> Take:
    """The step of `take` as a CUDA graph."""
    main = torch.cuda.Stream()
    main.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(main):
        for _ in range(2):
            take()
    main.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=main):
        take()
    return graph.replay


def seconds_of(take: Take, device: torch.device, least: float) -> float:
    """Return the seconds of a step, over as many steps as take `least` seconds."""
    for _ in range(2):
        take()
    synchronise(device)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < least:
        for _ in range(5):
            take()
        steps += 5
        synchronise(device)
    return (time.perf_counter() - began) / steps


def processes(count: int, half: torch.dtype | None, seconds: float) -> float:
    """Return the images per second of `count` processes with one network each, in a window they all share."""
    begin = time.time() + 12.0 + count / 4
    command = [sys.executable, "-m", "benchmarks.gpu.ways", str(begin), str(seconds), "bf16" if half else "fp32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True, env=environment)
        for seed in range(count)
    ]
    outputs = [process.communicate(timeout=90)[0] for process in started]
    if not all(output.strip() for output in outputs):
        raise RuntimeError("a process was late or failed")
    return sum(float(output.split()[-1]) for output in outputs)


@contextlib.contextmanager
def multi_process_service() -> Iterator[None]:
    """Run NVIDIA's MPS, which lets kernels of several processes run at once."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ.update(names)
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, timeout=20)
        try:
            yield
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, timeout=20, check=False)
            for name in names:
                os.environ.pop(name)


def run(facts: Facts, device: torch.device) -> None:
    """Measure each way for 16 networks, the best ones for 32."""
    on_gpu = device.type == "cuda"
    counts, least = ((16, 32), 0.5) if on_gpu else ((2,), 0.1)
    for label, half in (("fp32", None), ("bf16", torch.bfloat16)) if on_gpu else (("fp32", None),):
        base = 0.0
        for count in counts:
            ways: dict[str, Callable[[list[Trained], torch.dtype | None], Take]] = {"one after another": one_by_one}
            if half is None:  # torch refuses vmap's gradients under autocast
                ways["stacked (vmap)"] = lambda all_, half: stacked(all_)
            if on_gpu:
                ways["a graph of each, one after another"] = lambda all_, half: one_graph(all_, half, parallel=False)
                ways["a graph of all, a stream each"] = lambda all_, half: one_graph(all_, half, parallel=True)
                ways["a graph of each, a stream each"] = graph_each
                ways["streams, no graph"] = streams
            if on_gpu and half is None:
                ways["stacked (vmap), a graph"] = lambda all_, half: captured(stacked(all_))
            for way, build_take in ways.items():
                name = f"{label}, {count} networks: {way}"
                with facts.attempt(name):
                    take = build_take([Trained(seed, device) for seed in range(count)], half)
                    rate = count * BATCH / seconds_of(take, device, least)
                    base = rate if way == "one after another" else base
                    facts.measure(name, f"{rate:,.0f} images/s, {rate / base:.2f} times", rate=rate, ratio=rate / base)
                    del take
    if not on_gpu:
        return
    with facts.attempt("fp32: 8 processes"):
        facts.measure("fp32: 8 processes", f"{processes(8, None, 3.0):,.0f} images/s")
    if shutil.which("nvidia-cuda-mps-control") is None:
        facts.skip("fp32: 8 processes with MPS", "nvidia-cuda-mps-control is not installed")
        return
    with facts.attempt("fp32: 8 processes with MPS"), multi_process_service():
        facts.measure("fp32: 8 processes with MPS", f"{processes(8, None, 3.0):,.0f} images/s")


def one_process(begin: float, seconds: float, half: torch.dtype | None, seed: int) -> None:
    """Train one network; print its images per second from `begin` (a time) on."""
    device = torch.device("cuda")
    trained = Trained(seed, device)
    for _ in range(5):
        trained.step(half)
    torch.cuda.synchronize()
    if time.time() > begin:
        return
    time.sleep(begin - time.time())
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5):
            trained.step(half)
        steps += 5
        torch.cuda.synchronize()
    print(steps * BATCH / (time.perf_counter() - began))


if __name__ == "__main__":
    one_process(
        float(sys.argv[1]), float(sys.argv[2]), torch.bfloat16 if sys.argv[3] == "bf16" else None, int(sys.argv[4])
    )
