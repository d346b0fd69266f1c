"""How much work something is, in a number that no other process can change."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def calls_below(most: int) -> Iterator[None]:
    """Fail if the block calls functions, of Python or in C, so often or more often.

    Seconds would depend on the machine, and on what else it does.
    """
    calls, before = 0, sys.getprofile()

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ('call', 'c_call')

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert calls < most, f'{calls:,} calls, expected fewer than {most:,}'
