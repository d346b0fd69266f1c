"""Text for training: from files to word indices, memory-mapped, with document borders kept.

The walk has two steps. :func:`tokenise` turns files into one plain *token file*: a sentence a
line, tokens between blanks, an empty line after each document. :class:`Corpus` holds such a file
as word indices. A *document* is whatever sentences are neighbours in: a book, a song, or the
captions of one photo.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import text
from ..formats import MissingFileError, ModelFileError, PathLike, atomic_path, write_text

_TYPOGRAPHY = str.maketrans(
    {'“': '"', '”': '"', '„': '"', '‘': "'", '’': "'", '—': '--', '–': '-', '…': '...'}
)
_SENTENCE_END = re.compile(r'[.!?:;,"\')-]\s*$')


# --- files to documents --------------------------------------------------------------------------


def read_text(path: PathLike) -> Iterator[str]:
    """The lines of a UTF-8 text file, plain, ``.gz`` or ``.xz``, without their line ends."""
    opener = {'.gz': gzip.open, '.xz': lzma.open}.get(Path(path).suffix, open)
    try:
        with opener(path, 'rt', encoding='utf-8-sig', newline='\n') as file:
            for line in file:
                yield line.rstrip('\r\n')
    except FileNotFoundError:
        raise MissingFileError(f'{path}: no such file (expected a text to train on)') from None
    except (UnicodeDecodeError, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
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
            if lines:
                file.write('\n'.join(lines) + '\n\n')


def _mapped(function, items, processes: int, desc: str) -> Iterator[list[str]]:
    if processes == 1:
        yield from map(function, tqdm(items, desc=desc, unit=' documents'))
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from tqdm(pool.map(function, items, chunksize=1), desc=desc, unit=' documents')


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


# --- tokens to indices ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """Sentences as word indices.

    Attributes
    ----------
    tokens : (n,) int32 array
        The word indices of all sentences, end to end; memory-mapped.
    sentences : (S + 1,) int64 array
        Sentence i is ``tokens[sentences[i] : sentences[i + 1]]``.
    documents : (M + 1,) int64 array
        Document j holds the sentences ``documents[j]`` to ``documents[j + 1] - 1``.
    """

    tokens: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray

    @classmethod
    def build(
        cls, token_file: PathLike, vocabulary: text.Vocabulary, folder: PathLike
    ) -> Corpus:
        """Index a token file and keep the result in `folder`; both writes are atomic.

        Parameters
        ----------
        token_file : path-like
        vocabulary : text.Vocabulary
            Words it lacks become UNK (1).
        folder : path-like
        """
        folder = Path(folder)
        lengths: list[int] = []
        sentences_in: list[int] = []
        with atomic_path(folder / 'tokens.npy') as temporary, open(temporary, 'wb') as file:
            for document in token_documents(token_file):
                encoded = [vocabulary.encode(sentence.split()) for sentence in document]
                lengths.extend(map(len, encoded))
                sentences_in.append(len(encoded))
                np.concatenate([np.asarray(e, np.int32) for e in encoded]).tofile(file)
        borders = {'sentences': _borders(lengths), 'documents': _borders(sentences_in)}
        for name, array in borders.items():
            with atomic_path(folder / f'{name}.npy') as temporary:
                np.save(temporary, array)
        write_text(folder / 'corpus.json', json.dumps({'source': Path(token_file).name}))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: PathLike) -> Corpus:
        """Open what :meth:`build` kept, memory-mapped."""
        folder = Path(folder)
        if not (folder / 'corpus.json').exists():
            raise MissingFileError(f'{folder}: no corpus here; build it with Corpus.build')
        return cls(
            np.memmap(folder / 'tokens.npy', np.int32, 'r'),
            np.load(folder / 'sentences.npy'),
            np.load(folder / 'documents.npy'),
        )

    def words(self, first: int, last: int) -> np.ndarray:
        """The word indices of sentences `first` to `last` - 1, end to end."""
        return self.tokens[self.sentences[first] : self.sentences[last]]

    def __len__(self) -> int:
        return len(self.sentences) - 1


def _borders(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


# --- passages and batches ------------------------------------------------------------------------


def passages(
    corpus: Corpus,
    rng: np.random.Generator,
    shortest: int = 40,
    longest: int = 140,
) -> np.ndarray:
    """Cut every document into passages: consecutive sentences, `shortest` to `longest` words.

    Each passage draws a length in these bounds and takes whole sentences until it is reached, so
    it ends where a sentence ends. A stretch that cannot fit (a sentence that is too long) and the
    rest of a document that is too short are left out.

    Parameters
    ----------
    corpus : Corpus
    rng : numpy.random.Generator
        Another state cuts elsewhere.
    shortest, longest : int
        Limits in words after tokenising.

    Returns
    -------
    (P, 2) int64 array
        First sentence and the sentence after the last, of each passage.

    Raises
    ------
    ValueError
        If the limits are not 1 <= shortest <= longest.
    """
    if not 1 <= shortest <= longest:
        raise ValueError(f'passages of {shortest} to {longest} words: expected 1 <= min <= max')
    lengths = np.diff(corpus.sentences)
    cut = []
    for begin, end in zip(corpus.documents[:-1], corpus.documents[1:], strict=True):
        first, words, wanted = begin, 0, rng.integers(shortest, longest + 1)
        for sentence in range(begin, end):
            if words + lengths[sentence] > longest:  # too long to go on: end before this sentence
                if words >= shortest:
                    cut.append((first, sentence))
                first, words, wanted = sentence, 0, rng.integers(shortest, longest + 1)
            words += lengths[sentence]
            if wanted <= words <= longest:
                cut.append((first, sentence + 1))
                first, words, wanted = sentence + 1, 0, rng.integers(shortest, longest + 1)
        if shortest <= words <= longest:
            cut.append((first, end))
    return np.asarray(cut, np.int64).reshape(-1, 2)


def batches_of_equal_length(
    lengths: np.ndarray, rng: np.random.Generator, batch_size: int, max_tokens: int
) -> list[np.ndarray]:
    """Group items of equal length into batches, in shuffled order.

    Parameters
    ----------
    lengths : (n,) int array
    rng : numpy.random.Generator
    batch_size, max_tokens : int
        A batch holds at most `batch_size` items and `max_tokens` words, but at least one item.

    Returns
    -------
    list of int arrays
        Indices into `lengths`; every item once.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind='stable')]
    batches = []
    for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        if len(group):
            size = max(1, min(batch_size, max_tokens // max(1, int(lengths[group[0]]))))
            batches.extend(group[i : i + size] for i in range(0, len(group), size))
    return [batches[i] for i in rng.permutation(len(batches))]


def padded(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Stand word sequences side by side, with one ``<eos>`` (0) counted after each.

    Returns
    -------
    x : (T, B) int64 array
        Padded with 0; T is one more than the longest.
    mask : (T, B) float32 array
        1 over each sequence and the one 0 that follows it.
    """
    longest = max(map(len, sequences)) + 1
    x = np.zeros((longest, len(sequences)), np.int64)
    mask = np.zeros((longest, len(sequences)), np.float32)
    for column, sequence in enumerate(sequences):
        x[: len(sequence), column] = sequence
        mask[: len(sequence) + 1, column] = 1
    return x, mask
