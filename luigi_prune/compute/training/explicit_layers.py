"""Linear layers whose passes are written out, with gradients in memory of their own, in place of autograd's graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from luigi_prune.compute.masked import MaskedParameter

# Two passes of a sparse layer and the optimizer's step on kept entries take as long as dense ones at a density of 0.3.
_DENSITY = 0.2
_BLOCK = 0.9  # of the weights; selecting inputs and outputs takes time, too
_ENTRIES = 1 << 14


class ExplicitLinear:
    """A linear layer, with a ReLU behind it or not: the operations of autograd, in its order.

    Gradients are written into memory that the layer keeps, for one size of batch.
    """

    def __init__(self, linear: nn.Linear, *, relu: bool):
        self.linear, self.width = linear, linear.out_features
        self._weight, self._bias, self._relu = linear.weight.data, linear.bias, relu
        self._x = self._y = self._dx = torch.empty(0)
        if self._bias is not None:
            self._bias.grad = torch.empty_like(self._bias)
        self._keep_gradient()

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the output, (batch, out), for an input (batch, in), in memory of the layer unless `out` is given."""
        if out is None:
            out = self._y if len(self._y) == len(x) else x.new_empty(len(x), self.width)
        self._x, self._y = x, out
        self._multiply(out)
        if self._relu:
            out.relu_()
        return out

    def backward(self, gradient: Tensor, *, to_input: bool) -> Tensor:
        """Set the gradients of the parameters; return that of the input, if it is asked for. Changes `gradient`."""
        if self._relu:
            torch.ops.aten.threshold_backward.grad_input(gradient, self._y, 0, grad_input=gradient)
        if self._bias is not None:
            assert self._bias.grad is not None
            torch.sum(gradient, 0, out=self._bias.grad)
        return self._differentiate(gradient, to_input=to_input)

    def write_back(self) -> None:
        """Bring the weight up to date."""

    def _keep_gradient(self) -> None:
        self._gradient = self.linear.weight.grad = torch.empty_like(self._weight)

    def _multiply(self, out: Tensor) -> None:
        if self._bias is None:
            torch.mm(self._x, self._weight.t(), out=out)
        else:
            torch.addmm(self._bias.data, self._x, self._weight.t(), out=out)

    def _differentiate(self, gradient: Tensor, *, to_input: bool) -> Tensor:
        torch.mm(gradient.t(), self._x, out=self._gradient)
        if not to_input:
            return gradient
        if self._dx.shape != self._x.shape:
            self._dx = torch.empty_like(self._x)
        return torch.mm(gradient, self._weight, out=self._dx)


class KeptLinear(ExplicitLinear):
    """A linear layer of whose weight only the kept entries are trained; the others are zero.

    `places`: where they are in the flattened weight.
    """

    def __init__(self, linear: nn.Linear, kept: Tensor, *, relu: bool):
        super().__init__(linear, relu=relu)
        self.places = kept.flatten().nonzero().flatten()
        self.values = nn.Parameter(self._weight.flatten()[self.places])
        self.values.grad = torch.zeros_like(self.values)

    def write_back(self) -> None:
        """Write the kept entries into the weight."""
        self._weight.view(-1).index_copy_(0, self.places, self.values.data)

    def _keep_gradient(self) -> None:
        self.linear.weight.grad = None


class BlockLinear(KeptLinear):
    """A linear layer that keeps whole neurons: all weights between some outputs and some inputs."""

    def __init__(self, linear: nn.Linear, kept: Tensor, *, relu: bool):
        super().__init__(linear, kept, relu=relu)
        assert self.values.grad is not None
        self._rows, self._columns = (kept.any(axis).nonzero().flatten() for axis in (1, 0))
        shape = (len(self._rows), len(self._columns))
        self._block, self._slopes = self.values.data.view(shape), self.values.grad.view(shape)

    def _multiply(self, out: Tensor) -> None:
        self._inputs = self._x.index_select(1, self._columns)
        product = self._inputs @ self._block.t()
        if self._bias is None:
            out.zero_()
        else:
            out.copy_(self._bias.data.expand_as(out))
        out.index_add_(1, self._rows, product)

    def _differentiate(self, gradient: Tensor, *, to_input: bool) -> Tensor:
        kept = gradient.index_select(1, self._rows)
        torch.mm(kept.t(), self._inputs, out=self._slopes)
        if not to_input:
            return gradient
        return torch.zeros_like(self._x).index_copy_(1, self._columns, kept @ self._block)


class SparseLinear(KeptLinear):
    """A linear layer that keeps few weights in any places, multiplied as a sparse matrix.

    `transposed` holds inputs with features first by address; the layers that share it share them, until it is cleared.
    """

    def __init__(self, linear: nn.Linear, kept: Tensor, transposed: dict[int, Tensor], *, relu: bool):
        super().__init__(linear, kept, relu=relu)
        assert self.values.grad is not None
        rows, columns = self.places // kept.shape[1], self.places % kept.shape[1]
        self._matrix = _matrix(rows, columns, self.values.data, kept.shape)
        self._slopes = _matrix(rows, columns, self.values.grad, kept.shape)
        self._order = torch.argsort(columns, stable=True)
        self._flipped = _matrix(columns[self._order], rows[self._order], self.values.data[self._order], kept.t().shape)
        self._transposed = transposed
        self._across = self._product = torch.empty(0, 0)

    def _multiply(self, out: Tensor) -> None:
        address = self._x.data_ptr()
        if address not in self._transposed:
            self._transposed[address] = self._x.t().contiguous()
        self._across = self._transposed[address]
        if self._product.shape[1] != len(self._x):
            self._product = self._x.new_zeros(self.width, len(self._x))
        if self._bias is None:
            torch.addmm(self._product, self._matrix, self._across, beta=0, out=self._product)
        else:
            bias = self._bias.data[:, None].expand_as(self._product)
            torch.addmm(bias, self._matrix, self._across, out=self._product)
        out.copy_(self._product.t())

    def _differentiate(self, gradient: Tensor, *, to_input: bool) -> Tensor:
        across = gradient.t().contiguous()
        # In place: otherwise torch copies the matrix.
        torch.sparse.sampled_addmm(self._slopes, across, self._across.t(), beta=0.0, out=self._slopes)
        if not to_input:
            return gradient
        torch.index_select(self.values.data, 0, self._order, out=self._flipped.values())
        return (self._flipped @ across).t().contiguous()


def explicit_layers(
    network: nn.Module, masked: Sequence[MaskedParameter], transposed: dict[int, Tensor]
) -> list[ExplicitLinear]:
    """Return the layers of an MLP, in a form that skips pruned weights if they are neurons, or most of a large weight.

    `transposed`: see SparseLinear.
    """
    masks = {id(each.parameter): each.mask for each in masked}
    layers: list[ExplicitLinear] = []
    for linear, relu in plain_layers(network) or []:
        kept = masks.get(id(linear.weight))
        number = 0 if kept is None else int(kept.count_nonzero())
        if kept is None or not number or kept.numel() < _ENTRIES:
            layers.append(ExplicitLinear(linear, relu=relu))
        elif number == int(kept.any(1).sum()) * int(kept.any(0).sum()) <= _BLOCK * kept.numel():
            layers.append(BlockLinear(linear, kept, relu=relu))
        elif number <= _DENSITY * kept.numel():
            layers.append(SparseLinear(linear, kept, transposed, relu=relu))
        else:
            layers.append(ExplicitLinear(linear, relu=relu))
    return layers


def plain_layers(network: nn.Module) -> list[tuple[nn.Linear, bool]] | None:
    """Return each linear layer of an MLP and whether a ReLU follows it; None for any other network.

    An MLP: linear layers with ReLUs between them and a Flatten before the first, of which none is used twice, and
    nothing that observes or replaces a module's forward.
    """
    layers: list[tuple[nn.Linear, bool]] = []
    leaves = [module for module in network.modules() if type(module).forward is not nn.Sequential.forward]
    hooked = any(_is_watched(module) for module in network.modules())
    hooked |= any(
        each._backward_hooks or getattr(each, "_post_accumulate_grad_hooks", None) for each in network.parameters()
    )
    if hooked or sum(1 for _ in network.named_modules(remove_duplicate=False)) != sum(1 for _ in network.modules()):
        return None
    for place, module in enumerate(leaves):
        if type(module) is nn.Linear and module.weight.dtype is torch.float32:
            layers.append((module, False))
        elif type(module) is nn.ReLU and layers and not layers[-1][1]:
            layers[-1] = (layers[-1][0], True)
        elif not (type(module) is nn.Flatten and place == 0 and (module.start_dim, module.end_dim) == (1, -1)):
            return None
    flat = bool(leaves) and type(leaves[0]) is nn.Flatten
    return layers if flat and layers and not layers[-1][1] else None


def _is_watched(module: nn.Module) -> bool:
    """Return whether something observes or replaces what a call of the module does."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in vars(module)


def _matrix(rows: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a sparse matrix of sorted `rows` that shares the memory of `values`."""
    starts = torch.zeros(shape[0] + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(rows, minlength=shape[0]).cumsum(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that its sparse tensors may change
        return torch.sparse_csr_tensor(starts, columns.int(), values, tuple(shape), check_invariants=False)
