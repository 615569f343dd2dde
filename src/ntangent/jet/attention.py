"""Taylor rules of attention. Torch's fused kernels see tensors only; a series takes the plain path."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ntangent._base.errors import MissingRule, ShapeError
from ntangent.jet.dispatch import rule
from ntangent.jet.normalise import softmax


def _no_dropout(p: float, where: str) -> None:
    if p > 0:
        raise MissingRule(
            f"{where} with dropout has no Taylor series", "each call would draw another mask", "net.eval()"
        )


def attention_weights(query: Any, key: Any, mask: Any, scale: float) -> Any:
    """Return softmax(q kᵀ · scale + mask), with a mask of booleans (True takes part) or of numbers."""
    scores = torch.matmul(query * scale, key.transpose(-2, -1))
    if mask is not None:
        scores = torch.where(mask, scores, -math.inf) if mask.dtype == torch.bool else scores + mask
    return softmax(scores, -1) if not isinstance(scores, Tensor) else torch.softmax(scores, -1)


@rule(F.scaled_dot_product_attention)
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Return softmax(q kᵀ / sqrt(d)) v.

    Cost: order²/2 matrix products each for q kᵀ and for the weights times v.
    """
    _no_dropout(dropout_p, "attention")
    if is_causal:
        if attn_mask is not None:
            raise MissingRule("attention takes a mask or is_causal, not both", "", "is_causal=False")
        shape = (query.shape[-2], key.shape[-2])
        attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    if enable_gqa:
        key, value = (v.repeat_interleave(query.shape[-3] // v.shape[-3], -3) for v in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return torch.matmul(attention_weights(query, key, attn_mask, scale), value)


def _project(q: Any, k: Any, v: Any, heads: _Projections) -> tuple[Any, Any, Any]:
    biases = (None,) * 3 if heads.bias is None else heads.bias.chunk(3)
    return tuple(F.linear(x, w, b) for x, w, b in zip((q, k, v), heads.weights, biases, strict=True))  # type: ignore[return-value]


class _Projections:
    """The three input projections, from one stacked weight or three."""

    def __init__(self, stacked: Any, separate: tuple[Any, ...] | None, bias: Any) -> None:
        self.weights = stacked.chunk(3) if separate is None else separate
        self.bias = bias


@rule(F.multi_head_attention_forward)
def _multi_head_attention(  # one parameter for each of torch's
    query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any,
    in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float,
    out_proj_weight: Any, out_proj_bias: Any, training: bool = True, key_padding_mask: Any = None,
    need_weights: bool = True, attn_mask: Any = None, use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None, k_proj_weight: Any = None, v_proj_weight: Any = None,
    static_k: Any = None, static_v: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Return output and weights of nn.MultiheadAttention, as torch's Python code computes them."""
    _no_dropout(dropout_p if training else 0.0, "attention")
    if (
        bias_k is not None
        or bias_v is not None
        or add_zero_attn
        or static_k is not None
        or static_v is not None
    ):
        raise MissingRule(
            "no Taylor rule for attention with add_bias_kv, add_zero_attn or static keys",
            "",
            "their defaults",
        )
    if is_causal and attn_mask is None:
        raise ShapeError("attention with is_causal needs attn_mask", "torch takes the mask as given", "")
    if query.shape[-1] != embed_dim_to_check:
        raise ShapeError(f"queries have {query.shape[-1]} features, not {embed_dim_to_check}", "", "")
    batched = query.ndim == 3
    if not batched:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = (
        _heads(x, num_heads)
        for x in _project(query, key, value, _Projections(in_proj_weight, separate, in_proj_bias))
    )
    mask = _joint_mask(attn_mask, key_padding_mask, q.shape, query.dtype)
    weights = attention_weights(q, k, mask, 1 / math.sqrt(q.shape[-1]))
    joined = torch.matmul(weights, v).permute(2, 0, 1, 3).flatten(2)
    output = F.linear(joined, out_proj_weight, out_proj_bias)
    if average_attn_weights:
        weights = weights.mean(1)
    if not batched:
        output, weights = output.squeeze(1), weights.squeeze(0)
    return output, weights if need_weights else None


def _heads(x: Any, count: int) -> Any:
    """Return (length, batch, features) as (batch, head, length, features of a head)."""
    length, batch, features = x.shape
    return x.reshape(length, batch, count, features // count).permute(1, 2, 0, 3)


def _joint_mask(attn_mask: Any, padding: Any, shape: Any, dtype: torch.dtype) -> Any:
    """Return the sum of both masks as numbers to add; in nn.MultiheadAttention True leaves out."""
    total = None
    if attn_mask is not None:
        total = _numbers(attn_mask, dtype)
        total = total.reshape(shape[0], shape[1], *total.shape[1:]) if total.ndim == 3 else total
    if padding is not None:
        padding = _numbers(padding, dtype)[:, None, None, :]
        total = padding if total is None else total + padding
    return total


def _numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)
