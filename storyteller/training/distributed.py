"""Distributed training with ``torchrun``.

Each takes its part of every batch. Costs are sums, so the gradients of a batch are the sum of all
parts' gradients, and every process makes the same step, the one that a single process would make.
A cost that compares the items of a batch with each other is computed whole by every process, from
what all have gathered. Without ``torchrun`` there is one process, and nothing here does anything.

Dimension letters: B items of a whole batch, b of them in this process, D anything.
"""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional


def join() -> None:
    """Join the process group, if ``torchrun`` has started several processes.

    To be called before a device is picked: each process takes a GPU of its own, where there are.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', '0')))
        # Its functions have the group of their first import as a default, and so keep it for ever;
        # optimizers import it at their first step.
        importlib.import_module('torch.distributed.nn.functional')
        distributed.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')
        atexit.register(_leave)


def _leave() -> None:
    """End the threads that talk to the other processes, which is done once nothing holds the group.

    A thread that still has a tensor of Python's to let go when Python ends aborts the process.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def number() -> int:
    """Rank of this process; rank 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def part(batch: Any) -> Any:
    """The items of a batch for this process: every `count`-th, from its rank on.

    A ValueError says that there are fewer than processes; :func:`enough` says which to leave out.
    """
    if len(batch) < count():
        raise ValueError(f'a batch of {len(batch)} cannot be shared among {count()} processes')
    return batch[number() :: count()]


def enough(batch: Sized) -> bool:
    """Whether a batch has an item for each process."""
    return len(batch) >= count()


def gather(rows: Tensor) -> Tensor:
    """Rows (b, D) of every process's `part`, in the order of the whole batch (B, D).

    Gradients flow into this process's own rows alone: the sum over the processes has them all.
    """
    if count() == 1:
        return rows
    sizes = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(count())]
    distributed.all_gather(sizes, torch.tensor(len(rows), device=rows.device))
    most = int(max(sizes))
    sent = rows.new_zeros(most, *rows.shape[1:])
    sent[: len(rows)] = rows.detach()
    parts = [torch.empty_like(sent) for _ in range(count())]
    distributed.all_gather(parts, sent)
    parts[number()] = functional.pad(rows, (0, 0, 0, most - len(rows)))
    return torch.stack(parts, 1).flatten(0, 1)[: int(sum(sizes))]


def once(cost: Tensor) -> Tensor:
    """A cost that all processes compute whole: its value is shared out, its gradient is not."""
    return cost + cost.detach() * (1 / count() - 1)


def agree(value: float) -> float:
    """The value of the first process."""
    if count() == 1:
        return value
    distributed.broadcast(shared := _numbers(value), 0)
    return shared.item()


def summed(*values: float) -> list[float]:
    """Sums of numbers over the processes."""
    if count() > 1:
        distributed.all_reduce(shared := _numbers(*values))
        return shared.tolist()
    return list(values)


def _numbers(*values: float) -> Tensor:
    kind = 'cuda' if distributed.get_backend() == 'nccl' else 'cpu'
    return torch.tensor(values, dtype=torch.float64, device=kind)


def sum_gradients(module: nn.Module) -> None:
    """Sum the gradients over all processes, in one transfer."""
    if count() == 1:
        return
    gradients = [param.grad for param in module.parameters() if param.grad is not None]
    flat = nn.utils.parameters_to_vector(gradients)
    distributed.all_reduce(flat)
    nn.utils.vector_to_parameters(flat, gradients)
