"""Affine layers with gradients, computed by :func:`storyteller.nn.packed.matmul`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...nn.packed import can_pack, matmul


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x W' + b`` of x (..., in), W (out, in) and b (out,), all of one type, with gradients."""
    if not can_pack(weight):
        return nn.functional.linear(x, weight, bias)
    return _Affine.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return matmul(x, weight.T).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, d: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        d_x = matmul(d, weight) if ctx.needs_input_grad[0] else None
        return d_x, matmul(d.T, x), d.sum(0)
