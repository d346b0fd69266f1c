"""Matmul throughput in float32 and bfloat16 on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from . import distributed
from .ops.recurrence import affine
from .process_state import say

SECONDS = 0.3  # for each of the two; one product is made in any case
SLOWER = 1.3  # times: less may be chance


def check_bfloat16(wanted: bool, width: int, rows: int, device: torch.device) -> None:
    """Warn on stderr, with timings, if bfloat16 is slower than float32 here.

    Some processors have no such products, and make them by parts, tens of times as slowly. The GRU
    has `width` units, a batch `rows` sequences. Nothing is measured unless bfloat16 is `wanted`.
    """
    if not wanted or distributed.number() > 0:
        return
    rows = max(1, rows // distributed.count())
    plain, half = (
        seconds(_product(width, rows, device, dtype), device)
        for dtype in (torch.float32, torch.bfloat16)
    )
    if half > SLOWER * plain:
        say(
            f'bfloat16 is slow here: a product of {rows} x {width} by {width} x {3 * width} takes '
            f'{1000 * half:.4g} ms, in float32 {1000 * plain:.4g} ms. Without --bfloat16, '
            f'products are {half / plain:.1f} times as fast.'
        )


def _product(
    width: int, rows: int, device: torch.device, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """A product as a GRU's step makes it."""
    shapes = (rows, width), (3 * width, width), (3 * width,)
    x, weight, bias = (torch.ones(shape, device=device, dtype=dtype) for shape in shapes)

    @torch.no_grad()
    def product() -> Tensor:
        return affine(x, weight, bias)

    return product


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest time of a piece of work, repeated for :data:`SECONDS`, or once."""
    taken: list[float] = []
    while not taken or sum(taken) < SECONDS:
        began = time.perf_counter()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return min(taken)
