"""Texts that readers marked, from 1, nonsense, to 5, as a person could have written it.

A line has a caption, a tab, and the texts that were told of it with tabs between, each after its
mark and a blank. What was told of several captions, those nearest to a photo, has all of them, with
``|`` and blanks between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...formats import ModelFileError, PathLike, read_lines

GOOD = 4  # the least mark of a text that is to be told
BETWEEN = ' | '  # captions
_MARKED = re.compile(r'([1-5]) (\S.*)')


def read_marked(path: PathLike) -> Iterator[tuple[list[str], list[tuple[int, str]]]]:
    """The captions that texts were told of, and the texts with their marks.

    Raises
    ------
    MissingFileError, ModelFileError
        If there is no such file, or a line is of another form.
    """
    for number, line in enumerate(read_lines(path), 1):
        caption, *fields = line.split('\t')
        texts = [(field, _MARKED.fullmatch(field)) for field in fields]
        strange = [field for field, text in texts if not text]
        if strange or not caption:
            raise ModelFileError(
                f'{path}: line {number}: expected captions and texts with marks from 1 to 5 '
                f'before them, with tabs between, found {(strange or [line])[0][:80]!r}'
            )
        yield caption.split(BETWEEN), [(int(text[1]), text[2]) for _, text in texts if text]


def without_poor(line: str) -> str:
    """A line of a text without the fields that have a mark and a poor one.

    Examples
    --------
    >>> without_poor('A dog .\\t5 The dog ran .\\t2 The dog was tea .')
    'A dog .\\tThe dog ran .'
    >>> without_poor('The dog ran .')
    'The dog ran .'
    """
    caption, *fields = line.split('\t')
    kept = [caption]
    for field in fields:
        marked = _MARKED.fullmatch(field)
        if not marked or int(marked[1]) >= GOOD:
            kept.append(marked[2] if marked else field)
    return '\t'.join(kept)
