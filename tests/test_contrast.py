"""Contrast with what a decoder says anyway, against the formula, one text at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from storyteller.options import SearchOptions
from storyteller.search import EOS, START
from storyteller.search.contrast import FAR, against, contrasted
from storyteller.search.rules import Rules, Texts
from storyteller.telling import draw, search

V = 6


def model(seed=0):
    """A step function that knows its context, which is all of its state, and the word before."""
    rng = np.random.default_rng(seed)
    table = torch.from_numpy(rng.normal(size=(3, V + 1, V))).log_softmax(2).float()

    def step(words, state):
        return table[state[:, 0].long(), words], state

    return step, table


def worth(table, context, words, asked):
    """Of the words of a text, by the definition: what they are compared by, in nats."""
    found, last = [], START
    for place, word in enumerate(words):
        told, anyway = table[context, last].double(), table[2, last].double()
        if not asked.contrast_words or place < asked.contrast_words:
            plausible = told.exp() >= asked.plausibility * told[ALLOWED].exp().max()
            told = torch.where(plausible, told - asked.contrast * anyway, told - FAR)
        found.append(float(told[word]))
        last = word
    return found


ALLOWED = [EOS, 2, 3, 4, 5]  # not UNK
FIRST, ALL = (
    SearchOptions(contrast=0.7, contrast_words=2),
    SearchOptions(contrast=0.7, contrast_words=0),
)


@pytest.mark.parametrize('asked', [FIRST, ALL, replace(ALL, plausibility=1e-9)])
def test_words_are_compared_by_the_definition(asked):
    step, table = model()
    contexts, anyway = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0]])
    both, state = contrasted(step, contexts, anyway, asked.contrast_words)
    words, seen, last = [[3, 2, 5, 2], [4, 5, 3, 0]], [], torch.full((2,), START)
    texts = Texts(Rules(asked), 2)
    for said in zip(*words, strict=True):
        logp, state = both(last, state)
        last = torch.tensor(said)
        seen.append(texts.allowed(logp).gather(1, last[:, None])[:, 0])
        texts.grow(np.arange(2), np.array(said))
    for context, text in enumerate(words):
        wanted = worth(table, context, text, asked)
        np.testing.assert_allclose(torch.stack(seen)[:, context], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('asked', [FIRST, ALL])
@pytest.mark.parametrize('seed', range(4))
def test_a_wide_search_finds_the_best_of_all_texts(asked, seed):
    step, table = model(seed)
    both, state = contrasted(step, torch.zeros(1, 1), torch.full((1, 1), 2.0), asked.contrast_words)
    ((found,),) = search(both, state, 2000, 4, Rules(asked))
    inner, ends = [2, 3, 4, 5], []
    for length in range(1, 5):
        ends += itertools.product(inner, repeat=length)
    texts = [[*t, EOS] if len(t) < 4 else [*t] for t in ends]
    best = max(texts, key=lambda text: sum(worth(table, 0, text, asked)))
    assert found.words == best
    assert found.score == pytest.approx(-sum(worth(table, 0, best, asked)), abs=1e-4)


def test_the_state_is_the_plain_one_once_no_word_is_contrasted():
    step, _ = model()
    both, state = contrasted(step, torch.zeros(1, 1), torch.full((1, 1), 2.0), 2)
    widths = []
    for word in (START, 3, 4):
        logp, state = both(torch.tensor([word]), state)
        widths.append((logp.dim(), state.shape[1]))
    assert widths == [(3, 3), (3, 1), (2, 1)]


def test_what_is_said_anyway_is_said_less():
    step, table = model()
    table[:2, START] = torch.tensor([0.02, 0.02, 0.5, 0.4, 0.03, 0.03]).log()
    table[2, START] = torch.tensor([0.02, 0.02, 0.9, 0.02, 0.02, 0.02]).log()
    state = torch.zeros(1, 1)
    ((plain,),) = search(step, state, 1, 2, Rules())
    both, begun = contrasted(step, state, torch.full((1, 1), 2.0), 1)
    ((told,),) = search(both, begun, 1, 2, Rules(SearchOptions(contrast=0.5, contrast_words=1)))
    assert (plain.words[0], told.words[0]) == (2, 3)


@pytest.mark.parametrize('word', range(2, V))
def test_words_that_rules_ask_for_are_said_though_they_are_not_plausible(word):
    step, _ = model()
    both, state = contrasted(step, torch.zeros(1, 1), torch.full((1, 1), 2.0), 0)
    asked = SearchOptions(contrast=0.5, contrast_words=0, plausibility=1.0, required=('a',))
    ((told,),) = search(both, state, 4, 6, Rules(asked, required=(word,)))
    assert word in told.words


def test_what_rules_forbid_makes_no_other_word_implausible():
    logp = torch.tensor([[0.9, 0.04, 0.06]]).log()
    allowed = logp.clone()
    allowed[0, 0] = -torch.inf
    found = against(allowed, logp, torch.full((1, 3), 1 / 3).log(), 1.0, 0.5)
    np.testing.assert_allclose(found[0, 1:], (logp[0, 1:] + np.log(3)), rtol=1e-5)


def test_a_word_is_plausible_that_is_worth_what_it_lacks():
    logp = torch.tensor([[0.9, 0.1]]).log()
    worthy = logp + torch.tensor([[0.0, 1.0]])
    assert float(against(logp, logp, logp, 0.0, 0.2)[0, 1]) < -FAR / 2
    assert float(against(worthy, logp, logp, 0.0, 0.2)[0, 1]) == pytest.approx(float(worthy[0, 1]))


def test_impossible_words_stay_impossible():
    logp = torch.tensor([[0.0, -torch.inf, -1.0]])
    found = against(logp, logp, torch.tensor([[-1.0, -torch.inf, -torch.inf]]), 1.0, 0.1)
    assert found[0, 1] == -torch.inf and not found.isnan().any()


def test_draws_are_contrasted_and_scored_as_the_model_has_it():
    step, table = model()
    table[0, START] = torch.tensor([1e-3, 1e-3, 0.899, 0.099, 0.0, 0.0]).log()
    table[2, START] = torch.tensor([1e-3, 1e-3, 0.99, 1e-9, 0.0, 0.0]).log()
    both, state = contrasted(step, torch.zeros(1, 1), torch.full((1, 1), 2.0), 1)
    asked = SearchOptions(contrast=1.0, contrast_words=1, plausibility=0.1)
    (told,) = draw(both, state, 1, [0], Rules(asked))
    assert told.words == [3] and told.score == pytest.approx(-np.log(0.099), rel=1e-4)
