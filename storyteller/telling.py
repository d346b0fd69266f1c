"""More ways to tell than that of 2015: other searches and other draws, by rules for the words.

:class:`storyteller.options.Telling` says how; as it is by default, it is the search of 2015, which
stands in :mod:`storyteller.search`. What is here takes the same step functions, one context at a
time.

Dimension letters: R live hypotheses, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .decoder import network
from .layers import inference
from .options import Telling, check_count
from .search import START, Hypothesis, Step, generator, keywords
from .search.rules import Rules
from .vocabulary import EOS

Seed = int | torch.Generator | None


# --- searching -----------------------------------------------------------------------------------


def search(
    step: Step, state: Tensor, k: int, maxlen: int, rules: Rules | None = None
) -> list[Hypothesis]:
    """The best texts of one context that are not empty, best first.

    Parameters
    ----------
    step : callable
        See :mod:`storyteller.search`.
    state : Tensor, shape (1, ...)
    k, maxlen : int
        Beam width, and greatest number of words, ``<eos>`` included.
    rules : Rules

    Returns
    -------
    list of Hypothesis
        As many as are `wanted`, or fewer where there are not so many. A text that was cut at
        `maxlen` is among them only if it has all required words.

    Notes
    -----
    As in 2015 each finished hypothesis narrows its (group's) beam by one. The search ends when no
    live hypothesis can be among the best any more: its cost can only grow, and be divided by no
    more than the penalty of the greatest length.
    """
    rules = rules or Rules()
    telling = rules.telling
    telling.check_for(drawn=False, beam_width=k)
    groups = [_Group(k // telling.groups) for _ in range(telling.groups)]
    for group in groups:
        group.live = [_Live((), 0.0, 0)]
    for length in range(maxlen):
        live = [hypothesis for group in groups for hypothesis in group.live]
        if not live or _decided(groups, rules, maxlen):
            break
        state = state[torch.tensor([hypothesis.row for hypothesis in live], device=state.device)]
        last = [hypothesis.words[-1] if length else START for hypothesis in live]
        logp, state = step(torch.tensor(last, device=state.device), state)
        logp = rules.allowed(logp.float(), [hypothesis.words for hypothesis in live])
        if logp.isnan().any():
            raise ValueError('the step function gave log-probabilities that are NaN')
        said: Counter[int] = Counter()
        first = 0
        for group in groups:
            rows = slice(first, first + len(group.live))
            said.update(group.advance(logp[rows], said, rules, first))
            first = rows.stop
    found = [hypothesis for group in groups for hypothesis in group.finished]
    for group in groups:
        whole = (h for h in group.live if set(rules.required) <= set(h.words))
        found += [Hypothesis(list(h.words), h.score) for h in whole if len(h.words) == maxlen]
    found = [hypothesis for hypothesis in found if hypothesis.text]
    return sorted(found, key=rules.score)[: telling.wanted]


@dataclass(frozen=True)
class _Live:
    words: tuple[int, ...]
    score: float
    row: int  # of the state that the last step gave


class _Group:
    """A beam of its own; the words that earlier groups took cost it something."""

    def __init__(self, size: int):
        self.size = size
        self.live: list[_Live] = []
        self.finished: list[Hypothesis] = []

    def advance(self, logp: Tensor, said: Counter[int], rules: Rules, first: int) -> list[int]:
        """Make one step; the words that were taken. `first` is the row of the group's first."""
        if not self.live:
            return []
        costs = logp.new_tensor([h.score for h in self.live])[:, None] - logp  # (R, V)
        dear = costs.clone()
        for word, times in said.items():
            dear[:, word] += rules.telling.diversity * times
        width, taken, live = self.size - len(self.finished), [], []
        for row, word in self._chosen(dear, width, rules):
            words, cost = self.live[row].words, float(costs[row, word])
            taken.append(word)
            if word == EOS:
                self.finished.append(Hypothesis([*words, EOS], cost))
            else:
                live.append(_Live((*words, word), cost, first + row))
        self.live = live
        return taken

    def _chosen(self, dear: Tensor, width: int, rules: Rules) -> list[tuple[int, int]]:
        """Rows and words of the cheapest continuations; with required words, of each bank."""
        n_words = dear.shape[1]
        places = _cheapest(dear.flatten(), width)
        if not rules.required:
            return [divmod(place, n_words) for place in places]
        # Each hypothesis may go on with any word that it still needs, or with its own best ones,
        # so that those with many of the words are not crowded out by cheaper ones with few.
        candidates = set(places)
        for row, hypothesis in enumerate(self.live):
            needed = {*rules.required} - set(hypothesis.words)
            candidates |= {row * n_words + word for word in needed}
            candidates |= {row * n_words + word for word in _cheapest(dear[row], width)}
        costs = {place: float(dear.flatten()[place]) for place in candidates}
        finite = (place for place in costs if np.isfinite(costs[place]))
        order = sorted(finite, key=costs.__getitem__)
        banks: dict[int, list[int]] = {}
        for place in order:
            row, word = divmod(place, n_words)
            met = len({*rules.required} & {*self.live[row].words, word})
            banks.setdefault(met, []).append(place)
        share = max(1, width // (len(rules.required) + 1))
        chosen = [place for met in sorted(banks, reverse=True) for place in banks[met][:share]]
        chosen = chosen[:width]
        chosen += [place for place in order if place not in set(chosen)][: width - len(chosen)]
        return [divmod(place, n_words) for place in sorted(chosen, key=costs.__getitem__)]


def _cheapest(costs: Tensor, k: int) -> list[int]:
    """Places of the k least finite costs of (N,), best first, equal ones by place."""
    order = torch.sort(costs, stable=True).indices[:k] if k >= len(costs) else None
    if order is None:
        edge = costs.topk(k, largest=False).values[-1]
        places = (costs <= edge).nonzero()[:, 0]
        order = places[torch.sort(costs[places], stable=True).indices[:k]]
    return [place for place in order.tolist() if torch.isfinite(costs[place])]


def _decided(groups: Sequence[_Group], rules: Rules, maxlen: int) -> bool:
    """Whether no live hypothesis can be among the best any more."""
    finished = sorted(rules.score(h) for group in groups for h in group.finished if h.text)
    if len(finished) < rules.telling.wanted:
        return False
    lowest = min((h.score for group in groups for h in group.live), default=np.inf)
    return finished[rules.telling.wanted - 1] <= lowest / maxlen**rules.telling.length_penalty


# --- drawing -------------------------------------------------------------------------------------


def draw(
    step: Step, state: Tensor, maxlen: int, seed: Seed, rules: Rules | None = None
) -> Hypothesis:
    """Draw a text of one context word by word, by the rules.

    Arguments as for :func:`search`; `seed` makes it repeatable, or is a source that goes on. The
    score is that of the model's own distribution. Where the rules leave no word, the text ends.
    """
    rules = rules or Rules()
    rules.telling.check_for(drawn=True)
    random = seed if isinstance(seed, torch.Generator) else generator(seed, state.device)
    words: list[int] = []
    score = 0.0
    last = torch.tensor([START], device=state.device)
    for _ in range(maxlen):
        logp, state = step(last, state)
        chances = chances_of(rules.allowed(logp.float(), [words])[0], rules.telling)
        if chances is None:
            break
        last = chances.multinomial(1, generator=random)
        score -= float(logp[0, last])
        words.append(int(last))
        if words[-1] == EOS:
            break
    return Hypothesis(words or [EOS], score)


def chances_of(logp: Tensor, telling: Telling) -> Tensor | None:
    """Probabilities (V,) to draw from: `top_k`, then `temperature`, then `top_p`.

    None where no word has any.
    """
    if not torch.isfinite(logp).any():
        if logp.isnan().any():
            raise ValueError('the step function gave log-probabilities that are NaN')
        return None
    if telling.top_k:
        edge = logp.topk(min(telling.top_k, len(logp))).values[-1]
        logp = logp.masked_fill(logp < edge, -torch.inf)
    chances = (logp / telling.temperature).softmax(0)
    if telling.top_p < 1:
        likeliest, order = chances.sort(descending=True, stable=True)
        before = likeliest.cumsum(0) - likeliest  # what likelier words have together
        chances = chances.scatter(0, order[before >= telling.top_p], 0.0)
        chances = chances / chances.sum()
    return chances


# --- from vectors to texts -----------------------------------------------------------------------


@inference()
def tell(
    dec: Mapping[str, Any],
    contexts: np.ndarray,
    telling: Telling,
    beam_width: int = 1,
    *,
    maxlen: int = 1000,
    seed: int | None = None,
    use_unk: bool = False,
    captions: Sequence[Sequence[str]] | None = None,
) -> list[list[tuple[str, float]]]:
    """Tell the stories of many contexts, each for itself.

    Parameters
    ----------
    dec : dict
        From `storyteller.decoder.load_model`.
    contexts : (B, D) array
        Thought vectors.
    telling : Telling
    beam_width, maxlen : int
    seed : int, optional
        Draw each story by this number instead of searching.
    use_unk : bool
        Allow the word ``UNK``.
    captions : sequence of B sequences of str, optional
        What each story is told of; for ``telling.keywords``.

    Returns
    -------
    list of B lists of (str, float)
        Texts, words between blanks, and what they were compared by, best first; empty where there
        is none. With several `candidates` all of them, in the order in which they were found, with
        the mean log-probability of a word: for :func:`storyteller.search.candidates.nearest_first`.

    Raises
    ------
    ValueError
        If a field has no effect on what is asked for, a required word is not known, or keywords
        are asked for without captions.
    """
    check_count('beam width', beam_width)
    check_count('maxlen', maxlen)
    telling.check_for(seed is not None, beam_width)
    contexts = np.atleast_2d(np.asarray(contexts, np.float32))
    if telling.keywords and (captions is None or len(captions) != len(contexts)):
        raise ValueError(f'keywords={telling.keywords}: expected the captions of each context')
    words = words_of(dec)
    same = Rules.of(telling, words, use_unk)
    model, told = network(dec), []
    for i, row in enumerate(contexts):
        rules = same
        if captions is not None and telling.keywords:
            rules = replace(same, worth=keywords.worth(captions[i], telling.keywords, words))
        state = model.start(torch.from_numpy(row[None]).to(model.device))
        if seed is None:
            found = search(model.step, state, beam_width, maxlen, rules)
        else:
            random = generator(seed, state.device)
            found = [draw(model.step, state, maxlen, random, rules) for _ in range(telling.wanted)]
        texts = [h for h in found if h.text]
        scores = map(rules.score if telling.candidates == 1 else _fluency, texts)
        told.append([(_text(dec, h), score) for h, score in zip(texts, scores, strict=True)])
    return told


def words_of(dec: Mapping[str, Any]) -> dict[str, int]:
    """The words that a decoder can say; its dictionary may hold more."""
    return {word: i for word, i in dec['worddict'].items() if i < dec['options']['n_words']}


def _text(dec: Mapping[str, Any], hypothesis: Hypothesis) -> str:
    return ' '.join(dec['word_idict'][word] for word in hypothesis.text)


def _fluency(hypothesis: Hypothesis) -> float:
    return -hypothesis.score / len(hypothesis.text)
