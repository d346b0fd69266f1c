"""Training text: from text files to token files.

A *document* is whatever sentences are neighbours in: a book, a song, or the captions of one photo.
A *token file* is plain text: a tokenised sentence a line, an empty line after each document.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ... import text
from ...ahead import mapped
from ...formats import ModelFileError, PathLike, atomic_path
from ...vocabulary import SPECIAL
from . import origins
from .caption_files import as_written
from .text_files import TYPOGRAPHY
from .text_files import read_text as read_text
from .text_files import text_files as text_files
from .wrapped import unwrapped

BORDER = ''  # the line that ends a document
LINES_IN_A_PIECE = 256  # that a process tokenises at a time

_SENTENCE_END = re.compile(r'[.!?:;,"\')-]\s*$')


# --- files to documents --------------------------------------------------------------------------


def books(path: PathLike) -> Iterator[list[str]]:
    """Documents of a file of books, one paragraph a line.

    A line ``=== Title`` begins a book; without such lines the file is one book. Headings, which
    are short and end like no sentence, are dropped. If the lines are wrapped, as those of e-books
    are, the lines of a paragraph are joined, and it is said.
    """
    return _documents(_book_lines(path))


def titled_books(path: PathLike) -> Iterator[tuple[str, list[str]]]:
    """The same, each with its title: what follows ``=== `` in the line that begins it."""
    title, lines = '', []
    for line in itertools.chain(unwrapped(read_text(path), path), ['=== ']):
        if not line.startswith('=== '):
            lines.append(line)
            continue
        if paragraphs := list(filter(_is_prose, lines)):
            yield title, paragraphs
        title, lines = line.removeprefix('=== ').strip(), []


def author(title: str) -> str:
    """The author in the title of a book: the text between a dash and the year.

    >>> author('The Sea-Wolf -- Jack London (1904)')
    'Jack London'
    """
    return title.rpartition(' -- ')[2].partition(' (')[0]


def verses(path: PathLike) -> Iterator[list[str]]:
    """Documents of a file of songs: blocks between empty lines, one verse a line."""
    return _documents(_verse_lines(path))


def photo_captions(path: PathLike, leave_out: Iterable[str] = ()) -> Iterator[list[str]]:
    """Documents of a caption file: all captions of one photo.

    Parameters
    ----------
    path : path-like
        Lines ``photo<TAB>caption``, the captions of a photo together, or what else
        :func:`caption_files.read_captions` reads.
    leave_out : iterable of str
        Photos to skip, such as those that the result is measured on. Only the part of a name
        before the first ``_`` or ``.`` counts, since data sets spell the rest differently.
    """
    return _documents(_caption_lines(path, leave_out))


def _book_lines(path: PathLike) -> Iterator[str]:
    for line in unwrapped(read_text(path), path):
        if line.startswith('=== '):
            yield BORDER
        elif _is_prose(line):
            yield line
    yield BORDER


def _is_prose(line: str) -> bool:
    """Whether a line is a paragraph, not empty and no heading."""
    return bool(line.strip()) and (len(line.split()) > 8 or bool(_SENTENCE_END.search(line)))


def _verse_lines(path: PathLike) -> Iterator[str]:
    for line in read_text(path):
        yield line if line.strip() else BORDER
    yield BORDER


def _caption_lines(path: PathLike, leave_out: Iterable[str] = ()) -> Iterator[str]:
    leave_out = {_photo_number(name) for name in leave_out}
    photo = None
    for names, caption, _ in as_written(path):
        if names[0] != photo:
            yield BORDER
        photo = names[0]
        if _photo_number(photo) not in leave_out and caption:
            yield caption
    yield BORDER


def _photo_number(name: str) -> str:
    return re.split(r'[_.]', name)[0]


def _documents(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines in documents; empty documents are left out."""
    document: list[str] = []
    for line in lines:
        if line != BORDER:
            document.append(line)
        elif document:
            yield document
            document = []


Reader = Callable[..., Iterator[str]]
READERS: dict[str, Reader]
READERS = {'books': _book_lines, 'verses': _verse_lines, 'captions': _caption_lines}


# --- documents to tokens -------------------------------------------------------------------------


def tokenise(
    documents: Iterable[Sequence[str]],
    out: PathLike,
    *,
    split: bool = True,
    processes: int = 1,
    desc: str = 'tokenising',
) -> None:
    """Write documents as a token file.

    Parameters
    ----------
    documents : iterable of list of str
        Paragraphs, verses or captions.
    out : path-like
        The token file, written atomically.
    split : bool
        Whether an item may hold several sentences; if not, each is one (a caption, a verse).
    processes : int
        How many processes tokenise.

    Notes
    -----
    Curly quotes, dashes and the ellipsis are first set in ASCII, so that editions agree.
    """
    _write(_flat(documents), out, split, processes, desc)


def tokenise_files(
    files: Iterable[PathLike], out: PathLike, kind: str = 'books', *, leave_out: Iterable[str] = ()
) -> None:
    """Write a token file from text files, unless it exists and was made from the same.

    The files are read as a stream: a book may be larger than the memory.

    Parameters
    ----------
    files : iterable of path-like
    out : path-like
        The token file.
    kind : {'books', 'verses', 'captions'}
        How the files are laid out: see :func:`books`, :func:`verses`, :func:`photo_captions`.
    leave_out : iterable of str
        Photos whose captions are skipped.

    Raises
    ------
    ModelFileError
        If a file is not readable, or there is not one word in all of them.
    MismatchError
        If the token file is there, but of other texts.
    """
    if kind not in READERS:
        raise ValueError(f'kind: expected one of {", ".join(READERS)}, found {kind!r}')
    files, read, leave_out = list(files), READERS[kind], list(leave_out)
    facts = {'kind': kind, 'left out': origins.of_words(sorted(leave_out))}
    if origins.is_made(out, facts | origins.of_files(files)):
        return
    if kind == 'captions':
        read = functools.partial(read, leave_out=leave_out)
    lines = (line for file in files for line in read(file))
    _write(lines, out, kind == 'books', os.cpu_count() or 1, 'tokenising')
    if not Path(out).stat().st_size:
        Path(out).unlink()
        raise ModelFileError(
            f'{", ".join(map(str, files[:3]))}: expected text to train on, found not one sentence'
        )


def _flat(documents: Iterable[Sequence[str]]) -> Iterator[str]:
    for document in documents:
        yield from (line for line in document if line.strip())
        yield BORDER


def _write(lines: Iterable[str], out: PathLike, split: bool, processes: int, desc: str) -> None:
    """Tokenise a stream of lines, piece by piece, into a token file."""
    begun = False  # whether the last document has a sentence yet
    stream = iter(tqdm(lines, desc=desc, unit=' lines'))
    pieces = iter(lambda: list(itertools.islice(stream, LINES_IN_A_PIECE)), [])
    work = functools.partial(_tokenised, split=split)
    with atomic_path(out) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        for piece in _mapped(work, pieces, processes):
            for line in piece:
                if line != BORDER or begun:
                    file.write(f'{line}\n')
                begun = line != BORDER
        if begun:
            file.write('\n')


def _mapped(function, items: Iterable[list[str]], processes: int) -> Iterator[list[str]]:
    """Map in order, with a few items on their way: the stream is not read ahead."""
    if processes == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from mapped(pool, function, items, 4 * processes)


def _tokenised(lines: Sequence[str], split: bool) -> list[str]:
    """Tokenised sentences, and the borders of documents."""
    found = []
    for line in lines:
        if line == BORDER:
            found.append(BORDER)
            continue
        line = line.translate(TYPOGRAPHY)
        sentences = text.sentences(line) if split else [line]
        found += [told for sentence in sentences if (told := ' '.join(text.words(sentence)))]
    return found


def token_lines(path: PathLike) -> Iterator[str]:
    """The lines of a token file: sentences, and '' after each document."""
    return _verse_lines(path)


def token_documents(path: PathLike) -> Iterator[list[str]]:
    """The documents of a token file, each a list of tokenised sentences."""
    yield from verses(path)


def count_words(
    paths: Iterable[PathLike], most: int = 1_000_000
) -> tuple[Counter[str], Counter[str]]:
    """Count each word of token files, and the documents that contain it.

    When more than `most` different words have been seen, the rarest are forgotten, so that a text
    of any size can be counted: names and numbers that hardly occur fill the memory, not the
    vocabulary.
    """
    counts: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    here: Counter[str] = Counter()  # in this document
    for path in paths:
        for line in token_lines(path):
            here.update(line.split())
            if line == BORDER:
                counts.update(here)
                spread.update(here.keys())
                here.clear()
            for counter in (here, counts):
                if len(counter) > most:
                    _forget_rarest(counter, most // 2)
            if len(spread) > 2 * most:
                for word in spread.keys() - counts.keys():
                    del spread[word]
    for word in spread.keys() - counts.keys():
        del spread[word]
    return counts, spread


def _forget_rarest(counter: Counter[str], keep: int) -> None:
    """Drop the words with the lowest counts, until at most `keep` are left."""
    least = 1
    while len(counter) > keep:
        for word in [word for word, count in counter.items() if count <= least]:
            del counter[word]
        least += 1


def choose_words(
    counts: Mapping[str, int],
    spread: Mapping[str, int],
    n_words: int,
    *,
    books: int = 5,
    always: Iterable[str] = (),
) -> list[str]:
    """Choose a vocabulary: the most frequent words, with rare names left out.

    They come by descending count, then by alphabet; without ``<eos>`` and ``UNK``.

    Parameters
    ----------
    counts, spread : mapping of str to int
        From :func:`count_words`.
    n_words : int
        How many to choose, those of `always` among them.
    books : int
        Minimum number of documents in which a capitalised word must occur.
    always : iterable of str
        Words to choose in any case.
    """
    chosen = set(always) - {*SPECIAL}
    by_count = sorted(counts.keys() - {*SPECIAL}, key=lambda word: (-counts[word], word))
    for word in by_count:
        if len(chosen) >= n_words:
            break
        if not word[0].isupper() or len(word) == 1 or spread[word] >= books:
            chosen.add(word)
    return sorted(chosen, key=lambda word: (-counts.get(word, 0), word))
