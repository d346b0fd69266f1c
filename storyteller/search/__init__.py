"""Beam search and sampling over any step function.

This module knows no model. It asks a *step function* for the log-probabilities of the next word of
many hypotheses at once::

    logp, state = step(words, state)

``words`` (R,) int64 holds the last word of each of R hypotheses (:data:`START` before the first
one), ``state`` (R, ...) whatever the model carries along, one row each. ``logp`` (R, V) float32
holds log-probabilities, so none is above zero. Rows are independent of each other: hypotheses of
several texts ("contexts") are searched in one batch, each with its own beam, and a context that is
done leaves the batch.

The score of a hypothesis is the sum of its negative log-probabilities (NLL) in float32, without
any length normalisation: lower is better, and it never falls while a hypothesis grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..options import check_count
from ..topk import topk
from ..vocabulary import EOS as EOS
from ..vocabulary import UNK as UNK

START = -1  # what stands before the first word

# The cost of a hypothesis that uses UNK where it is banned. Not inf: as in 2015, words of
# probability zero rank behind it.
BANNED = 1e20

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Hypothesis(NamedTuple):
    """A finished text, or one truncated at the maximum length."""

    words: list[int]  # the last one is EOS unless it was cut
    score: float  # summed NLL, in nats

    @property
    def text(self) -> list[int]:
        """The words without the final :data:`EOS`; all of them if the hypothesis was cut."""
        return self.words[:-1] if self.words[-1] == EOS else self.words


def best(hypotheses: Sequence[Hypothesis]) -> Hypothesis | None:
    """The hypothesis with the lowest score; among equals the first.

    As in 2015 an empty text is left out if it stands first in the list, the only place that a beam
    search can give it. None if there is no other.

    Examples
    --------
    >>> best([Hypothesis([0], 0.5), Hypothesis([7, 0], 2.0), Hypothesis([8, 9, 0], 1.5)]).text
    [8, 9]
    >>> best([Hypothesis([0], 0.5)]) is None
    True
    """
    if hypotheses and not hypotheses[0].text:
        hypotheses = hypotheses[1:]
    return min(hypotheses, key=lambda hypothesis: hypothesis.score, default=None)


# --- beam search ---------------------------------------------------------------------------------


def beam_search(
    step: Step,
    state: Tensor,
    k: int = 1,
    maxlen: int = 1000,
    *,
    use_unk: bool = False,
    n_best: int | None = None,
) -> list[list[Hypothesis]]:
    """Find the k most probable texts of each of B contexts.

    The beam is that of 2015: the first step goes out from one hypothesis; a finished hypothesis
    is never displaced and narrows the beam by one; the search of a context ends when k are
    finished, none is live, or at `maxlen`.

    Candidates of equal cost are ranked by the hypothesis they continue, the better one first, then
    by word index (in 2015 by an unstable sort).

    Parameters
    ----------
    step : callable
        See the module's docstring.
    state : Tensor, shape (B, ...)
        The state before the first word, one row per context.
    k : int
        Beam width. More than there are candidates is allowed.
    maxlen : int
        Maximum number of words, :data:`EOS` included.
    use_unk : bool
        Allow the word :data:`UNK`. Else its cost is overwritten by :data:`BANNED`.
    n_best : int, optional
        Stop a context as soon as its `n_best` best non-empty texts are known, and give only the
        finished ones. Since a score never falls (a length normalisation would change that), they
        are known once the n-th best finished one is no worse than the best live one.

    Returns
    -------
    list of B lists of Hypothesis
        First the finished ones in the order of finishing, then, if the search ran its length, the
        live ones from best to worst. Each context's list is what it would be if searched alone.

    Raises
    ------
    ValueError
        If an option is out of range or `step` gives NaN.

    Examples
    --------
    >>> table = torch.tensor([[0.1, 0.0, 0.9], [1.0, 0.0, 0.0], [0.6, 0.0, 0.4]]).log()
    >>> def step(words, state):
    ...     return table[words], state  # word -1 reads the last row
    >>> [(h.words, round(h.score, 3)) for h in beam_search(step, torch.zeros(1, 1), k=2)[0]]
    [([0], 0.511), ([2, 0], 1.427)]
    """
    check_count('beam width', k)
    check_count('maxlen', maxlen)
    if n_best is not None:
        check_count('n_best', n_best)
    beams = _Beams(len(state), k, n_best)
    device = state.device
    while beams.owner.size and len(beams.rounds) < maxlen:
        logp, state = step(torch.from_numpy(beams.words).to(device), state)
        contexts, rows = beams.grid()
        beams.advance(contexts, *_expand(logp.float(), beams.scores, rows, k, use_unk))
        del logp  # large: the next one takes its place in memory
        state = state[torch.from_numpy(beams.parents).to(device)]
    return beams.hypotheses()


class _Beams:
    """The beams of all contexts, with back-pointers instead of lists of words."""

    def __init__(self, count: int, k: int, n_best: int | None):
        self.k, self.n_best = k, n_best
        # (R,) of each live hypothesis; those of one context stand from best to worst.
        self.owner: np.ndarray = np.arange(count)  # its context, ascending
        self.parents: np.ndarray = self.owner  # the row that it continues
        self.words = np.full(count, START, np.int64)  # its last word
        self.scores = np.zeros(count, np.float32)
        self.rounds: list[tuple[np.ndarray, np.ndarray]] = []  # parents and words of each step
        # Of each context, in order of finishing: words before the final one, the row of the last
        # of them, and the score.
        self.finished: list[list[tuple[int, int, float]]] = [[] for _ in range(count)]

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """The contexts (A,) that are live, and the rows of each (A, K), -1 where it has fewer."""
        contexts, first, counts = np.unique(self.owner, return_index=True, return_counts=True)
        places = np.arange(counts.max())
        return contexts, np.where(places < counts[:, None], first[:, None] + places, -1)

    def advance(
        self, contexts: np.ndarray, costs: np.ndarray, parents: np.ndarray, words: np.ndarray
    ) -> None:
        """Make one step: take from each context's candidates (A, k), best first, its beam."""
        widths = self.k - np.array([len(self.finished[context]) for context in contexts])
        chosen = (np.arange(costs.shape[1]) < widths[:, None]) & ~np.isnan(costs)
        ended = chosen & (words == EOS)
        for a, place in np.argwhere(ended):
            ending = len(self.rounds), int(parents[a, place]), float(costs[a, place])
            self.finished[contexts[a]].append(ending)
        live = chosen & ~ended
        lowest = np.where(live, costs, np.inf).min(axis=1)
        for a, context in enumerate(contexts):
            live[a] &= not self.decided(context, lowest[a])
        self.owner = contexts[np.nonzero(live)[0]]
        self.parents, self.words, self.scores = parents[live], words[live], costs[live]
        self.rounds.append((self.parents, self.words))

    def decided(self, context: int, lowest: float) -> bool:
        """Whether no live hypothesis, the best one having score `lowest`, can be among the best.

        A single one that cannot stays: what it becomes keeps dearer ends out of the beam.
        """
        if self.n_best is None:
            return False
        scores = sorted(score for length, _, score in self.finished[context] if length > 0)
        # A score of inf may still fall to BANNED, but then a live one stands at BANNED already.
        return len(scores) >= self.n_best and scores[self.n_best - 1] <= lowest

    def hypotheses(self) -> list[list[Hypothesis]]:
        """All of each context: the finished ones, then the live ones."""
        results = [
            [Hypothesis([*self.trace(length, row), EOS], score) for length, row, score in endings]
            for endings in self.finished
        ]
        for row, (context, score) in enumerate(zip(self.owner, self.scores, strict=True)):
            results[context].append(Hypothesis(self.trace(len(self.rounds), row), float(score)))
        return results

    def trace(self, length: int, row: int) -> list[int]:
        """Follow the back-pointers from `row` of step `length` to the first word."""
        backwards = []
        for parents, words in reversed(self.rounds[:length]):
            backwards.append(int(words[row]))
            row = parents[row]
        return backwards[::-1]


def _expand(
    logp: Tensor, scores: np.ndarray, rows: np.ndarray, k: int, use_unk: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k cheapest continuations of each context, best first.

    The columns are split into blocks of about sqrt(V) with their least cost as the head. The k
    cheapest words lie in the k blocks with the cheapest heads, so no other is looked at: no sort,
    and no pass that writes all the costs.

    Returns costs, parents (row indices) and words, each (A, <=k); the cost is NaN where there are
    fewer candidates.
    """
    device, size = logp.device, math.isqrt(logp.shape[1])
    known = torch.from_numpy(scores).to(device)
    grid = torch.from_numpy(rows).to(device)  # (A, K)

    heads = _heads(logp, known, size, use_unk)  # (R, N)
    if heads.isnan().any():
        raise ValueError('the step function gave log-probabilities that are NaN')
    heads = heads[grid].masked_fill(grid[:, :, None] < 0, torch.nan)  # (A, K, N)
    # In ascending order, so that places still stand for (hypothesis, word) in the second choice.
    places = topk(heads.flatten(1), k, largest=False)[1].sort(dim=1).values  # (A, <=k)
    parents = grid.gather(1, places // heads.shape[2])[:, :, None]
    words = (places % heads.shape[2] * size)[:, :, None] + torch.arange(size, device=device)

    missing = (parents < 0) | (words >= logp.shape[1])
    costs = known[parents] - logp[parents, words.clamp(max=logp.shape[1] - 1)]
    if not use_unk:
        costs.masked_fill_(words == UNK, BANNED)
    costs = costs.masked_fill_(missing, torch.nan).flatten(1)
    cheapest, order = topk(costs, k, largest=False)
    parents, words = parents.expand_as(words).flatten(1), words.flatten(1)
    found = cheapest, parents.gather(1, order), words.gather(1, order)
    return found[0].cpu().numpy(), found[1].cpu().numpy(), found[2].cpu().numpy()


def _heads(logp: Tensor, scores: Tensor, size: int, use_unk: bool) -> Tensor:
    """The least cost (R, N) in each block of `size` columns; the last block may be shorter."""
    whole = logp.shape[1] // size * size
    tops = [logp[:, :whole].unflatten(1, (-1, size)).amax(dim=2)]
    if whole < logp.shape[1]:
        tops.append(logp[:, whole:].amax(dim=1, keepdim=True))
    heads = scores[:, None] - torch.cat(tops, dim=1)
    if not use_unk:
        first = UNK // size * size
        costs = scores[:, None] - logp[:, first : first + size]
        costs[:, UNK - first] = BANNED
        heads[:, UNK // size] = costs.amin(dim=1)
    return heads


# --- sampling ------------------------------------------------------------------------------------


def sample(
    step: Step,
    state: Tensor,
    maxlen: int = 1000,
    *,
    use_unk: bool = False,
    seeds: Sequence[int | None] | None = None,
) -> list[Hypothesis]:
    """Sample one text for each of B contexts, word by word.

    Parameters
    ----------
    step, state, maxlen
        As for :func:`beam_search`, with the same errors.
    use_unk : bool
        Allow the word :data:`UNK`. Else it is drawn only where nothing else is possible.
    seeds : sequence of B ints, optional
        One for each context: what it draws does not depend on its neighbours in the batch. None,
        as a whole or for one context: nothing is repeatable.

    Returns
    -------
    list of B Hypothesis
        Their scores are those of the model's own distribution, UNK included.
    """
    check_count('maxlen', maxlen)
    device = state.device
    generators = [generator(seed, device) for seed in seeds or [None] * len(state)]
    texts: list[list[int]] = [[] for _ in generators]
    scores = torch.zeros(len(state), dtype=torch.float32, device=device)
    live = torch.arange(len(state), device=device)  # (R,) contexts not yet ended
    words = torch.full_like(live, START)
    for _ in range(maxlen):
        if not len(live):
            break
        logp, state = step(words, state)
        draws = zip(_chances(logp.float(), use_unk), live.tolist(), strict=True)
        words = torch.cat([row.multinomial(1, generator=generators[b]) for row, b in draws])
        scores[live] -= logp.float().gather(1, words[:, None])[:, 0]
        for context, word in zip(live.tolist(), words.tolist(), strict=True):
            texts[context].append(word)
        live, words, state = (rows[words != EOS] for rows in (live, words, state))
    return [Hypothesis(text, score) for text, score in zip(texts, scores.tolist(), strict=True)]


def _chances(logp: Tensor, use_unk: bool) -> Tensor:
    """Probabilities (R, V) to draw from."""
    if not use_unk:
        logp = logp.clone()
        logp[:, UNK] = -BANNED
    chances = logp.softmax(dim=1)
    if chances.isnan().any():
        raise ValueError('the step function gave log-probabilities that are NaN')
    return chances


def generator(seed: int | None, device: torch.device) -> torch.Generator:
    """A seeded random generator."""
    found = torch.Generator(device)
    if seed is None:
        found.seed()
    else:
        check_count('seed', seed, least=0)
        found.manual_seed(int(seed) % 2**64)
    return found
