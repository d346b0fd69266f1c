"""Training text: from token files to memory-mapped word indices and batches.

:class:`Corpus` holds a token file (see :mod:`storyteller.training.data.documents`) as word indices,
with the borders of sentences and documents. They are plain arrays: beside a table of Arrow, 10
million sentences are indexed in the same time and half of the memory, and read in random batches
seven times as fast (``scripts/benchmark_corpus.py --arrow``).
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...formats import MissingFileError, ModelFileError, PathLike, atomic_path, write_text
from ...vocabulary import SPECIAL, Vocabulary
from . import origins
from .documents import BORDER, count_words, token_lines


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
    def build(cls, token_file: PathLike, vocabulary: Vocabulary, folder: PathLike) -> Corpus:
        """Index a token file and keep the result in `folder`; all writes are atomic.

        Words that the vocabulary lacks become UNK (1).
        """
        folder = Path(folder)
        lengths, sentences_in = array('l'), array('q', [0])
        with atomic_path(folder / 'tokens.npy') as temporary, open(temporary, 'wb') as file:
            for line in tqdm(token_lines(token_file), desc='indexing', unit=' lines'):
                if line != BORDER:
                    words = vocabulary.encode(line.split())
                    np.asarray(words, np.int32).tofile(file)
                    lengths.append(len(words))
                    sentences_in[-1] += 1
                elif sentences_in[-1]:
                    sentences_in.append(0)
            if not lengths:
                raise ModelFileError(f'{token_file}: expected sentences, found none')
        borders = {'sentences': _borders(lengths), 'documents': _borders(sentences_in[:-1])}
        for name, values in borders.items():
            with atomic_path(folder / f'{name}.npy') as temporary:
                np.save(temporary, values)
        write_text(folder / 'corpus.json', json.dumps(_origin(token_file, vocabulary)))
        return cls.open(folder)

    @classmethod
    def cached(cls, token_file: PathLike, vocabulary: Vocabulary, folder: PathLike) -> Corpus:
        """Open the corpus in `folder`, or :meth:`build` it.

        Raises
        ------
        MismatchError
            If what is there was made from another file, or with another vocabulary.
        """
        if (note := Path(folder) / 'corpus.json').exists():
            origin = _origin(token_file, vocabulary)  # a note of an earlier version lacks some
            origins.compare(folder, origin | origins.read_note(note), origin)
            return cls.open(folder)
        return cls.build(token_file, vocabulary, folder)

    @classmethod
    def with_all_words(cls, token_file: PathLike, folder: PathLike) -> tuple[Corpus, Vocabulary]:
        """A corpus from which the text can be had back, and the vocabulary of all its words."""
        words = count_words([token_file])[0].keys() - {*SPECIAL}
        vocabulary = Vocabulary((*SPECIAL, *sorted(words)))
        return cls.cached(token_file, vocabulary, folder), vocabulary

    @classmethod
    def open(cls, folder: PathLike) -> Corpus:
        """Open the result of :meth:`build`, memory-mapped.

        Raises
        ------
        MissingFileError, ModelFileError
            If there is no corpus, or not a whole one.
        """
        folder = Path(folder)
        if not (folder / 'corpus.json').exists():
            raise MissingFileError(f'{folder}: no corpus here; build it with Corpus.build')
        try:
            tokens = np.memmap(folder / 'tokens.npy', np.int32, 'r')
            sentences = np.load(folder / 'sentences.npy', allow_pickle=False)
            documents = np.load(folder / 'documents.npy', allow_pickle=False)
            whole = (sentences[-1], documents[-1]) == (len(tokens), len(sentences) - 1)
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise ModelFileError(f'{folder}: not a readable corpus: {error}') from None
        if not whole:
            raise ModelFileError(f'{folder}: the files of the corpus do not belong together')
        return cls(tokens, sentences, documents)

    @classmethod
    def joined(cls, parts: Sequence[Corpus]) -> Corpus:
        """Concatenate corpora of one vocabulary, in memory."""

        def end_to_end(borders: list[np.ndarray]) -> np.ndarray:
            return _borders(np.concatenate([np.diff(each) for each in borders]))

        return cls(
            np.concatenate([part.tokens for part in parts]),
            end_to_end([part.sentences for part in parts]),
            end_to_end([part.documents for part in parts]),
        )

    def words(self, first: int, last: int) -> np.ndarray:
        """The word indices of sentences `first` to `last` - 1, concatenated."""
        return self.tokens[self.sentences[first] : self.sentences[last]]

    def counts(self, n_words: int) -> np.ndarray:
        """Word counts, (V,) int64; ``<eos>`` (0) counts once per sentence."""
        counts = np.bincount(self.tokens, minlength=n_words)
        counts[0] += len(self)
        return counts

    def __len__(self) -> int:
        return len(self.sentences) - 1


def _origin(token_file: PathLike, vocabulary: Vocabulary) -> dict[str, str]:
    facts = {'source': Path(token_file).name, 'vocabulary': origins.of_words(vocabulary)}
    return facts | {'text': origins.of_file(token_file)}


def _borders(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


# --- passages and batches ------------------------------------------------------------------------


def passages(
    corpus: Corpus, rng: np.random.Generator, shortest: int = 40, longest: int = 140
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
    ends = corpus.sentences
    wanted = ends[:-1] + rng.integers(shortest, longest + 1, len(corpus))
    # For a passage that begins at each sentence: where its length is reached, where it gets too
    # long. The chain of passages is then a walk over numbers that are there. Memory views are read
    # as fast as lists, and take a fifth of their memory.
    reached = np.searchsorted(ends, wanted).data
    limit = (np.searchsorted(ends, ends[:-1] + longest, side='right') - 1).data
    enough = np.searchsorted(ends, ends[:-1] + shortest).data
    cut = []
    for first, end in itertools.pairwise(corpus.documents.tolist()):
        while first < end:
            last = reached[first] if reached[first] <= limit[first] else limit[first]
            last = min(last, end)
            if enough[first] <= last:
                cut.append((first, last))
            first = max(last, first + 1)
    return np.asarray(cut, np.int64).reshape(-1, 2)


def narrative_passages(
    corpus: Corpus,
    vocabulary: Vocabulary,
    shortest: int = 101,
    longest: int = 140,
    *,
    most_quoted: float = 0.1,
    wanted: int = 6000,
    seed: int = 0,
) -> list[str]:
    """Sample passages, tokens between blanks, for a style vector: those with little direct speech.

    Parameters
    ----------
    corpus : Corpus
    vocabulary : Vocabulary
        Of the corpus.
    shortest, longest : int
        Limits in words after tokenising.
    most_quoted : float
        The largest :func:`quoted_share`; 1 takes all.
    wanted : int
        How many at most.
    seed : int
        Decides where passages are cut, and which are drawn.
    """
    rng, found = np.random.default_rng(seed), []
    for first, last in rng.permutation(passages(corpus, rng, shortest, longest)):
        tokens = vocabulary.decode(corpus.words(first, last))
        if quoted_share(tokens) <= most_quoted:
            found.append(' '.join(tokens))
        if len(found) == wanted:
            break
    return found


def quoted_share(tokens: Sequence[str]) -> float:
    """The proportion of words inside quotation marks, 0 to 1; 0 for no words.

    A passage may begin or end inside a speech: a closing mark without an opening one ends a speech
    that began before the passage.

    Examples
    --------
    >>> quoted_share("`` Yes , '' she said".split())
    0.5
    >>> quoted_share("he knew . '' She left".split())
    0.6
    """
    inside, quoted, words = False, 0, 0
    for token in tokens:
        if token == '``':
            inside = True
        elif token == "''":
            quoted = quoted if inside else words
            inside = False
        else:
            words += 1
            quoted += inside
    return quoted / words if words else 0.0


def batches_of_equal_length(
    lengths: np.ndarray, rng: np.random.Generator, batch_size: int, max_tokens: int
) -> list[np.ndarray]:
    """Group items of equal length into batches, in shuffled order: each index of `lengths` once.

    Parameters
    ----------
    lengths : (n,) int array
    rng : numpy.random.Generator
    batch_size, max_tokens : int
        A batch holds at most `batch_size` items and `max_tokens` words, but at least one item.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind='stable')]
    batches: list[np.ndarray] = []
    for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        if len(group):
            size = max(1, min(batch_size, max_tokens // max(1, int(lengths[group[0]]))))
            batches.extend(group[i : i + size] for i in range(0, len(group), size))
    return [batches[i] for i in rng.permutation(len(batches))]


def padded(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pad word sequences to a common length; one ``<eos>`` (0) after each counts.

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
