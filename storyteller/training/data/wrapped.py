"""Joining the wrapped lines of e-books to paragraphs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from ...formats import PathLike
from ..process_state import say

LOOKED_AT = 3000  # lines of a file that are judged
FEWEST = 8  # lines that go on in the next one, to judge by
WIDEST = 120  # characters of a line that somebody wrapped
FULL = 0.7  # of the widest lines: a line this long had no room for the next word
LONGEST = 1000  # lines of a paragraph; what is longer has lost its borders
TITLE = '=== '
_END = re.compile(r'[.!?:;"\'”’)\]*_]\s*$')
_HYPHEN = re.compile(r'\w-$')


def unwrapped(lines: Iterable[str], path: PathLike) -> Iterator[str]:
    """The lines of a file; if they are wrapped, one line per paragraph, and it is said.

    Empty lines and those with a title are passed on.
    """
    lines = iter(lines)
    first = list(itertools.islice(lines, LOOKED_AT))
    everything = itertools.chain(first, lines)
    if not are_wrapped(first):
        yield from everything
        return
    say(f'{path}: the lines are wrapped; those between two empty or indented ones are joined')
    indented, empty = (sum(map(kind, first)) for kind in (_is_indented, _is_empty))
    yield from _paragraphs(everything, each=indented > empty)


def are_wrapped(lines: Sequence[str]) -> bool:
    """Whether the lines are wrapped, that is, break in the middle of sentences.

    They are if most that are followed by another are full and end like no sentence.
    """
    pairs = itertools.pairwise(line.rstrip() for line in lines)
    inner = [line for line, after in pairs if line and after and not _begins(line, after)]
    if len(inner) < FEWEST:
        return False
    lengths = sorted(map(len, inner))
    width = lengths[len(lengths) * 95 // 100]
    if width > WIDEST:
        return False
    full = sum(length >= FULL * width for length in lengths) / len(inner)
    unended = sum(not _END.search(line) for line in inner) / len(inner)
    return full > 0.8 and unended > 0.6


def _is_indented(line: str) -> bool:
    return line[:1].isspace() and not _is_empty(line)


def _is_empty(line: str) -> bool:
    return not line.strip()


def _begins(line: str, after: str, each: bool = False) -> bool:
    """Whether a paragraph begins after a line though no empty one stands between.

    Where indents mark paragraphs, `each` indented line begins one; elsewhere it may belong to a
    block, such as a letter, all of whose lines are.
    """
    if line.startswith(TITLE) or after.startswith(TITLE):
        return True
    return _is_indented(after) and (each or not _is_indented(line))


def _paragraphs(lines: Iterable[str], each: bool) -> Iterator[str]:
    joined: list[str] = []
    before = ''
    for line in itertools.chain(lines, ['']):
        text = line.strip()
        long = len(joined) >= LONGEST and bool(_END.search(before))
        if joined and (not text or long or _begins(before, line, each)):
            yield _join(joined)
            joined = []
        if not text or line.startswith(TITLE):
            yield text
        else:
            joined.append(text)
        before = line.rstrip()


def _join(lines: Sequence[str]) -> str:
    """One line; a word that was parted at its hyphen is whole again."""
    marks = ('' if _HYPHEN.search(line) else ' ' for line in lines)
    return ''.join(line + mark for line, mark in zip(lines, marks, strict=True)).rstrip()
