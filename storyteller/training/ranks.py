"""Several processes that train one model together, as ``torchrun`` starts them.

Each takes its part of every batch; the costs are sums, so the gradients of a batch are the sum of
all parts' gradients, and every process makes the same step. Without ``torchrun`` there is one
process, and all functions here do nothing.
"""

from __future__ import annotations

import os
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar('T')


def join() -> None:
    """Meet the other processes, if ``torchrun`` has started some and they have not met yet."""
    if int(os.environ.get('WORLD_SIZE', '1')) > 1 and not distributed.is_initialized():
        distributed.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    """Which of them this is; the one with number 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def part(batch: T) -> T:
    """What this process takes of a batch: every `count`-th item, from its own number on."""
    if len(batch) < count():
        raise ValueError(f'a batch of {len(batch)} cannot be shared among {count()} processes')
    return batch[number() :: count()]


def agree(value: float) -> float:
    """The value that the first process has."""
    if count() == 1:
        return value
    kind = 'cuda' if distributed.get_backend() == 'nccl' else 'cpu'
    shared = torch.tensor(value, dtype=torch.float64, device=kind)
    distributed.broadcast(shared, 0)
    return float(shared)


def sum_gradients(module: nn.Module) -> None:
    """Give every process the sum of all processes' gradients, by one transfer."""
    if count() == 1:
        return
    gradients = [param.grad for param in module.parameters() if param.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, summed in zip(gradients, _like(flat, gradients), strict=True):
        gradient.copy_(summed)


def _like(flat: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
