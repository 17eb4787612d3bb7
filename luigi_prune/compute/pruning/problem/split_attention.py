"""`nn.MultiheadAttention` with its four projections as layers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.equivalents import Equivalent, Named, PartLinear, has_own_forward

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class SplitAttention(Equivalent, nn.Module):
    """Multi-head attention whose query, key, value and output projections are called as layers.

    Arguments and results are those of `nn.MultiheadAttention`. `in_proj_weight`, `in_proj_bias` and `merge_masks` are
    for torch's encoder layers, whose fused path reads them.
    """

    merge_masks = nn.MultiheadAttention.merge_masks
    _has_all_heads = True

    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        assert isinstance(module, nn.MultiheadAttention)
        self.embed_dim, self.num_heads, self.head_dim = module.embed_dim, module.num_heads, module.head_dim
        self.dropout, self.batch_first, self.add_zero_attn = module.dropout, module.batch_first, module.add_zero_attn
        self.kdim, self.vdim, self._qkv_same_embed_dim = module.kdim, module.vdim, module._qkv_same_embed_dim
        has_bias = module.in_proj_bias is not None
        for name, width in zip(PROJECTIONS, (self.embed_dim, self.kdim, self.vdim), strict=True):
            part = PartLinear(width, self.embed_dim, bias=has_bias, device="meta")
            part.follows_heads = name != "v_proj"  # a head is removed with its values, not with its queries or keys
            part.heads = 1 if part.follows_heads else self.num_heads
            self.add_module(name, part)
        has_bias = module.out_proj.bias is not None
        self.out_proj = PartLinear(self.embed_dim, self.embed_dim, bias=has_bias, device="meta")
        self.out_proj.is_linear, self.out_proj.heads, self.out_proj.head_axis = True, self.num_heads, 1
        self.register_parameter("bias_k", None)
        self.register_parameter("bias_v", None)
        self.adopt(module)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        if not isinstance(module, nn.MultiheadAttention) or has_own_forward(module) or has_own_forward(module.out_proj):
            return False
        names = ["in_proj_weight"] if module._qkv_same_embed_dim else [f"{name}_weight" for name in PROJECTIONS]
        owned = all(isinstance(module._parameters.get(name), nn.Parameter) for name in names)
        return owned and isinstance(module.out_proj._parameters.get("weight"), nn.Parameter)

    @staticmethod
    def split(module: nn.Module, values: Named) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = {}
        for key, value in values.items():
            if key.startswith("in_proj_"):
                names = (f"{name}.{key.removeprefix('in_proj_')}" for name in PROJECTIONS)
                parts.update(zip(names, value.chunk(3), strict=True))
            else:
                parts[key.replace("_proj_weight", "_proj.weight")] = value
        return parts

    @staticmethod
    def join(module: nn.Module, values: Named) -> dict[str, Tensor]:
        assert isinstance(module, nn.MultiheadAttention)
        whole = {key: value for key, value in values.items() if not key.startswith(PROJECTIONS)}
        weights = [values[f"{name}.weight"] for name in PROJECTIONS]
        if module._qkv_same_embed_dim:
            whole["in_proj_weight"] = torch.cat(weights)
        else:
            whole.update(zip((f"{name}_weight" for name in PROJECTIONS), weights, strict=True))
        if "q_proj.bias" in values:
            whole["in_proj_bias"] = torch.cat([values[f"{name}.bias"] for name in PROJECTIONS])
        return whole

    def is_whole(self) -> bool:
        return self._has_all_heads and all(isinstance(child, nn.Linear) for child in self.children())

    def keep_heads(self, count: int) -> None:
        """Take note that the projections have `count` heads now, fewer than `nn.MultiheadAttention` allows."""
        self.num_heads, self._has_all_heads = count, False
        self._qkv_same_embed_dim = False  # keeps torch's encoder layers off their fused path, which needs all heads

    @property
    def in_proj_weight(self) -> Tensor:
        return torch.cat([self.get_submodule(name).weight for name in PROJECTIONS])  # type: ignore[misc]

    @property
    def in_proj_bias(self) -> Tensor | None:
        biases = [self.get_submodule(name).bias for name in PROJECTIONS]
        given = [bias for bias in biases if isinstance(bias, Tensor)]
        if not given:
            return None  # a decomposition may have added a bias to some of them
        return torch.cat([bias if isinstance(bias, Tensor) else given[0].new_zeros(self.embed_dim) for bias in biases])

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        is_batched, first = query.dim() == 3, 0 if self.batch_first else 1
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask: pass the mask, too")
        heads = [self._heads(name, x if is_batched else x.unsqueeze(first), first)
                 for name, x in zip(PROJECTIONS, (query, key, value), strict=True)]  # fmt: skip
        q, k, v = heads
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat([x, self._as_heads(b.expand(len(x), 1, -1))], 2)
                    for x, b in ((k, self.bias_k), (v, self.bias_v)))  # fmt: skip
            extra += 1
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
            extra += 1
        mask = self._merged_mask(q, attn_mask, key_padding_mask, extra)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
            weights = F.dropout(torch.softmax(scores if mask is None else scores + mask, dim=-1), dropout)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        mixed = mixed.transpose(1, 2).flatten(2)  # (batch, length, features)
        output = self.out_proj(mixed if self.batch_first else mixed.transpose(0, 1))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not is_batched:
            return output.squeeze(first), None if weights is None else weights.squeeze(0)
        return output, weights

    def _heads(self, name: str, value: Tensor, batch_axis: int) -> Tensor:
        """Return a projection of `value` as (batch, heads, length, features of a head)."""
        projected = self.get_submodule(name)(value)
        return self._as_heads(projected if batch_axis == 0 else projected.transpose(0, 1))

    def _as_heads(self, value: Tensor) -> Tensor:
        return value.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _merged_mask(self, q: Tensor, attention: Tensor | None, padding: Tensor | None, extra: int) -> Tensor | None:
        """Return the sum of both masks, to be added to the scores; `extra`: keys at the end that no mask hides."""

        def added(mask: Tensor) -> Tensor:
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, -math.inf)
            return F.pad(mask, (0, extra)) if extra else mask

        merged: Any = None
        if attention is not None:
            merged = added(attention)
            if merged.dim() == 3:
                merged = merged.view(-1, self.num_heads, *merged.shape[1:]) if len(merged) > 1 else merged[:, None]
        if padding is not None:
            hidden = added(padding).view(len(q), 1, 1, -1)
            merged = hidden if merged is None else merged + hidden
        return merged
