"""Tokenising as in 2015, and vocabularies."""

from __future__ import annotations

import functools
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources

from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import (
    PunktLanguageVars,
    PunktParameters,
    PunktSentenceTokenizer,
    PunktTokenizer,
)

from .formats import ModelFileError, PathLike, atomic_path, load_dictionary
from .prose import detokenise

__all__ = ['Vocabulary', 'build_dictionary', 'detokenise', 'preprocess', 'sentences', 'words']

EOS, UNK = 0, 1  # index of '<eos>' and of 'UNK' in every vocabulary since 2015

_DATA = resources.files('storyteller') / 'data'


# ---- sentences and words


def sentences(text: str, *, punkt: str = 'auto') -> list[str]:
    """Split a text into sentences with Punkt (Kiss and Strunk 2006).

    Parameters
    ----------
    text : str
        One text, of any length. Its white space between sentences is dropped.
    punkt : {'auto', 'shipped', 'nltk'}
        Whose parameters: ours, NLTK's own (the downloaded ``punkt_tab``), or NLTK's where they are
        installed and ours elsewhere. What is found first is kept until the program ends.

    Returns
    -------
    list of str
        The sentences, in order; none if there is nothing but white space.

    Raises
    ------
    TypeError, ValueError
        If `text` is no str, or `punkt` none of the three.
    LookupError
        If NLTK's parameters are asked for and not installed.

    Examples
    --------
    >>> sentences('Mr. Smith went to the U.S. yesterday. He liked it.')
    ['Mr. Smith went to the U.S. yesterday.', 'He liked it.']
    """
    return _sentence_tokenizer(punkt).tokenize(_checked(text, 'text'))


def words(sentence: str) -> list[str]:
    """Split one sentence into words and punctuation marks with NLTK's word tokenizer.

    The same as ``nltk.word_tokenize(sentence, preserve_line=True)``, only faster.

    Examples
    --------
    >>> words('"I can\\'t," he said.')
    ['``', 'I', 'ca', "n't", ',', "''", 'he', 'said', '.']
    """
    return _word_tokenizer().tokenize(_checked(sentence, 'sentence'))


def preprocess(X: Iterable[str] | str, *, punkt: str = 'auto') -> list[str]:
    """Tokenise texts exactly as the skip-thoughts code of 2015 did.

    Parameters
    ----------
    X : iterable of N str, or one str
        The texts; one str is a list of one text.
    punkt : {'auto', 'shipped', 'nltk'}
        See `sentences`.

    Returns
    -------
    list of N str
        The words of each text with blanks between them and one more before *every* sentence, so
        that a text which is not empty starts with a blank. Nothing is lower-cased.

    Raises
    ------
    TypeError
        If a text is no str; the message names its index.

    Examples
    --------
    >>> preprocess(['A dog barks. It is late.', ''])
    [' A dog barks . It is late .', '']
    """
    split = _sentence_tokenizer(punkt).tokenize
    return [
        ''.join(' ' + ' '.join(words(sentence)) for sentence in split(_checked(text, f'X[{i}]')))
        for i, text in enumerate([X] if isinstance(X, str) else X)
    ]


def listed_abbreviations() -> tuple[set[str], set[tuple[str, str]]]:
    """Read our abbreviations, and the pairs of words of which the first is one only there."""
    lines = (_DATA / 'abbreviations.txt').read_text(encoding='utf-8').splitlines()
    entries = [tuple(line.split()) for line in lines if line and not line.startswith('# ')]
    pairs = {entry for entry in entries if len(entry) == 2}
    return {entry[0] for entry in entries if entry[1:] in ((), ('*',))}, pairs


def _checked(text: str, name: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f'{name}: expected str, found {type(text).__name__}')
    return text


def _untimed(pattern: re.Pattern[str]) -> re.Pattern[str]:
    # NLTK 3.10 gives every match five seconds, which a long book on a busy machine exceeds, and
    # pays for the clock with a third of its speed. Its patterns are linear without it.
    try:
        return re.compile(pattern.pattern, pattern.flags & (re.IGNORECASE | re.VERBOSE))
    except re.error:  # a possessive quantifier, before Python 3.11
        return pattern


@functools.cache
def _word_tokenizer() -> NLTKWordTokenizer:
    tokenizer = NLTKWordTokenizer()
    for name in ('STARTING_QUOTES', 'PUNCTUATION', 'ENDING_QUOTES'):
        rules = [(_untimed(pattern), by) for pattern, by in getattr(tokenizer, name)]
        setattr(tokenizer, name, rules)
    for name in ('PARENS_BRACKETS', 'DOUBLE_DASHES'):
        pattern, by = getattr(tokenizer, name)
        setattr(tokenizer, name, (_untimed(pattern), by))
    return tokenizer


class _LanguageVars(PunktLanguageVars):
    @functools.cache  # noqa: B019 (it lives as long as the tokenizers, to the end)
    def period_context_re(self) -> re.Pattern[str]:
        return _untimed(super().period_context_re())


@functools.cache
def _sentence_tokenizer(punkt: str) -> PunktSentenceTokenizer:
    if punkt not in ('auto', 'shipped', 'nltk'):
        raise ValueError(f"punkt: expected 'auto', 'shipped' or 'nltk', found {punkt!r}")
    tokenizer = PunktSentenceTokenizer(lang_vars=_LanguageVars())
    tokenizer._params = _shipped_parameters() if punkt == 'shipped' else _nltk_parameters(punkt)
    return tokenizer


def _nltk_parameters(punkt: str) -> PunktParameters:
    try:
        return PunktTokenizer('english')._params
    except LookupError:
        if punkt == 'nltk':
            raise
        return _shipped_parameters()


class _Pairs(frozenset):
    """Pairs of words of which the first is an abbreviation; a second word ``*`` is any word."""

    def __contains__(self, pair: tuple[str, str]) -> bool:  # type: ignore[override]
        first, _ = pair
        return super().__contains__(pair) or super().__contains__((first, '*'))


@functools.cache
def _shipped_parameters() -> PunktParameters:
    table = json.loads((_DATA / 'punkt_english.json').read_text(encoding='utf-8'))
    listed, pairs = listed_abbreviations()
    quotes = ('', "'", '‘', '“')  # Punkt leaves these on the word: 'Mr. Smith is here.'
    parameters = PunktParameters()
    for quote in quotes:
        parameters.abbrev_types.update(quote + a for a in listed.union(table['abbreviations']))
    parameters.collocations = _Pairs((q + first, second) for q in quotes for first, second in pairs)
    parameters.sent_starters.update(table['sentence_starters'])
    parameters.ortho_context.update(table['orthographic_context'])
    return parameters


# ---- vocabularies


def build_dictionary(texts: Iterable[str]) -> tuple[OrderedDict[str, int], OrderedDict[str, int]]:
    """Count and rank the words of texts as the trainers of 2015 did.

    Parameters
    ----------
    texts : iterable of str
        Tokens with white space between them.

    Returns
    -------
    worddict : OrderedDict of str to int
        The index of each word, from 2 on by descending count. Equally frequent words stand in
        the reverse of the order in which they were first seen; 2015 used an unstable sort, whose
        order among them cannot be had again.
    wordcount : OrderedDict of str to int
        The count of each word, in the order in which they were first seen.

    Examples
    --------
    >>> worddict, wordcount = build_dictionary(['a b', 'b c'])
    >>> list(worddict.items()), list(wordcount.items())
    ([('b', 2), ('c', 3), ('a', 4)], [('a', 1), ('b', 2), ('c', 1)])
    """
    wordcount: OrderedDict[str, int] = OrderedDict()
    for i, text in enumerate(texts):
        for word in _checked(text, f'texts[{i}]').split():
            wordcount[word] = wordcount.get(word, 0) + 1
    ranked = sorted(wordcount, key=wordcount.__getitem__)[::-1]
    return OrderedDict((word, index) for index, word in enumerate(ranked, start=2)), wordcount


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """The words a model knows: index 0 is ``<eos>``, 1 is ``UNK``, then by descending count.

    Parameters
    ----------
    entries : tuple of V str
        The word of each index.

    Examples
    --------
    >>> vocabulary = Vocabulary.from_texts(['a dog and a cat', 'a dog'])
    >>> vocabulary
    Vocabulary(6 words: <eos> UNK a dog cat ...)
    >>> vocabulary.encode('a dog and a bird'.split())
    [2, 3, 5, 2, 1]
    """

    entries: tuple[str, ...]
    _index: dict[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'entries', tuple(self.entries))
        if self.entries[:2] != ('<eos>', 'UNK'):
            raise ValueError(f"a vocabulary starts with '<eos>', 'UNK', not {self.entries[:2]}")
        object.__setattr__(self, '_index', {word: i for i, word in enumerate(self.entries)})

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], n_words: int | None = None, min_count: int = 1
    ) -> Vocabulary:
        """Take the words of tokenised texts, as `build_dictionary` ranks them."""
        return cls.from_counts(build_dictionary(texts)[1], n_words, min_count)

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, int], n_words: int | None = None, min_count: int = 1
    ) -> Vocabulary:
        """Take the words that were counted at least `min_count` times.

        Parameters
        ----------
        counts : mapping of str to int
            In the order in which the words were first seen (see `build_dictionary` for ties).
            ``<eos>`` and ``UNK`` are the special entries; 2015 also gave them a rank of their own.
        n_words : int, optional
            How many entries to keep at most, ``<eos>`` and ``UNK`` among them.
        min_count : int
            The least count.
        """
        if n_words is not None and n_words < 2:
            raise ValueError(f"n_words: expected at least 2 ('<eos>' and 'UNK'), found {n_words}")
        kept = [w for w, n in counts.items() if n >= min_count and w not in ('<eos>', 'UNK')]
        ranked = sorted(kept, key=counts.__getitem__)[::-1]
        return cls(('<eos>', 'UNK', *ranked)[:n_words])

    @classmethod
    def from_dictionary(cls, dictionary: Mapping[str, int]) -> Vocabulary:
        """Take a dictionary word -> index, with or without entries for 0 and 1 as in 2015.

        Raises
        ------
        ValueError
            If the indices are not 2, 3, ... each once, or another word has index 0 or 1.
        """
        entries = {EOS: '<eos>', UNK: 'UNK'}
        for word, index in dictionary.items():
            if entries.setdefault(index, word) != word:
                raise ValueError(f'index {index} belongs to {entries[index]!r} and to {word!r}')
        if min(entries) < 0 or max(entries) >= len(entries):
            found = f'{min(entries)} to {max(entries)}'
            raise ValueError(f'expected the indices 0 to {len(entries) - 1}, found {found}')
        return cls(tuple(entries[i] for i in range(len(entries))))

    @classmethod
    def load(cls, path: PathLike) -> Vocabulary:
        """Read our text (one entry a line) or a dictionary of 2015 (``.pkl``).

        Raises
        ------
        MissingFileError, ModelFileError
            If there is no such file, or it is no vocabulary.
        """
        try:
            return cls.from_dictionary(load_dictionary(path))
        except ModelFileError:
            raise
        except ValueError as error:
            raise ModelFileError(f'{path}: {error}') from None

    def save(self, path: PathLike) -> None:
        """Write UTF-8 text, one entry a line; the line number, from 0, is the index."""
        for index, word in enumerate(self.entries):
            as_read = word.encode('utf-8', 'replace').decode('utf-8').removesuffix('\r')
            if not word or '\n' in word or word != as_read or self._index[word] != index:
                raise ValueError(f'{path}: {word!r} cannot be a line, or stands there twice')
        with atomic_path(path) as temporary:
            temporary.write_bytes(''.join(word + '\n' for word in self.entries).encode('utf-8'))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, word: object) -> bool:
        return word in self._index

    def __getitem__(self, word: str) -> int:
        return self._index[word]

    def __repr__(self) -> str:
        shown = ' '.join(self.entries[:5]) + (' ...' if len(self) > 5 else '')
        return f'Vocabulary({len(self)} words: {shown})'

    def word(self, index: int) -> str:
        """Give the word of an index; raise IndexError if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} is not in 0 ... {len(self) - 1}')
        return self.entries[index]

    def encode(self, tokens: Iterable[str] | str, n_words: int | None = None) -> list[int]:
        """Give the index of each token: 1 if it is unknown, or its index is `n_words` or more.

        A str is parted at white space, as texts were in 2015.
        """
        tokens = tokens.split() if isinstance(tokens, str) else tokens
        limit = len(self) if n_words is None else n_words
        indices = (self._index.get(token, UNK) for token in tokens)
        return [index if index < limit else UNK for index in indices]

    def decode(self, indices: Iterable[int]) -> list[str]:
        """Give the word of each index."""
        return [self.word(index) for index in indices]
