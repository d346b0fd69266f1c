"""Optimisers: torch's Adam, and that of the code of 2015; gradient clipping as in 2015."""

from __future__ import annotations

import math

import torch
from torch import nn

from .options import TrainOptions


class Adam2015(torch.optim.Optimizer):
    """Adam as the code of 2015 had it.

    Its moments decay as usual, but the bias correction uses powers of 0.1 and 0.001 where Kingma
    and Ba (2015) have 0.9 and 0.999, so that it is almost absent: the first few hundred steps are
    several times longer than with :class:`torch.optim.Adam`.
    """

    def __init__(self, params, lr: float = 2e-4):
        super().__init__(params, {'lr': lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group['params']:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state['step'] = 0
                    state['m'], state['v'] = torch.zeros_like(param), torch.zeros_like(param)
                state['step'] += 1
                t = state['step']
                state['m'].mul_(0.9).add_(param.grad, alpha=0.1)
                state['v'].mul_(0.999).addcmul_(param.grad, param.grad, value=0.001)
                rate = group['lr'] * math.sqrt(1 - 0.001**t) / (1 - 0.1**t)
                param.addcdiv_(state['m'], state['v'].sqrt().add_(1e-8), value=-rate)


def make_optimizer(module: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser selected by `options`, over all trainable parameters."""
    params = [param for param in module.parameters() if param.requires_grad]
    if options.optimizer == 'adam2015':
        return Adam2015(params, options.lr)
    # fused: one pass over memory
    if decay := options.weight_decay:
        return torch.optim.AdamW(params, options.lr, weight_decay=decay, fused=True)
    return torch.optim.Adam(params, options.lr, fused=True)


def clip_gradients(module: nn.Module, clip: float) -> float:
    """Scale all gradients to the global norm `clip`, if they exceed it; returns the norm.

    As in 2015 the factor is clip / norm, with no epsilon. `clip` = 0 only measures.
    """
    gradients = [param.grad for param in module.parameters() if param.grad is not None]
    norm = math.hypot(*(float(torch.linalg.vector_norm(gradient)) for gradient in gradients))
    if 0 < clip < norm:
        for gradient in gradients:
            gradient.mul_(clip / norm)
    return norm
