from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from storyteller import decoder, formats
from storyteller.formats import MismatchError
from storyteller.training.decoder import ConditionalGRU, DecoderOptions, initial_params
from storyteller.training.preferences import PreferenceCost, Preferences, log_probabilities
from storyteller.vocabulary import Vocabulary

OPTIONS = DecoderOptions(dim_word=10, dim=12, doutput=True)
CPU = torch.device('cpu')
WORDS = 9
VECTORS = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
TEXTS = [np.array(text) for text in ([2, 3, 4], [5, 6], [7, 8, 2, 2], [3])]
TOLD = Preferences(VECTORS, TEXTS, np.array([0, 0, 1, 1]), np.array([[0, 1], [3, 2]]))


def model(seed=0, **changes):
    options = replace(OPTIONS, **changes)
    params = initial_params(options, WORDS, 5, seed)
    params['ff_logit_W'] = params['ff_logit_W'] * 20
    return ConditionalGRU(params, options)


def slow_log_probability(model, text, vector, tmp_path):
    """Word by word, by the module that tells stories with these parameters."""
    formats.write_model(tmp_path / 'd.npz', model.params(), {'doutput': True})
    formats.write_pickle(tmp_path / 'd.pkl', {f'w{i}': i for i in range(2, WORDS)})
    dec = decoder.load_model(tmp_path / 'd.npz', tmp_path / 'd.pkl', device='cpu')
    state, total, last = dec['f_init'](vector[None]), 0.0, -1
    for word in (*text, 0):
        p, _, state = dec['f_next'](np.array([last]), state)
        total, last = total + np.log(p[0, word]), word
    return total


def learn(cost, steps=60, weight=1.0):
    optimizer = torch.optim.Adam(cost.model.parameters(), lr=0.01)
    for _ in range(steps):
        told, preferred = cost(np.arange(2))
        optimizer.zero_grad()
        (told + weight * preferred).backward()
        optimizer.step()


def test_log_probabilities_are_those_of_the_decoder_that_tells(tmp_path):
    some = model()
    found = log_probabilities(some, *TOLD.tensors(np.arange(4), CPU))
    expected = [
        slow_log_probability(some, text, VECTORS[row], tmp_path)
        for text, row in zip(TEXTS, TOLD.told_of, strict=True)
    ]
    np.testing.assert_allclose(found.detach(), expected, atol=1e-4)


def test_the_cost_is_that_of_the_formula():
    before, now, beta = model(0), model(1), 0.3
    cost = PreferenceCost(before, TOLD, beta, CPU)
    cost.model = now
    told, preferred = cost(np.array([1, 0]))
    p, q = (log_probabilities(m, *TOLD.tensors(np.arange(4), CPU)).detach() for m in (now, before))
    margins = [(p[w] - q[w]) - (p[worse] - q[worse]) for w, worse in TOLD.pairs]
    expected = sum(np.log1p(np.exp(-beta * margin.item())) for margin in margins)
    assert preferred.item() == pytest.approx(expected, rel=1e-4)
    assert told.item() == pytest.approx(-(p[0] + p[3]).item(), rel=1e-5)


def test_it_begins_with_no_preference():
    _, preferred = PreferenceCost(model(), TOLD, 0.5, CPU)(np.arange(2))
    assert preferred.item() == pytest.approx(2 * np.log(2), rel=1e-5)


def test_better_texts_become_more_probable_and_worse_ones_less():
    some = model()
    cost = PreferenceCost(some, TOLD, 0.1, CPU)
    learn(cost)
    now = log_probabilities(some, *TOLD.tensors(np.arange(4), CPU)).detach()
    assert (now > cost.before).tolist() == [True, False, False, True]


def test_a_larger_beta_stays_nearer_to_the_beginning():
    moved = []
    for beta in (0.1, 10.0):
        some = model()
        cost = PreferenceCost(some, TOLD, beta, CPU)
        optimizer = torch.optim.SGD(some.parameters(), lr=0.05)
        for _ in range(100):
            optimizer.zero_grad()
            (cost(np.arange(2))[1] / beta).backward()
            optimizer.step()
        now = log_probabilities(some, *TOLD.tensors(np.arange(4), CPU)).detach()
        better, worse = (now - cost.before)[TOLD.pairs.T]
        moved.append((better - worse).min().item())
    assert moved[0] > 2 * moved[1] > 0


def test_nothing_is_dropped():
    some = model(dropout=0.5, word_dropout=0.5, towards_mean=0.5).train()
    tensors = TOLD.tensors(np.arange(4), CPU)
    first, second = (log_probabilities(some, *tensors) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, log_probabilities(some.eval(), *tensors))


def test_bfloat16_is_near():
    tensors = TOLD.tensors(np.arange(4), CPU)
    found = log_probabilities(model(bfloat16=True), *tensors)
    torch.testing.assert_close(found, log_probabilities(model(), *tensors), atol=0.3, rtol=0.02)


def test_good_texts_are_preferred_to_all_that_are_marked_lower():
    words = Vocabulary(('<eos>', 'UNK', 'the', 'dog', 'cat', 'ran', 'slept'))
    marked = [
        [(5, 'the dog ran'), (4, 'the dog slept'), (4, 'dog ran'), (3, 'the cat'), (1, 'the cow')],
        [(3, 'the cat slept'), (1, 'the')],
        [(4, 'cat ran'), (2, 'dog slept')],
    ]
    found = Preferences.of_marked(marked, np.eye(3), words)
    told = [' '.join(words.decode(text)) for text in found.texts]
    assert sorted((told[better], told[worse]) for better, worse in found.pairs) == [
        ('cat ran', 'dog slept'),
        ('dog ran', 'the cat'),
        ('the dog ran', 'dog ran'),
        ('the dog ran', 'the cat'),
        ('the dog ran', 'the dog slept'),
        ('the dog slept', 'the cat'),
    ]
    assert found.told_of.tolist() == [0] * 4 + [1] * 2 + [2] * 2
    with pytest.raises(MismatchError, match='a text marked 4 or 5 and one with a lower mark'):
        Preferences.of_marked(marked[1:2], np.eye(1), words)


@pytest.mark.parametrize(
    'changes',
    [
        {'told_of': np.array([0, 0, 1])},
        {'pairs': np.zeros((0, 2), np.int64)},
        {'pairs': np.zeros((3, 3), np.int64)},
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes):
    with pytest.raises(MismatchError, match='expected a thought of each of 4 texts'):
        replace(TOLD, **changes)


@pytest.mark.parametrize('text', [[], [2, 1], [0, 3]])
def test_texts_that_no_decoder_says_are_refused(text):
    with pytest.raises(ValueError, match=r'texts\[2\]: expected known words'):
        replace(TOLD, texts=[*TEXTS[:2], np.array(text, np.int64), TEXTS[3]])
