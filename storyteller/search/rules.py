"""Rules for the words of texts: which may come next, and what they are worth.

Dimension letters: B contexts, R live texts, T words, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..options import SearchOptions
from ..text.function_words import content_words
from ..vocabulary import EOS, UNK
from . import Hypothesis
from .contrast import against

NONE = -1  # where there is no word


@dataclass(frozen=True)
class Rules:
    """The rules of :class:`SearchOptions`, with words as indices.

    Attributes
    ----------
    telling : SearchOptions
    banned, required : tuples of int
    use_unk : bool
    content : mapping of int to tuple of int
        Of each word with content, all that are the same word; empty where no rule asks.
    worth : sequence of B mappings of int to float
        What a text of each context gains, in nats, by the first use of a word; of words that are
        the same, all have the same worth. Empty where nothing has any.
    """

    telling: SearchOptions = field(default_factory=SearchOptions)
    banned: tuple[int, ...] = ()
    required: tuple[int, ...] = ()
    use_unk: bool = False
    content: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    worth: Sequence[Mapping[int, float]] = ()

    @classmethod
    def of(
        cls,
        telling: SearchOptions,
        words: Mapping[str, int],
        use_unk: bool = False,
        worth: Sequence[Mapping[int, float]] = (),
    ) -> Rules:
        """Look the words up; one that the decoder does not know can be banned, but not required."""
        if unknown := [word for word in telling.required if words.get(word, UNK) <= UNK]:
            raise ValueError(f'required: the decoder does not know the word {unknown[0]!r}')
        banned = tuple(words[w] for w in telling.banned if words.get(w, UNK) > UNK)
        required = tuple(words[w] for w in telling.required)
        asks = telling.no_echo or telling.keywords
        known = {word: i for word, i in words.items() if i > UNK} if asks else {}
        return cls(telling, banned, required, use_unk, content_words(known), worth)

    def score(self, hypothesis: Hypothesis) -> float:
        """What texts are compared by."""
        words = max(1, len(hypothesis.text))
        return hypothesis.score / words**self.telling.length_penalty


class Texts:
    """Texts of one length, of any contexts, and what the rules know of them.

    Attributes
    ----------
    owner : array, shape (R,)
        The context of each.
    words : array, shape (R, T)
    """

    def __init__(self, rules: Rules, count: int):
        """Of each of `count` contexts the empty text."""
        self.rules = rules
        self.owner = np.arange(count)
        self.words = np.empty((count, 0), np.int64)
        worth = rules.worth or [{}] * count
        self._wanted = _array(worth)  # (B, N)
        self._due = _array((each.values() for each in worth), 0.0).astype(np.float32)  # (R, N)
        self._alike = max(map(len, rules.content.values()), default=0)
        self._recent = np.empty((count, 0, self._alike), np.int64)  # (R, <= no_echo, ...)

    def __len__(self) -> int:
        return len(self.words)

    def grow(self, parents: np.ndarray, words: np.ndarray) -> None:
        """Go on with the texts in rows `parents`, each with one of `words` (R,) more."""
        rules = self.rules
        self.owner = self.owner[parents]
        self.words = np.column_stack([self.words[parents], words])
        if not self._alike and not self._wanted.size:
            return
        alike = np.full((len(words), self._alike), NONE)
        for row, word in enumerate(words.tolist()):
            same = rules.content.get(word, ())
            alike[row, : len(same)] = same
        if self._wanted.size:
            said = np.column_stack([words, alike])
            wanted = self._wanted[self.owner]
            used = np.zeros(wanted.shape, bool)
            for word in said.T:
                used |= wanted == word[:, None]
            self._due = np.where(used, np.float32(0), self._due[parents])
        if rules.telling.no_echo:
            recent = np.concatenate([self._recent[parents], alike[:, None]], axis=1)
            self._recent = recent[:, -rules.telling.no_echo :]

    def allowed(self, logp: Tensor) -> Tensor:
        """Log-probabilities (R, V) of what may come after the texts; else -inf.

        What the next word is worth is added. Of :func:`storyteller.search.contrast.contrasted`,
        (R, 2, V), they are contrasted.
        """
        if logp.dim() == 3:
            told, anyway = logp.unbind(1)
            telling = self.rules.telling
            weight, plausibility = telling.contrast, telling.plausibility
            return against(self._ruled(told), told, anyway, weight, plausibility)
        return self._ruled(logp)

    def _ruled(self, logp: Tensor) -> Tensor:
        rules, length = self.rules, self.words.shape[1]
        logp = logp.clone(memory_format=torch.contiguous_format)
        rows, places = np.nonzero(self._due)
        if len(rows):
            gains = torch.from_numpy(self._due[rows, places]).to(logp)
            where = self._where(logp, rows, self._wanted[self.owner[rows], places])
            logp.view(-1)[where] += gains
        never = [*rules.banned] if rules.use_unk else [*rules.banned, UNK]
        if length < rules.telling.min_words:
            never.append(EOS)
        logp[:, never] = -torch.inf
        not_now = [self._recent.reshape(len(self), -1), self._would_repeat(), self._not_yet()]
        banned = np.concatenate(not_now, axis=1)
        rows, places = np.nonzero(banned != NONE)
        logp.view(-1)[self._where(logp, rows, banned[rows, places])] = -torch.inf
        return logp

    def _where(self, logp: Tensor, rows: np.ndarray, words: np.ndarray) -> Tensor:
        return torch.from_numpy(rows * logp.shape[1] + words).to(logp.device)

    def _would_repeat(self) -> np.ndarray:
        """Words that would make a run of their text stand in it twice: (R, any), or NONE."""
        n, length = self.rules.telling.no_repeat, self.words.shape[1]
        starts = length - n + 1
        if not n or starts < 1:
            return np.empty((len(self), 0), np.int64)
        again = np.ones((len(self), starts), bool)
        for i in range(n - 1):
            again &= self.words[:, i : i + starts] == self.words[:, starts + i, None]
        return np.where(again, self.words[:, n - 1 :], NONE)

    def _not_yet(self) -> np.ndarray:
        """``<eos>`` (R, 1) where a required word is missing."""
        lack = np.zeros(len(self), bool)
        for word in self.rules.required:
            lack |= (self.words != word).all(axis=1)
        return np.where(lack, EOS, NONE)[:, None]


def _array(lists: Iterable[Iterable[float]], fill: float = NONE) -> np.ndarray:
    """Lists of different lengths as rows, filled up."""
    found = [list(each) for each in lists]
    rows = np.full((len(found), max(map(len, found), default=0)), fill)
    for row, each in zip(rows, found, strict=True):
        row[: len(each)] = each
    return rows
