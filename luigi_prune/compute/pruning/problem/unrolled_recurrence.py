"""Recurrent modules (LSTM, GRU, RNN and their cells) with their matrices as layers, called step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from luigi_prune.compute.pruning.problem.equivalents import Equivalent, Named, RecurrentLinear, has_own_forward

_CELLS = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU", nn.RNNCell: "RNN"}
State = tuple[Tensor, ...]  # hidden state, and for an LSTM the cell state


def _mode(module: nn.Module) -> str:
    """Return LSTM, GRU, RNN_TANH or RNN_RELU; "" for other modules."""
    if isinstance(module, nn.RNNBase):
        return str(module.mode)
    mode = next((mode for kind, mode in _CELLS.items() if isinstance(module, kind)), "")
    return f"RNN_{module.nonlinearity.upper()}" if isinstance(module, nn.RNNCell) else mode


class UnrolledRecurrence(Equivalent, nn.Module):
    """A recurrent module in evaluation mode, with `ih`, `hh` and `hr` (projection) layers per layer and direction."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._mode, self._is_cell = _mode(module), not isinstance(module, nn.RNNBase)
        weights = {name: p for name, p in module.named_parameters() if name.startswith("weight_")}
        for name, weight in weights.items():
            bias = name.replace("weight_", "bias_") in module._parameters and module.bias
            rows, columns = weight.shape
            self.add_module(
                name.removeprefix("weight_"), RecurrentLinear(columns, rows, bias=bool(bias), device="meta")
            )
        self.adopt(module)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        if not _mode(module) or has_own_forward(module):
            return False
        return all(isinstance(parameter, nn.Parameter | None) for parameter in module._parameters.values())

    @staticmethod
    def split(module: nn.Module, values: Named) -> dict[str, Tensor]:
        return {f"{name.partition('_')[2]}.{name.partition('_')[0]}": value for name, value in values.items()}

    @staticmethod
    def join(module: nn.Module, values: Named) -> dict[str, Tensor]:
        return {f"{name.rpartition('.')[2]}_{name.rpartition('.')[0]}": value for name, value in values.items()}

    def forward(self, value: Tensor | PackedSequence, hx: Tensor | State | None = None) -> Any:
        """Return the results of the replaced module."""
        states = None if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if isinstance(value, PackedSequence):
            order, back = value.sorted_indices, value.unsorted_indices
            if states is not None and order is not None:
                states = tuple(state.index_select(1, order) for state in states)
            steps, final = self._run(list(value.data.split(value.batch_sizes.tolist())), states)
            if back is not None:
                final = tuple(state.index_select(1, back) for state in final)
            return PackedSequence(torch.cat(steps), value.batch_sizes, order, back), self._returned(final)
        if self._is_cell:
            return self._forward_cell(value, states)
        module: Any = self._shell[0]
        is_batched, batch_first = value.dim() == 3, module.batch_first
        sequence = value.unsqueeze(1) if not is_batched else value.transpose(0, 1) if batch_first else value
        if states is not None and not is_batched:
            states = tuple(state.unsqueeze(1) for state in states)
        steps, final = self._run(list(sequence.unbind(0)), states)
        output = torch.stack(steps)
        if not is_batched:
            return output.squeeze(1), self._returned(tuple(state.squeeze(1) for state in final))
        return output.transpose(0, 1) if batch_first else output, self._returned(final)

    def _forward_cell(self, value: Tensor, states: State | None) -> Any:
        module: Any = self._shell[0]
        is_batched = value.dim() == 2
        value = value if is_batched else value[None]
        if states is None:
            states = (value.new_zeros(len(value), module.hidden_size),) * self._state_count
        elif not is_batched:
            states = tuple(state[None] for state in states)
        new = self._step("", self.get_submodule("ih")(value), states)
        return self._returned(new if is_batched else tuple(state[0] for state in new))

    @property
    def _state_count(self) -> int:
        return 2 if self._mode == "LSTM" else 1

    def _returned(self, states: State) -> Tensor | State:
        return states if self._mode == "LSTM" else states[0]

    def _run(self, steps: list[Tensor], states: State | None) -> tuple[list[Tensor], State]:
        """Return the outputs per step and the final states (layers x directions, batch, features).

        Later steps may hold fewer sequences, the first ones of the batch, as in packed sequences.
        """
        module: Any = self._shell[0]
        directions = ("", "_reverse") if module.bidirectional else ("",)
        if states is None:
            shape = module.num_layers * len(directions), len(steps[0])
            sizes = [getattr(module, "proj_size", 0) or module.hidden_size, module.hidden_size][: self._state_count]
            states = tuple(steps[0].new_zeros(*shape, size) for size in sizes)
        finals: list[State] = []
        for layer in range(module.num_layers):
            outputs = []
            for number, direction in enumerate(directions):
                start = tuple(state[layer * len(directions) + number] for state in states)
                out, final = self._run_layer(f"_l{layer}{direction}", steps, start, backwards=bool(number))
                outputs.append(out)
                finals.append(final)
            steps = [torch.cat(parts, -1) for parts in zip(*outputs, strict=True)] if len(outputs) > 1 else outputs[0]
        return steps, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _run_layer(
        self, suffix: str, steps: list[Tensor], states: State, *, backwards: bool
    ) -> tuple[list[Tensor], State]:
        sizes = [len(step) for step in steps]
        read = self.get_submodule(f"ih{suffix}")(torch.cat(steps)).split(sizes)  # all steps in one call
        outputs: dict[int, Tensor] = {}
        for step in reversed(range(len(steps))) if backwards else range(len(steps)):
            active = sizes[step]
            new = self._step(suffix, read[step], tuple(state[:active] for state in states))
            states = tuple(torch.cat([now, state[active:]]) if active < len(state) else now
                           for now, state in zip(new, states, strict=True))  # fmt: skip
            outputs[step] = new[0]
        return [outputs[step] for step in range(len(steps))], states

    def _step(self, suffix: str, read: Tensor, states: State) -> State:
        """Return the states after one step; `read`: the part of the gates that comes from the input."""
        hidden = self.get_submodule(f"hh{suffix}")(states[0])
        if self._mode.startswith("RNN"):
            return (torch.relu(read + hidden) if self._mode == "RNN_RELU" else torch.tanh(read + hidden),)
        if self._mode == "GRU":
            (reset, update, new), (h_reset, h_update, h_new) = read.chunk(3, -1), hidden.chunk(3, -1)
            gate = torch.sigmoid(update + h_update)
            new = torch.tanh(new + torch.sigmoid(reset + h_reset) * h_new)
            return (new + gate * (states[0] - new),)
        entered, forget, new, out = (read + hidden).chunk(4, -1)
        cell = torch.sigmoid(forget) * states[1] + torch.sigmoid(entered) * torch.tanh(new)
        result = torch.sigmoid(out) * torch.tanh(cell)
        if f"hr{suffix}" in self._modules:
            result = self.get_submodule(f"hr{suffix}")(result)
        return result, cell
