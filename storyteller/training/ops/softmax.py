"""Losses over a vocabulary: the full softmax of 2015, and a sampled softmax.

Both take hidden states and give a *sum* over words, as the costs of 2015 are sums. They share one
output layer, so a model trained with either is exported in the same form.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...nn.packed import matmul

_EPSILON = 1e-8  # the cost of 2015 is -log(p + 1e-8)
_MARGIN = 1e-6  # keeps -log(1 - p) finite


class Rows(NamedTuple):
    """The first rows of an output layer as a smaller layer that shares its gradients."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def first(cls, output: nn.Linear, n: int) -> Rows:
        """The layer for the first `n` words alone."""
        return cls(output.weight[:n], output.bias[:n])

    def __call__(self, hidden: Tensor) -> Tensor:
        """(n, H) -> logits (n, V)."""
        return nn.functional.linear(hidden, *self)


def _costs_of_told(p: Tensor) -> tuple[Tensor, Tensor]:
    """The cost of words of probability p, and by what the gradient of -log p is multiplied."""
    return -torch.log(p + _EPSILON), p / (p + _EPSILON)


def _costs_of_unlikely(p: Tensor) -> tuple[Tensor, Tensor]:
    return -torch.log(1 - p + _MARGIN), -p / (1 - p + _MARGIN)


def full_cost(
    hidden: Tensor,
    targets: Tensor,
    output: nn.Linear | Rows,
    dtype: torch.dtype | None = None,
    rows: int | None = None,
    costs_of: Callable[[Tensor], tuple[Tensor, Tensor]] = _costs_of_told,
) -> Tensor:
    """The summed loss -log(p + 1e-8) of 2015 over the whole vocabulary, a () tensor.

    The (n, V) matrix of logits is never kept: gradients are computed block by block while it is
    at hand, and only if there are any to come.

    Parameters
    ----------
    hidden, targets : (n, H) tensor, and (n,) int64 tensor
    output : torch.nn.Linear or Rows
        H -> V.
    dtype : torch.dtype, optional
        Of the matrix products; None: that of `hidden`.
    rows : int, optional
        Size of a block. None: 1024, on a GPU 8192.
    costs_of : callable
        Another loss: probabilities of the targets to their costs, and to what the gradient of
        -log p is multiplied by.
    """
    learns = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (hidden, output.weight, output.bias)
    )
    dtype = dtype or hidden.dtype
    if rows is None:
        rows = 8192 if hidden.is_cuda else 1024
    return _BlockedSoftmax.apply(
        hidden, output.weight, output.bias, targets, dtype, rows, costs_of, learns
    )


# The summed unlikelihood loss -log(1 - p) (Welleck et al. 2020).
unlikely_cost = functools.partial(full_cost, costs_of=_costs_of_unlikely)


class _BlockedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, dtype, rows, costs_of, learns):
        states, words = hidden.detach().to(dtype), weight.detach().to(dtype)
        cost = hidden.new_zeros(())
        if learns:
            d_hidden = torch.empty_like(hidden)
            d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for block in torch.arange(len(hidden), device=hidden.device).split(rows):
            logits = matmul(states[block], words.T).to(bias.dtype).add_(bias)  # (rows, V)
            aim = targets[block, None]
            right = logits.gather(1, aim)
            top = logits.amax(1, keepdim=True)
            errors = logits.sub_(top).exp_()  # in place: this is bound by memory
            total = errors.sum(1, keepdim=True)
            costs, factor = costs_of(torch.exp(right - top) / total)
            cost += costs.sum()
            if not learns:
                continue
            # Softmax less one at the target, times the factor.
            errors.mul_(factor / total)
            errors.scatter_add_(1, aim, -factor)
            d_bias += errors.sum(0)
            errors = errors.to(dtype)
            d_hidden[block] = matmul(errors, words).to(hidden.dtype)
            d_weight += matmul(errors.T, states[block])
        if learns:
            ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return cost

    @staticmethod
    def backward(ctx, scale):
        gradients = [gradient * scale for gradient in ctx.saved_tensors]
        return *gradients, None, None, None, None, None


def log_frequencies(counts: np.ndarray) -> np.ndarray:
    """Log probabilities (V,), float32, of words that occur so often: a start for the output bias.

    A sample hardly ever holds a rare word, so training alone would take very long to learn that
    it is rare.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1)
    return np.log(counts / counts.sum()).astype(np.float32)


class SampledSoftmax(nn.Module):
    """Sampled softmax loss; the sample is shared by the whole batch.

    Each target competes with `samples` words drawn from the word frequencies, `counts` (V,) raised
    to `power`, instead of all V. Their logits are corrected by the log of the expected counts, so
    that their sum stands for that over all words but the target, and cost and gradient approach
    those of the full softmax (Jean et al. 2015, "On Using Very Large Target Vocabulary for Neural
    Machine Translation").
    """

    def __init__(self, counts: Tensor, samples: int = 1000, power: float = 0.75):
        super().__init__()
        noise = counts.double().clamp(min=1).pow(power)
        self.samples = samples
        self.register_buffer('noise', (noise / noise.sum()).float(), persistent=False)

    def forward(self, hidden: Tensor, targets: Tensor, output: nn.Linear | Rows) -> Tensor:
        """Shapes as in :func:`full_cost`."""
        assert isinstance(self.noise, Tensor)
        drawn = torch.multinomial(self.noise, self.samples, replacement=True)  # (S,)
        expected = torch.log(self.noise) + math.log(self.samples)  # (V,) log expected counts
        # One look-up for both: the gradient of each is as large as the whole table.
        weights = output.weight[torch.cat([drawn, targets])]  # (S + n, H)
        with torch.autocast(hidden.device.type, dtype=torch.bfloat16):
            against = hidden @ weights[: self.samples].T  # (n, S)
        against = against.float() + (output.bias - expected)[drawn]
        against = against.masked_fill(targets[:, None] == drawn, -torch.inf)
        aim = (hidden * weights[self.samples :]).sum(1) + output.bias[targets]  # (n,)
        return (torch.logaddexp(against.logsumexp(1), aim) - aim).sum()


def cost_of_words(samples: int, counts: np.ndarray | None, dtype: torch.dtype) -> Callable:
    """The full loss; with a number of `samples` the sampled one, which needs word counts (V,)."""
    if not samples:
        return functools.partial(full_cost, dtype=dtype)
    if counts is None:
        raise ValueError('samples: a sampled softmax needs the counts of the words')
    return SampledSoftmax(torch.as_tensor(counts), samples)
