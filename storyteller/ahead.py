"""Doing the next thing while the last one is used: reading photos while others are told."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from .errors import ImageError
from .images import Loaded, load_image

Item = TypeVar('Item')
Result = TypeVar('Result')
Note = TypeVar('Note')


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What ``map(work, items)`` gives, each begun in a thread while the one before is used.

    One is done at a time, in order, and one is ahead at most. An error comes in its place.

    Examples
    --------
    >>> list(ahead(len, ['a', 'bc', '']))
    [1, 2, 0]
    """
    with ThreadPoolExecutor(1, thread_name_prefix='ahead') as thread:
        yield from mapped(thread, work, items, most=2)


def mapped(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[Result]:
    """What ``pool.map(work, items)`` gives, with at most so many given out: no more are read."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def photos_ahead(
    batches: Iterable[tuple[Sequence[Path], Note]], side: int | None, options: Mapping[str, Any]
) -> Iterator[tuple[list[Loaded | Path], Note]]:
    """Batches of photos, read one batch ahead.

    Parameters
    ----------
    batches : iterable of (paths, note)
        A photo that the batch before had too, to be told in another style, is not read again.
    side : int or None
        Of what the network sees; see `storyteller.images.load_image`.
    options : mapping
        Of `storyteller.generate.stories`; those count that are about reading.

    Yields
    ------
    (list of Loaded or Path, note)
        A photo that cannot be read stays a path: whoever is to tell it finds out why.
    """
    reading = {n: options[n] for n in ('allow_truncated', 'max_pixels') if n in options}
    before: dict[Path, Loaded | Path] = {}

    def read(path: Path) -> Loaded | Path:
        try:
            return Loaded(os.fspath(path), *load_image(path, side=side, **reading))
        except ImageError:
            return path

    def read_all(batch: tuple[Sequence[Path], Note]) -> tuple[list[Loaded | Path], Note]:
        nonlocal before
        before = {path: before.get(path) or read(path) for path in batch[0]}
        return [before[path] for path in batch[0]], batch[1]

    return ahead(read_all, batches)
