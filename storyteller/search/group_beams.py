"""Beam search by rules for the words, in groups that differ, for many contexts in one batch.

It takes the step functions of :mod:`storyteller.search`. What happens to the hypotheses between two
steps is done on arrays of all of them.

Dimension letters: B contexts, A live ones, G groups, K beam of a group, R live hypotheses,
n choices of each, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..topk import topk
from ..vocabulary import EOS
from . import START, Hypothesis, Step
from .rules import Rules, Texts

NOBODY = -1  # where there is no hypothesis


def search(
    step: Step, state: Tensor, k: int, maxlen: int, rules: Rules | None = None
) -> list[list[Hypothesis]]:
    """The best texts of each of B contexts that are not empty, best first.

    Parameters
    ----------
    step : callable
        See :mod:`storyteller.search`.
    state : Tensor, shape (B, ...)
        The state before the first word, one row per context.
    k, maxlen : int
        Beam width, and greatest number of words, ``<eos>`` included.
    rules : Rules

    Returns
    -------
    list of B lists of Hypothesis
        As many as are `wanted`, or fewer where there are not so many. A text that was cut at
        `maxlen` is among them only if it has all required words. Each context's list is what it
        would be if searched alone.

    Notes
    -----
    As in 2015 each finished hypothesis narrows its (group's) beam by one. The search of a context
    ends when no live hypothesis can be among the best any more: its cost can only grow, once no
    word is contrasted, and be divided by no more than the penalty of the greatest length.
    """
    rules = rules or Rules()
    rules.telling.check_for(drawn=False, beam_width=k)
    beams = _Beams(len(state), k, maxlen, rules)
    last = np.full(len(state), START)
    while beams.contexts.size and beams.length < maxlen:
        logp, state = step(torch.from_numpy(last).to(state.device), state)
        choices = _Choices(beams.texts.allowed(logp.float()), beams.scores, k, rules)
        del logp  # large: the next one takes its place in memory
        parents, last = beams.advance(choices)
        state = state[torch.from_numpy(parents).to(state.device)]
    return beams.found()


class _Choices:
    """What each of R hypotheses may go on with: its k cheapest words, and the required ones.

    More than k words of one hypothesis are never looked at: the words that earlier groups took
    leave it more than enough that cost nothing extra.
    """

    def __init__(self, logp: Tensor, scores: np.ndarray, k: int, rules: Rules):
        known = torch.from_numpy(scores).to(logp.device)[:, None]
        self.n_words = logp.shape[1]
        found, words = topk(logp - known, k)
        if found.isnan().any():
            raise ValueError('the step function gave log-probabilities that are NaN')
        costs = -found
        if rules.required:
            needed = torch.tensor([*rules.required], device=logp.device).expand(len(logp), -1)
            there = (words[:, :, None] == needed[:, None]).any(dim=1)
            asked = (known - logp.gather(1, needed)).masked_fill(there, torch.inf)
            costs, words = torch.cat([costs, asked], 1), torch.cat([words, needed], 1)
        ascending = words.sort(dim=1)
        # (R, n): ascending, so that among equal costs the first place is the first word.
        self.words = ascending.values.cpu().numpy()
        # (R, n) float32: of the texts with them; not finite where there are fewer choices.
        self.costs = costs.gather(1, ascending.indices).cpu().numpy()


class _Beams:
    """The beams of all contexts, each in groups; words that earlier groups took cost later ones."""

    def __init__(self, count: int, k: int, maxlen: int, rules: Rules):
        self.rules, self.maxlen, self.length = rules, maxlen, 0
        groups = rules.telling.groups
        self.contexts: np.ndarray = np.arange(count)  # (A,) those that are live
        # (A, groups, k / groups): rows of the live hypotheses of each, best first, or NOBODY.
        self.grid = np.full((count, groups, k // groups), NOBODY)
        self.grid[:, :, 0] = self.contexts[:, None]  # all groups begin with the same empty text
        self.texts = Texts(rules, count)  # their words, one row each
        self.scores = np.zeros(count, np.float32)  # (R,)
        self.finished: list[list[list[Hypothesis]]] = [  # in order of finishing
            [[] for _ in range(groups)] for _ in range(count)
        ]

    def advance(self, choices: _Choices) -> tuple[np.ndarray, np.ndarray]:
        """Make one step: the rows that the live hypotheses go on from, and their new words."""
        nobody = (self.grid == NOBODY)[..., None]
        costs = np.where(nobody, np.float32(np.inf), choices.costs[self.grid])  # (A, G, K, n)
        words = choices.words[self.grid]
        places = self._places(costs, words, choices.n_words)  # (A, G, K)
        rows, choice = np.divmod(places, costs.shape[-1])
        here = np.arange(len(places))[:, None, None], np.arange(places.shape[1])[:, None], rows
        parents, costs, words = self.grid[here], costs[(*here, choice)], words[(*here, choice)]
        self.length += 1
        ended = (places != NOBODY) & (words == EOS)
        for at in map(tuple, np.argwhere(ended).tolist()):
            ending = Hypothesis([*self.texts.words[parents[at]].tolist(), EOS], float(costs[at]))
            self.finished[self.contexts[at[0]]][at[1]].append(ending)
        return self._keep((places != NOBODY) & ~ended, costs, parents, words)

    def _places(self, costs: np.ndarray, words: np.ndarray, n_words: int) -> np.ndarray:
        """Where in (K, n) of each group its next beam stands, (A, G, K), best first; or NOBODY."""
        n, groups, size = costs.shape[:3]
        finished = [[len(each) for each in self.finished[context]] for context in self.contexts]
        width = size - np.array(finished)  # (A, G)
        costs, words = costs.reshape(n, groups, -1), words.reshape(n, groups, -1)
        contexts, taken = np.arange(n)[:, None], np.zeros((n, n_words), np.int32)
        places = np.empty((n, groups, size), np.int64)
        for group in range(groups):
            said = taken[contexts, words[:, group]]
            dear = costs[:, group] + (self.rules.telling.diversity * said).astype(np.float32)
            if self.rules.required:
                order = self._of_banks(group, dear, words[:, group], width[:, group])
            else:
                order = dear.argsort(axis=1, kind='stable')[:, :size]
            chosen = np.isfinite(dear[contexts, order]) & (order != NOBODY)
            chosen &= np.arange(size) < width[:, group, None]
            places[:, group] = np.where(chosen, order, NOBODY)
            a, rank = np.nonzero(chosen)
            np.add.at(taken, (a, words[a, group, order[a, rank]]), 1)
        return places

    def _of_banks(
        self, group: int, dear: np.ndarray, words: np.ndarray, width: np.ndarray
    ) -> np.ndarray:
        """Places as by :meth:`_places`, of one group, for which all required words are met.

        Each hypothesis may go on with any word that it still needs, or with its own best ones, so
        that those with many of the words are not crowded out by cheaper ones with few: of each
        number of words that are met, a bank has its share of the beam.
        """
        required = np.unique(self.rules.required)
        places = np.full((len(dear), self.grid.shape[2]), NOBODY)
        for a, rows in enumerate(self.grid[:, group]):
            costs, new = dear[a].reshape(len(rows), -1), words[a].reshape(len(rows), -1)
            has = (self.texts.words[rows, :, None] == required).any(axis=1)[:, None]  # (K, 1, ...)
            adds = new[..., None] == required
            own = costs.argsort(axis=1, kind='stable').argsort(axis=1) < width[a]
            open_to = (own | (adds & ~has).any(axis=2)) & np.isfinite(costs)
            order = np.flatnonzero(open_to)
            order = order[dear[a, order].argsort(kind='stable')]
            met = (has | adds).sum(axis=2).ravel()[order]
            share = max(1, width[a] // (len(self.rules.required) + 1))
            banks = [order[met == count][:share] for count in range(len(required), -1, -1)]
            chosen = np.concatenate(banks)[: width[a]]
            left = order[~np.isin(order, chosen)][: width[a] - len(chosen)]
            chosen = np.concatenate([chosen, left])
            places[a, : len(chosen)] = chosen[dear[a, chosen].argsort(kind='stable')]
        return places

    def _keep(
        self, live: np.ndarray, costs: np.ndarray, parents: np.ndarray, words: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Number what is `live` of (A, G, K) anew, without contexts that are decided."""
        lowest = np.where(live, costs, np.inf).min(axis=(1, 2))
        for a, context in enumerate(self.contexts):
            live[a] &= not self._decided(context, lowest[a])
        goes_on = live.any(axis=(1, 2))
        self.grid = np.full(live.shape, NOBODY)
        self.grid[live] = np.arange(live.sum())
        self.contexts, self.grid = self.contexts[goes_on], self.grid[goes_on]
        self.scores = costs[live]
        self.texts.grow(parents[live], words[live])
        return parents[live], words[live]

    def _decided(self, context: int, lowest: float) -> bool:
        """Whether no live hypothesis of a context can be among the best any more."""
        finished = [h for group in self.finished[context] for h in group if h.text]
        wanted, telling = self.rules.telling.wanted, self.rules.telling
        contrasted = telling.contrast and not 0 < telling.contrast_words <= self.length
        if len(finished) < wanted or contrasted:
            return False
        edge = sorted(map(self.rules.score, finished))[wanted - 1]
        return edge <= float(lowest) / self.maxlen**telling.length_penalty

    def found(self) -> list[list[Hypothesis]]:
        """The best of each context; those that are live now were cut at the greatest length."""
        every = [[h for group in groups for h in group] for groups in self.finished]
        for context, words, score in zip(
            self.texts.owner.tolist(), self.texts.words.tolist(), self.scores.tolist(), strict=True
        ):
            if set(self.rules.required) <= set(words):
                every[context].append(Hypothesis(words, score))
        told = ([h for h in found if h.text] for found in every)
        return [sorted(h, key=self.rules.score)[: self.rules.telling.wanted] for h in told]
