"""Text for training: from files to token files.

A *document* is whatever sentences are neighbours in: a book, a song, or the captions of one photo.
A *token file* is plain text: a tokenised sentence a line, an empty line after each document.
"""

from __future__ import annotations

import functools
import gzip
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from .. import text
from ..formats import MissingFileError, ModelFileError, PathLike, atomic_path, existing

_TYPOGRAPHY = str.maketrans(
    {'“': '"', '”': '"', '„': '"', '‘': "'", '’': "'", '—': '--', '–': '-', '…': '...'}
)
_SENTENCE_END = re.compile(r'[.!?:;,"\')-]\s*$')


# --- files to documents --------------------------------------------------------------------------


def read_text(path: PathLike) -> Iterator[str]:
    """The lines of a UTF-8 text file, plain, ``.gz`` or ``.xz``, without their line ends."""
    path = existing(path, 'a text to train on')
    opener = {'.gz': gzip.open, '.xz': lzma.open}.get(path.suffix, open)
    try:
        with opener(path, 'rt', encoding='utf-8-sig', newline='\n') as file:
            for line in file:
                yield line.rstrip('\r\n')
    except (UnicodeDecodeError, lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ModelFileError(f'{path}: not readable as UTF-8 text: {error}') from None


def text_files(path: PathLike, pattern: str = '*') -> list[Path]:
    """The text files (``.txt``, ``.txt.gz``, ``.txt.xz``) in a folder, sorted; or the one file."""
    path = Path(path)
    if path.is_file():
        return [path]
    suffixes = ('.txt', '.txt.gz', '.txt.xz')
    files = sorted(file for file in path.glob(pattern) if file.name.endswith(suffixes))
    if not files:
        raise MissingFileError(f'{path}: found no .txt, .txt.gz or .txt.xz file to train on')
    return files


def books(path: PathLike) -> Iterator[list[str]]:
    """Documents of a file of books, one paragraph a line.

    A line ``=== Title`` begins a book; without such lines the file is one book. Headings, which
    are short and end like no sentence, are dropped.
    """
    paragraphs: list[str] = []
    for line in read_text(path):
        if line.startswith('=== '):
            if paragraphs:
                yield paragraphs
            paragraphs = []
        elif line.strip() and (len(line.split()) > 8 or _SENTENCE_END.search(line)):
            paragraphs.append(line)
    if paragraphs:
        yield paragraphs


def verses(path: PathLike) -> Iterator[list[str]]:
    """Documents of a file of songs: blocks between empty lines, one verse a line."""
    block: list[str] = []
    for line in read_text(path):
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def photo_captions(path: PathLike, leave_out: Iterable[str] = ()) -> Iterator[list[str]]:
    """Documents of a caption file: all captions of one photo.

    Parameters
    ----------
    path : path-like
        Lines ``photo<TAB>caption`` (fields between are ignored), the captions of a photo together.
    leave_out : iterable of str
        Photos to skip, such as those that the result is measured on. Only the part of a name
        before the first ``_`` or ``.`` counts, since data sets spell the rest differently.
    """
    leave_out = {_photo_number(name) for name in leave_out}
    photo, captions = None, []
    for line in read_text(path):
        name, *_, caption = line.split('\t')
        if name != photo and captions:
            yield captions
            captions = []
        photo = name
        if _photo_number(name) not in leave_out and caption.strip():
            captions.append(caption.strip())
    if captions:
        yield captions


def _photo_number(name: str) -> str:
    return re.split(r'[_.]', name)[0]


READERS = {'books': books, 'verses': verses, 'captions': photo_captions}


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
        The token file, written whole or not at all.
    split : bool
        Whether an item may hold several sentences; if not, each is one (a caption, a verse).
    processes : int
        How many processes tokenise.

    Notes
    -----
    Curly quotes, dashes and the ellipsis are first set in ASCII, so that editions agree.
    """
    with atomic_path(out) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        for lines in _mapped(_tokenised if split else _tokenised_whole, documents, processes, desc):
            lines = [line for line in lines if line]  # an empty line would end the document
            if lines:
                file.write('\n'.join(lines) + '\n\n')


def tokenise_files(
    files: Iterable[PathLike], out: PathLike, kind: str = 'books', *, leave_out: Iterable[str] = ()
) -> None:
    """Write a token file from text files, unless it is there already.

    Parameters
    ----------
    files : iterable of path-like
    out : path-like
        The token file.
    kind : {'books', 'verses', 'captions'}
        How the files are laid out: see :func:`books`, :func:`verses`, :func:`photo_captions`.
    leave_out : iterable of str
        Photos whose captions are skipped.
    """
    if Path(out).exists():
        return
    if kind not in READERS:
        raise ValueError(f'kind: expected one of {", ".join(READERS)}, found {kind!r}')
    read = functools.partial(photo_captions, leave_out=leave_out)
    read = read if kind == 'captions' else READERS[kind]
    documents = (document for file in files for document in read(file))
    tokenise(documents, out, split=kind == 'books', processes=os.cpu_count() or 1)


def _mapped(function, items, processes: int, desc: str) -> Iterator[list[str]]:
    if processes == 1:
        yield from map(function, tqdm(items, desc=desc, unit=' documents'))
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from tqdm(pool.map(function, items, chunksize=4), desc=desc, unit=' documents')


def _tokenised(document: Sequence[str]) -> list[str]:
    return [
        ' '.join(text.words(sentence))
        for paragraph in document
        for sentence in text.sentences(paragraph.translate(_TYPOGRAPHY))
    ]


def _tokenised_whole(document: Sequence[str]) -> list[str]:
    return [' '.join(text.words(item.translate(_TYPOGRAPHY))) for item in document]


def token_documents(path: PathLike) -> Iterator[list[str]]:
    """The documents of a token file, each a list of tokenised sentences."""
    yield from verses(path)


def count_words(paths: Iterable[PathLike]) -> tuple[Counter[str], Counter[str]]:
    """Count each word of token files, and the documents that hold it."""
    counts: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    for path in paths:
        for document in token_documents(path):
            words = Counter(word for sentence in document for word in sentence.split())
            counts.update(words)
            spread.update(words.keys())
    return counts, spread


def choose_words(
    counts: Mapping[str, int],
    spread: Mapping[str, int],
    n_words: int,
    *,
    books: int = 5,
    always: Iterable[str] = (),
) -> list[str]:
    """Choose a vocabulary: the most frequent words, but of names only those that are common.

    Parameters
    ----------
    counts, spread : mapping of str to int
        From :func:`count_words`.
    n_words : int
        How many to choose, those of `always` among them.
    books : int
        A word with a capital must stand in so many documents.
    always : iterable of str
        Words to choose in any case.

    Returns
    -------
    list of str
        By descending count, then by alphabet; without ``<eos>`` and ``UNK``.
    """
    chosen = set(always) - {'<eos>', 'UNK'}
    by_count = sorted(counts.keys() - {'<eos>', 'UNK'}, key=lambda word: (-counts[word], word))
    for word in by_count:
        if len(chosen) >= n_words:
            break
        if not word[0].isupper() or len(word) == 1 or spread[word] >= books:
            chosen.add(word)
    return sorted(chosen, key=lambda word: (-counts.get(word, 0), word))
