"""Vocabularies: words and their indices."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .formats import ModelFileError, PathLike, load_dictionary, write_pickle, write_text

EOS, UNK = 0, 1  # in every vocabulary since 2015: what ends a text, and stands for unknown words
SPECIAL = ('<eos>', 'UNK')  # as they are written


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
        if not isinstance(text, str):
            raise TypeError(f'texts[{i}]: expected str, found {type(text).__name__}')
        for word in text.split():
            wordcount[word] = wordcount.get(word, 0) + 1
    ranked = sorted(wordcount, key=wordcount.__getitem__)[::-1]
    return OrderedDict((word, index) for index, word in enumerate(ranked, start=2)), wordcount


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """A vocabulary: index 0 is ``<eos>``, 1 is ``UNK``, then by descending count.

    Parameters
    ----------
    entries : tuple of V str
        The word of each index.

    Examples
    --------
    >>> vocabulary = Vocabulary.from_counts({'a': 3, 'dog': 2, 'and': 1, 'cat': 1})
    >>> vocabulary
    Vocabulary(6 words: <eos> UNK a dog cat ...)
    >>> vocabulary.encode('a dog and a bird'.split())
    [2, 3, 5, 2, 1]
    """

    entries: tuple[str, ...]
    _index: dict[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'entries', tuple(self.entries))
        if self.entries[:2] != SPECIAL:
            raise ValueError(f"a vocabulary starts with '<eos>', 'UNK', not {self.entries[:2]}")
        object.__setattr__(self, '_index', {word: i for i, word in enumerate(self.entries)})

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, int], n_words: int | None = None, min_count: int = 1
    ) -> Vocabulary:
        """Keep the words with at least `min_count` occurrences.

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
        kept = [w for w, n in counts.items() if n >= min_count and w not in SPECIAL]
        ranked = sorted(kept, key=counts.__getitem__)[::-1]
        return cls((*SPECIAL, *ranked)[:n_words])

    @classmethod
    def from_dictionary(cls, dictionary: Mapping[str, int]) -> Vocabulary:
        """Take a dictionary word -> index, with or without entries for 0 and 1 as in 2015.

        Raises
        ------
        ValueError
            If the indices are not 2, 3, ... each once, or another word has index 0 or 1.
        """
        entries = dict(enumerate(SPECIAL))
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
        """Write UTF-8 text, one entry a line; the line number, from 0, is the index.

        Under a name with ``.pkl`` it is a dictionary word -> index as of 2015.
        """
        if Path(path).suffix == '.pkl':
            write_pickle(path, self._index)
            return
        for index, word in enumerate(self.entries):
            as_read = word.encode('utf-8', 'replace').decode('utf-8').removesuffix('\r')
            if not word or '\n' in word or word != as_read or self._index[word] != index:
                raise ValueError(f'{path}: {word!r} cannot be a line, or stands there twice')
        write_text(path, ''.join(word + '\n' for word in self.entries))

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
        """The word of an index; raises IndexError if there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} is not in 0 ... {len(self) - 1}')
        return self.entries[index]

    def encode(self, tokens: Iterable[str] | str, n_words: int | None = None) -> list[int]:
        """The index of each token: 1 if it is unknown, or its index is `n_words` or more.

        A str is parted at white space, as texts were in 2015.
        """
        tokens = tokens.split() if isinstance(tokens, str) else tokens
        limit = len(self) if n_words is None else n_words
        indices = (self._index.get(token, UNK) for token in tokens)
        return [index if index < limit else UNK for index in indices]

    def decode(self, indices: Iterable[int]) -> list[str]:
        """The word of each index."""
        return [self.word(index) for index in indices]
