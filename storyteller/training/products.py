"""Matrix products at the processor's full width, with gradients.

On a CPU, torch leaves float32 to a library that uses half of the vector units of many processors;
oneDNN, which comes with torch too, uses all of them. It also takes matrices in any order of memory
as they are, and gives what torch gives, up to the order of the sums.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..packed import can_pack


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for an (n, k) and a (k, m) matrix of one type, without gradients."""
    if not a.numel() or not can_pack(b):
        return a @ b
    return torch.ops.mkldnn._linear_pointwise(a, b.T, None, 'none', [], '')


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """What an affine layer makes of x (..., in): (..., out), with gradients."""
    return affine(x, layer.weight, layer.bias)


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
