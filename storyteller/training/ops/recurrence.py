"""Affine layers and a GRU over whole sequences, with efficient gradients.

On a CPU, torch unrolls a GRU into single operations, so that each step makes a gradient as large as
the recurrent weights and adds it to those of the steps after it. Here the steps keep what they
were made of, and the gradient of the weights is one product over all of them.

Dimension letters: T steps, B sequences, W inputs, H states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...nn.packed import Linear, can_pack, matmul


def run_gru(module: nn.GRU, x: Tensor, state: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """All states (T, B, H) of a GRU, of the dtype of `state`, with gradients.

    The module is as :func:`storyteller.layers.gru` builds it; `x` is (T, B, W), the first state
    (B, H). Products are of type `dtype`, by default that of `x`: ``torch.bfloat16`` is half of the
    width of float32 weights, for training where that is faster. Not on a GPU, whose kernels would
    keep the states in half of their width too: there it is that of the weights.
    """
    if x.is_cuda:
        kind = module.get_parameter('weight_hh_l0').dtype
        with torch.autocast('cuda', enabled=False):
            states, _ = module(x.to(kind), state[None].to(kind).contiguous())
        return states.to(state.dtype)
    w, u, b = (
        module.get_parameter(name).to(dtype or x.dtype)
        for name in ('weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0')
    )
    return _Steps.apply(affine(x.to(w.dtype), w, b), state, u)


class _Steps(torch.autograd.Function):
    """States (T, B, H) from x W + b (T, B, 3H), the first state (B, H) and U' (3H, H).

    The gates stand in the order of torch: reset r, update u, candidate c. Products are computed in
    the dtype of U, all else in that of the state.
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, state: Tensor, weight: Tensor) -> Tensor:
        steps, batch, hidden = len(inputs), *state.shape
        states = state.new_empty(steps + 1, batch, hidden)
        gates = state.new_empty(steps, batch, 2 * hidden)  # r and u
        candidates, products = torch.empty_like(states[1:]), torch.empty_like(states[1:])
        states[0], step = state, Linear(weight)
        for t, given in enumerate(inputs.unbind()):
            past = states[t]
            product = step(past)  # h U
            torch.add(given[:, : 2 * hidden], product[:, : 2 * hidden], out=gates[t]).sigmoid_()
            reset, update = gates[t].split(hidden, dim=1)
            products[t] = product[:, 2 * hidden :]
            candidates[t] = given[:, 2 * hidden :]
            candidates[t].addcmul_(reset, products[t]).tanh_()
            torch.lerp(candidates[t], past, update, out=states[t + 1])
        ctx.save_for_backward(states, gates, candidates, products, weight)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, d_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, gates, candidates, products, weight = ctx.saved_tensors
        steps, batch, hidden = d_states.shape
        d_inputs = weight.new_empty(steps, batch, 3 * hidden)
        d_products = torch.empty_like(d_inputs)
        d_gates = torch.empty_like(gates[0])
        carried, step = torch.zeros_like(states[0]), Linear(weight.T)
        for t in reversed(range(steps)):
            reset, update = gates[t].split(hidden, dim=1)
            d = d_states[t] + carried
            kept = d * update
            d_candidate = torch.ops.aten.tanh_backward(d - kept, candidates[t])
            torch.mul(d_candidate, products[t], out=d_gates[:, :hidden])
            torch.mul(d, states[t] - candidates[t], out=d_gates[:, hidden:])
            d_gate = torch.ops.aten.sigmoid_backward(d_gates, gates[t])
            for end, last in ((d_inputs, d_candidate), (d_products, d_candidate * reset)):
                end[t, :, : 2 * hidden] = d_gate
                end[t, :, 2 * hidden :] = last
            carried = kept.add_(step(d_products[t]))
        past = states[:-1].flatten(0, 1).to(weight.dtype)
        return d_inputs, carried, matmul(d_products.flatten(0, 1).T, past)


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
