"""Rules for the words of a text: which may come next, and what they are worth.

Dimension letters: R live hypotheses, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..options import Telling
from ..text.function_words import content_words
from ..vocabulary import EOS, UNK
from . import Hypothesis


@dataclass(frozen=True)
class Rules:
    """A :class:`Telling` with words as indices.

    Attributes
    ----------
    telling : Telling
    banned, required : tuples of int
    use_unk : bool
    content : mapping of int to tuple of int
        Of each word with content, all that are the same word; empty where no rule asks.
    worth : mapping of int to float
        What a text gains, in nats, by the first use of a word.
    """

    telling: Telling = field(default_factory=Telling)
    banned: tuple[int, ...] = ()
    required: tuple[int, ...] = ()
    use_unk: bool = False
    content: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    worth: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, telling: Telling, words: Mapping[str, int], use_unk: bool = False) -> Rules:
        """Look the words up; one that the decoder does not know can be banned, but not required."""
        if unknown := [word for word in telling.required if words.get(word, UNK) <= UNK]:
            raise ValueError(f'required: the decoder does not know the word {unknown[0]!r}')
        banned = tuple(words[w] for w in telling.banned if words.get(w, UNK) > UNK)
        required = tuple(words[w] for w in telling.required)
        asks = telling.no_echo or telling.keywords
        known = {word: i for word, i in words.items() if i > UNK} if asks else {}
        return cls(telling, banned, required, use_unk, content_words(known))

    def allowed(self, logp: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities (R, V) of what may come after the texts of R rows; else -inf.

        What the next word is worth is added.
        """
        logp = logp.clone()
        if self.worth:
            logp[:, list(self.worth)] += logp.new_tensor([*self.worth.values()])
        if self.banned:
            logp[:, list(self.banned)] = -torch.inf
        if not self.use_unk:
            logp[:, UNK] = -torch.inf
        for row, text in enumerate(texts):
            if len(text) < self.telling.min_words or set(self.required) - set(text):
                logp[row, EOS] = -torch.inf
            if said := self._worth_no_more(text):
                logp[row, said] -= logp.new_tensor([self.worth[word] for word in said])
            if again := self._would_repeat(text) + self._would_echo(text):
                logp[row, again] = -torch.inf
        return logp

    def _worth_no_more(self, text: Sequence[int]) -> list[int]:
        """Words whose worth the text has had."""
        used = {word for word in text if word in self.worth}
        return sorted({same for word in used for same in self.content.get(word, (word,))})

    def _would_repeat(self, text: Sequence[int]) -> list[int]:
        """Words that would make a run of the text stand in it twice."""
        n = self.telling.no_repeat
        if not n or len(text) < n:
            return []
        last = tuple(text[len(text) - n + 1 :])
        starts = range(len(text) - n + 1)
        return [text[i + n - 1] for i in starts if tuple(text[i : i + n - 1]) == last]

    def _would_echo(self, text: Sequence[int]) -> list[int]:
        """Words with content that stand among the last ones."""
        if not self.telling.no_echo:
            return []
        last = text[-self.telling.no_echo :]
        return [same for word in last for same in self.content.get(word, ())]

    def score(self, hypothesis: Hypothesis) -> float:
        """What texts are compared by."""
        words = max(1, len(hypothesis.text))
        return hypothesis.score / words**self.telling.length_penalty
