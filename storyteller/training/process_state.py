"""Process state during training: random numbers, precision, signals; and what it says."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm


def say(line: str) -> None:
    """Write a line to stderr, above the progress bars."""
    tqdm.write(line, file=sys.stderr)


def random_states() -> list[Tensor]:
    """The random states of the CPU and of each GPU."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpus]


def set_random_states(states: Sequence[Tensor]) -> None:
    """Restore the result of :func:`random_states`; GPUs that are absent are skipped."""
    torch.set_rng_state(states[0])
    for gpu, state in enumerate(states[1 : 1 + torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, gpu)


@contextlib.contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Whether float32 products on a GPU, cuDNN's too, which takes them unasked, have 19 bits."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision('high' if tf32 else before[0])
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end training as Ctrl-C does; outside the main thread signals stay as they are."""

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
