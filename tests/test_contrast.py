"""Contrast with what a decoder says anyway, against the formula, one text at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from storyteller.options import SearchOptions
from storyteller.search import START
from storyteller.search.contrast import FAR, against, contrasted
from storyteller.search.rules import Rules
from storyteller.telling import search

V = 6


def model(seed=0):
    """A step function that knows its context, which is all of its state, and the word before."""
    rng = np.random.default_rng(seed)
    table = torch.from_numpy(rng.normal(size=(3, V + 1, V))).log_softmax(2).float()

    def step(words, state):
        return table[state[:, 0].long(), words], state

    return step, table


def costs(table, context, words, weight, first, plausibility):
    """Of the words of a text, by the definition."""
    found, last = [], START
    for place, word in enumerate(words):
        told, anyway = table[context, last].double(), table[2, last].double()
        if not first or place < first:
            plausible = told.exp() >= plausibility * told.exp().max()
            told = torch.where(plausible, told - weight * anyway, told - FAR)
            told = told - told.exp().sum().log()
        found.append(-float(told[word]))
        last = word
    return found


@pytest.mark.parametrize('first', [0, 2])
@pytest.mark.parametrize('plausibility', [0.4, 1e-9])
def test_costs_are_those_of_the_definition(first, plausibility):
    step, table = model()
    contexts, anyway = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0]])
    both, state = contrasted(step, contexts, anyway, 0.7, first, plausibility)
    texts = [[3, 2, 5, 0], [4, 4, 3, 0]]
    last, seen = torch.full((2,), START), []
    for words in zip(*texts, strict=True):
        logp, state = both(last, state)
        assert (logp <= 0).all()
        last = torch.tensor(words)
        seen.append(-logp.gather(1, last[:, None])[:, 0])
    for context, words in enumerate(texts):
        wanted = costs(table, context, words, 0.7, first, plausibility)
        np.testing.assert_allclose(torch.stack(seen)[:, context], wanted, rtol=1e-5, atol=1e-5)


def test_the_state_is_the_plain_one_once_no_word_is_contrasted():
    step, _ = model()
    both, state = contrasted(step, torch.zeros(1, 1), torch.full((1, 1), 2.0), 0.7, 2, 0.1)
    widths = []
    for word in (START, 3, 4):
        _, state = both(torch.tensor([word]), state)
        widths.append(state.shape[1])
    assert widths == [3, 1, 1]


def test_what_is_said_anyway_is_said_less():
    step, table = model()
    table[:2, START] = torch.tensor([0.02, 0.02, 0.5, 0.4, 0.03, 0.03]).log()
    table[2, START] = torch.tensor([0.02, 0.02, 0.9, 0.02, 0.02, 0.02]).log()
    rules, state = Rules(SearchOptions()), torch.zeros(1, 1)
    ((plain,),) = search(step, state, 1, 2, rules)
    both, begun = contrasted(step, state, torch.full((1, 1), 2.0), 0.5, 1, 0.1)
    ((told,),) = search(both, begun, 1, 2, rules)
    assert (plain.words[0], told.words[0]) == (2, 3)


def test_words_that_rules_ask_for_are_said_though_they_are_not_plausible():
    step, _ = model()
    both, state = contrasted(step, torch.zeros(1, 1), torch.full((1, 1), 2.0), 0.5, 0, 1.0)
    for word in range(2, V):
        rules = Rules(SearchOptions(required=('a',)), required=(word,))
        ((told,),) = search(both, state, 4, 6, rules)
        assert word in told.words


def test_impossible_words_stay_impossible():
    logp = torch.tensor([[0.0, -torch.inf, -1.0]])
    found = against(logp, torch.tensor([[-1.0, -torch.inf, -torch.inf]]), 1.0, 0.1)
    assert found[0, 1] == -torch.inf and not found.isnan().any()
