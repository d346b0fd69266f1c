"""Units of text with their neighbours: the training data of skip-thoughts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import distributed
from .corpus import Corpus, batches_of_equal_length, padded

if TYPE_CHECKING:
    from ..skipthoughts import SkipThoughtsOptions


class Units:
    """Units of text with the sentences around them, in batches of equal length.

    A unit of `corpus` (books) and its neighbours lie inside one document. In `captions` a document
    is a photo: a unit is one caption, its neighbours are two siblings.
    """

    def __init__(
        self, corpus: Corpus, captions: Corpus | None, options: SkipThoughtsOptions, seed: int = 0
    ):
        self.corpus, self.captions = corpus, captions
        self.options, self.seed = options, seed

    def batches(self, epoch: int) -> list[tuple[Corpus, np.ndarray]]:
        """The batches of an epoch: a corpus, and (B, 4) rows first, last + 1, before, after.

        A ValueError says that there is not one unit.
        """
        rng = np.random.default_rng([self.seed, epoch])
        units = self._of_books(rng)
        if not len(units):
            raise ValueError(
                f'{len(self.corpus)} sentences in {len(self.corpus.documents) - 1} documents: not '
                f'one of at most {self.options.longest} words has a sentence before and after it'
            )
        batches = self._grouped(self.corpus, units, rng)
        if self.captions is not None and self.options.captions:
            share = self.options.captions
            wanted = int(len(units) * share / (1 - share))
            batches += self._grouped(self.captions, self._of_captions(rng, wanted), rng)
        batches = [batches[i] for i in rng.permutation(len(batches))]
        return [batch for batch in batches if distributed.enough(batch[1])]

    def tensors(self, batch: tuple[Corpus, np.ndarray], device: torch.device) -> list[Tensor]:
        """x, its mask, the words after, their mask, the words before, their mask: each (T, B)."""
        corpus, rows = batch
        own = padded([corpus.words(first, end) for first, end, _, _ in rows])
        if not self.options.read_eos:
            own = own[0][:-1], own[1][1:]
        limit = self.options.longest_target
        after = self._neighbours(corpus, rows[:, 3], limit)
        before = self._neighbours(corpus, rows[:, 2], limit)
        return [torch.from_numpy(array).to(device) for array in (*own, *after, *before)]

    def _neighbours(self, corpus, sentences, limit):
        y, mask = padded([corpus.words(i, i + 1)[:limit] for i in sentences])
        return y[:limit], mask[:limit]  # a sentence that was cut does not end

    def _grouped(self, corpus, units, rng):
        lengths = corpus.sentences[units[:, 1]] - corpus.sentences[units[:, 0]]
        options = self.options
        groups = batches_of_equal_length(lengths, rng, options.batch_size, options.batch_words)
        return [(corpus, units[group]) for group in groups]

    def _of_books(self, rng) -> np.ndarray:
        """Cut each document into units, in order; what is too long is left out."""
        ends, documents = self.corpus.sentences, self.corpus.documents
        count, longest = len(self.corpus), self.options.longest
        first = np.arange(count)
        inner = np.ones(count, bool)  # neither the first of a document nor its last
        inner[documents[:-1]] = inner[documents[1:] - 1] = False
        last: np.ndarray = first + 1
        if self.options.singles < 1:
            # The unit that would begin at each sentence, of a length drawn evenly on a log scale.
            several = rng.random(count) >= self.options.singles
            wanted = np.exp(rng.uniform(np.log(12), np.log(longest), count))
            reach = np.searchsorted(ends, ends[:-1] + wanted, side='right') - 1
            stop = np.repeat(documents[1:] - 1, np.diff(documents))
            last = np.where(several, np.clip(reach, first + 1, np.maximum(stop, first + 1)), last)
            inner &= _walk(documents, last)
        inner &= ends[last] - ends[:-1] <= longest
        begin, end = first[inner], last[inner]
        return np.stack([begin, end, begin - 1, end], axis=1).astype(np.int64)

    def _of_captions(self, rng, wanted: int) -> np.ndarray:
        """Captions sampled at random, each with two siblings of the same photo."""
        assert self.captions is not None
        documents = self.captions.documents
        begin, count = documents[:-1], np.diff(documents)
        usable = np.flatnonzero(count >= 3)
        if not len(usable):
            raise ValueError('captions: expected a photo with at least three captions, found none')
        photos = rng.choice(usable, wanted)
        first = rng.integers(0, count[photos])
        before = (first + rng.integers(1, count[photos])) % count[photos]
        # The third is one of the count - 2 others: step past the two that are taken.
        after = rng.integers(0, count[photos] - 2)
        low, high = np.minimum(first, before), np.maximum(first, before)
        after += after >= low
        after += after >= high
        start = begin[photos]
        units = np.stack([start + first, start + first + 1, start + before, start + after], axis=1)
        lengths = self.captions.sentences[units[:, 1]] - self.captions.sentences[units[:, 0]]
        return units[(lengths > 0) & (lengths <= self.options.longest)]


def _walk(documents: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Which sentences units begin at (S,), if each begins where the one before it ends."""
    begins, steps = np.zeros(len(last), bool), last.tolist()
    chosen = []
    for begin, end in itertools.pairwise(documents.tolist()):
        first = begin + 1
        while first < end - 1:
            chosen.append(first)
            first = steps[first]
    begins[chosen] = True
    return begins
