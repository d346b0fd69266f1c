"""Preferences: of two texts about one thought, the better one becomes the more probable.

A decoder that reads good passages learns what is said, not what must not be: the mistakes that it
makes of its own, and that a search for the most probable text finds, stand nowhere in them. So
readers mark what it has told of some thoughts v, or mend it, and it learns from pairs of a better
text w and a worse one l by direct preference optimisation (Rafailov et al. 2023, "Direct Preference
Optimization: Your Language Model is Secretly a Reward Model", equation 7):

    cost = -log sigmoid(beta [log p(w|v) - log q(w|v) - log p(l|v) + log q(l|v)])

q is the decoder as it was at the start; the larger beta is, the nearer p stays to it. The better
texts are also learned as they are, as if they were passages, so that w does not become less
probable together with l (Pang et al. 2024, "Iterative Reasoning Preference Optimization").

Dimension letters: S thoughts, D thought vector, M texts, N pairs, B of them at once, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ..formats import MismatchError
from ..vocabulary import EOS, UNK, Vocabulary
from . import distributed
from .data.corpus import padded
from .data.marked import GOOD
from .ops.recurrence import affine

if TYPE_CHECKING:
    from .decoder import ConditionalGRU


@dataclass(frozen=True)
class Preferences:
    """Texts that were told of thoughts, and which of two a reader prefers.

    Attributes
    ----------
    vectors : (S, D) array
    texts : sequence of M (L,) int arrays
        Word indices, without an ``<eos>``.
    told_of : (M,) int array
        The thought of each, a row of `vectors`.
    pairs : (N, 2) int array
        Rows of `texts`: the better one and the worse one.

    Raises
    ------
    MismatchError
        If the shapes do not fit each other, or there is no pair.
    ValueError
        If a text is empty or has a word that no decoder says.
    """

    vectors: np.ndarray
    texts: Sequence[np.ndarray]
    told_of: np.ndarray
    pairs: np.ndarray

    def __post_init__(self):
        shapes = [np.shape(each) for each in (self.vectors, self.told_of, self.pairs)]
        (_, _), (count,), (pairs, two) = shapes
        if count != len(self.texts) or two != 2 or not pairs:
            raise MismatchError(
                f'expected a thought of each of {len(self.texts)} texts, and pairs of them, '
                f'found shapes {shapes[1:]}'
            )
        for row, text in enumerate(self.texts):
            if not len(text) or np.isin(text, (EOS, UNK)).any():
                raise ValueError(f'texts[{row}]: expected known words, found {text!r}')

    @classmethod
    def of_marked(
        cls,
        marked: Sequence[Sequence[tuple[int, str]]],
        vectors: np.ndarray,
        vocabulary: Vocabulary,
    ) -> Preferences:
        """The good texts of each thought, each preferred to all that have a lower mark.

        Parameters
        ----------
        marked : sequence of S sequences of (int, str)
            Marks from 1 to 5, and texts with blanks between words; of those that have a word which
            is not in the vocabulary nothing is learned.
        vectors : (S, D) array
        vocabulary : Vocabulary

        Raises
        ------
        MismatchError
            If no text is preferred to another.
        """
        texts: list[np.ndarray] = []
        told_of: list[int] = []
        pairs: list[tuple[int, int]] = []
        for thought, told in enumerate(marked):
            said = [(mark, np.array(vocabulary.encode(text.split()))) for mark, text in told]
            known = [
                each for each in said if len(each[1]) and not np.isin(each[1], (EOS, UNK)).any()
            ]
            pairs += [
                (len(texts) + better, len(texts) + worse)
                for (better, (high, _)), (worse, (low, _)) in permutations(enumerate(known), 2)
                if high >= GOOD and high > low
            ]
            texts += [text for _, text in known]
            told_of += [thought] * len(known)
        if not pairs:
            raise MismatchError(
                f'expected a text marked {GOOD} or 5 and one with a lower mark of the same '
                'thought, both in known words, found none'
            )
        return cls(vectors, texts, np.array(told_of, np.int64), np.array(pairs))

    def tensors(self, rows: np.ndarray, device: torch.device) -> list[Tensor]:
        """x (T, B), its mask (T, B), and the vectors (B, D) of some texts."""
        x, mask = padded([self.texts[row] for row in rows])
        vectors = np.asarray(self.vectors[self.told_of[rows]], np.float32)
        return [torch.from_numpy(array).to(device) for array in (x, mask, vectors)]


class PreferenceCost:
    """The cost of pairs for a decoder that begins as it is now.

    Parameters
    ----------
    model : ConditionalGRU
        As it begins.
    preferences : Preferences
    beta : float
    device : torch.device

    Raises
    ------
    ValueError
        If there are no preferences, or their vectors are not as wide as those of the decoder.
    """

    def __init__(
        self,
        model: ConditionalGRU,
        preferences: Preferences | None,
        beta: float,
        device: torch.device,
    ):
        width = len(model.mean)
        if preferences is None or preferences.vectors.shape[1] != width:
            raise ValueError(
                f'preferences: expected texts told of vectors of {width} numbers, '
                f'found {"none" if preferences is None else preferences.vectors.shape}'
            )
        self.model, self.preferences, self.beta, self.device = model, preferences, beta, device
        self.before = self._as_it_begins()

    @torch.no_grad()
    def _as_it_begins(self, batch: int = 128) -> Tensor:
        """log q (M,), each process those of its part."""
        lengths = np.array([len(text) for text in self.preferences.texts])
        rows = np.argsort(lengths, kind='stable')
        shared = distributed.enough(rows)
        mine = distributed.part(rows) if shared else rows
        bar = tqdm(
            range(0, len(mine), batch),
            desc='texts to compare',
            delay=1,
            disable=distributed.number() > 0,
        )
        found = [self._log_probabilities(mine[first : first + batch]) for first in bar]
        before = torch.empty(len(rows), device=self.device)
        costs = torch.cat(found)[:, None]
        before[torch.from_numpy(rows)] = (distributed.gather(costs) if shared else costs)[:, 0]
        return before

    def _log_probabilities(self, rows: np.ndarray) -> Tensor:
        return log_probabilities(self.model, *self.preferences.tensors(rows, self.device))

    def drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """Those of so many pairs by chance."""
        return self(torch.randint(len(self.preferences.pairs), (count,)).numpy())

    def __call__(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Summed costs, () tensors, of some pairs.

        Returns
        -------
        told : Tensor
            -log p of the better texts.
        preferred : Tensor
            That of the formula.
        """
        texts = self.preferences.pairs[rows].T.ravel()  # all better ones, then all worse ones
        now = self._log_probabilities(texts)
        better, worse = (now - self.before[torch.from_numpy(texts)]).chunk(2)
        preferred = -functional.logsigmoid(self.beta * (better - worse)).sum()
        return -now.chunk(2)[0].sum(), preferred


def log_probabilities(model: ConditionalGRU, x: Tensor, mask: Tensor, vectors: Tensor) -> Tensor:
    """log p (B,), in nats, of texts x (T, B) where the mask is 1; nothing is dropped."""
    counted = mask.bool()
    top = model.top(model.states(model.table(x[:-1]), vectors)[counted]).to(model.dtype)
    output = model.output
    logits = affine(top, output.weight.to(model.dtype), output.bias.to(model.dtype))
    costs = functional.cross_entropy(logits.float(), x[counted], reduction='none')
    return -costs.new_zeros(x.shape[1]).index_add(0, counted.nonzero()[:, 1], costs)
