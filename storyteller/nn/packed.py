"""Layers whose weights are packed once into the layout of the processor's kernels.

A product of a beam's few rows with a large matrix spends as much time on bringing the matrix into
that order as on the sums themselves; so does a convolution of one photo. oneDNN, the library that
comes with torch, can do it once and for all. The results are those of the plain layers up to the
order of the sums. Where oneDNN is not to be had, on a GPU for example, the layers are plain ones.

Dimension letters: R rows, B sequences, W inputs, H states.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear as plain_linear

from ..layers import gru, inference

Params = Mapping[str, np.ndarray]
ROWS = 64  # that a product is packed for; others are as right, and about as fast

# oneDNN, and torch's own layer above it, keep what they prepare for each shape of a product: by
# themselves a thousand of them, which may be gigabytes. They read these when they are first used.
KEPT = dict.fromkeys(('ONEDNN_PRIMITIVE_CACHE_CAPACITY', 'LRU_CACHE_CAPACITY'), '64')
if 'DNNL_PRIMITIVE_CACHE_CAPACITY' not in os.environ:  # the older name of the first
    for _name, _count in KEPT.items():
        os.environ.setdefault(_name, _count)


def can_pack(weight: Tensor) -> bool:
    """Whether `weight` can be packed: on a CPU with oneDNN, for its dtype."""
    return (
        weight.device.type == 'cpu'
        and weight.numel() > 0
        and torch.backends.mkldnn.is_available()
        and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _has_bfloat16()))
        and _operators_work(weight.dtype)
    )


def _has_bfloat16() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except Exception:
        return False


@functools.cache
def _operators_work(dtype: torch.dtype) -> bool:
    """Whether the operators, which torch promises to nobody, are there and do what they did."""
    numbers = torch.arange(9, dtype=dtype, device='cpu')
    weight, row = numbers[:6].view(2, 3), numbers[None, :3]
    kernel, photo = numbers[1:5].view(1, 1, 2, 2), numbers.view(1, 1, 3, 3)
    operators, shape = torch.ops.mkldnn, ([0, 0], [1, 1], [1, 1], 1)
    try:
        with inference():
            packed = operators._reorder_linear_weight(weight, ROWS)
            product = operators._linear_pointwise(row, packed, None, 'none', [], '')
            packed = operators._reorder_convolution_weight(kernel, *shape, photo.shape)
            seen = operators._convolution_pointwise(photo, packed, None, *shape, 'none', [], '')
            return product.tolist() == [[5, 14]] and seen.tolist() == [[[[27, 37], [57, 67]]]]
    except Exception:  # of whatever kind another torch raises
        return False


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for an (n, k) and a (k, m) matrix of one dtype, without gradients.

    On a CPU, torch leaves float32 to a library that reaches half the rate of oneDNN on some
    processors. oneDNN takes matrices in any order of memory.
    """
    if not a.numel() or not can_pack(b):
        return a @ b
    return torch.ops.mkldnn._linear_pointwise(a, b.T, None, 'none', [], '')


class Linear(nn.Module):
    """``x W' + b`` for inference, from the weight (out, in) and bias (out,) of a plain layer.

    The weight is not kept if it is packed, so that it need not stay in memory.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self.weight: Any = weight  # or None, once it is packed
        self.packed: Any = None
        self._pack()

    def __getstate__(self) -> dict[str, Any]:
        """The plain weight in place of the packed one, which cannot be copied or pickled."""
        state = self.__dict__ | {'packed': None}
        return state if self.packed is None else state | {'weight': self.packed.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pack()

    def _pack(self) -> None:
        if can_pack(self.weight):
            with torch.inference_mode(False):
                weight = self.weight.contiguous()
                self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
            self.weight = None

    @classmethod
    def of(cls, params: Params, name: str, device: torch.device | None = None) -> Linear:
        """The affine layer ``{name}_W`` (in, out) and ``{name}_b`` of 2015."""
        weight, bias = (torch.from_numpy(params[f'{name}_{kind}']) for kind in 'Wb')
        return cls(weight.T.to(device), bias.to(device))

    def forward(self, x: Tensor) -> Tensor:
        """Rows (..., in) to (..., out), float32 or wider; products are of the weight's type."""
        x = x.to(self.dtype)
        if self.packed is None:
            product = plain_linear(x, self.weight, self.bias)
            return product.to(torch.promote_types(self.dtype, torch.float32))
        if not x.numel():  # which oneDNN does not take
            return x.new_empty(*x.shape[:-1], self.out_features).float()
        pointwise = torch.ops.mkldnn._linear_pointwise
        return pointwise(x.contiguous(), self.packed, self.bias, 'none', [], '').float()

    def log_probs(self, x: Tensor) -> Tensor:
        """Log-probabilities of the output."""
        logits = self(x)
        if logits.device.type != 'cpu':
            return logits.log_softmax(dim=-1)
        return torch.log_softmax(logits, -1, out=logits)  # new memory would take as long again


class GRU(nn.Module):
    """A GRU for inference, stepped from outside; see :mod:`storyteller.layers` for its form.

    It is made of the six arrays of 2015 that `params` holds under `prefix`. Products are of type
    `dtype`: float32, or bfloat16, which is faster and coarser.
    """

    def __init__(
        self,
        params: Params,
        prefix: str,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.input_size, self.hidden_size = params[f'{prefix}_Wx'].shape

        def joined(name: str) -> Tensor:
            gates, candidate = params[f'{prefix}_{name}'], params[f'{prefix}_{name}x']
            both = [torch.from_numpy(array.T) for array in (gates, candidate)]
            return torch.cat(both).to(device, dtype)

        self.inputs = Linear(joined('W'), joined('b'))
        self.states = Linear(joined('U'))

    def project(self, x: Tensor) -> Tensor:
        """The input projections (..., 3H) of inputs (..., W), for all steps at once."""
        return self.inputs(x)

    def step(self, projected: Tensor, state: Tensor) -> Tensor:
        """The next state (B, H) from projected inputs (B, 3H) and the state (B, H) before."""
        H = self.hidden_size
        from_state = self.states(state)
        gates = from_state[:, : 2 * H].add_(projected[:, : 2 * H]).sigmoid_()
        candidate = from_state[:, 2 * H :].mul_(gates[:, :H]).add_(projected[:, 2 * H :]).tanh_()
        return torch.lerp(candidate, state, gates[:, H:])


def gru_for(
    params: Params, prefix: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> nn.GRU | GRU:
    """The fastest GRU for reading sequences on a device: packed on a CPU, torch's on a GPU."""
    if device.type == 'cpu' and can_pack(torch.empty(1, dtype=dtype, device='cpu')):
        return GRU(params, prefix, device, dtype)
    return gru(params, prefix).to(device)


class Conv2d(nn.Conv2d):
    """A convolution that packs its weight on first use, without gradients.

    It packs it again if the weight has changed since.
    """

    packed: Tensor | None = None
    version: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the packed weight, which cannot be copied or pickled."""
        return self.__dict__ | {'packed': None}

    def forward(self, x: Tensor) -> Tensor:
        """Photos (B, in, height, width) to (B, out, height, width)."""
        if torch.is_grad_enabled() or not can_pack(self.weight) or x.device.type != 'cpu':
            return super().forward(x)
        shape = self.padding, self.stride, self.dilation, self.groups
        version = None if self.weight.is_inference() else self.weight._version
        if self.packed is None or self.version != version:
            self.version = version
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.contiguous(memory_format=torch.channels_last), *shape, x.shape
            )
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, self.bias, *shape, 'none', [], ''
        )
