"""The best of several texts by its own thought, against a slow version; small random decoders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from test_telling import CASES, exhaustive, random_model, rules_of

from storyteller import decoder, skipthoughts, telling, writing
from storyteller.formats import EmptyStoryError
from storyteller.options import StoryOptions, Telling
from storyteller.search.candidates import nearest_first
from storyteller.telling import Rules

# --- finding them --------------------------------------------------------------------------------


@pytest.mark.parametrize('case', ['as in 2015', 'mean cost', 'no pair twice', 'required'])
@pytest.mark.parametrize('seed', range(3))
def test_so_many_finished_texts_are_found(seed, case):
    step, state = random_model(seed)
    rules = rules_of(CASES[case] | {'n_best': 2, 'candidates': 5})
    (found,) = telling.search(step, state, 3000, 5, rules)
    assert [h.words for h in found] == [h.words for h in exhaustive(step, state, 5, rules)[:5]]


@pytest.mark.parametrize('groups', [1, 3])
def test_the_search_goes_on_until_it_has_them(groups):
    """The first texts to end are the best ones, and others are still to come."""
    step, state = random_model(0, n_words=12)
    for k in (6, 9):
        (few,) = telling.search(step, state, k, 30, Rules(Telling(groups=groups)))
        (many,) = telling.search(step, state, k, 30, Rules(Telling(groups=groups, candidates=k)))
        assert few == many[:1] and len(few) < len(many) <= k


# --- choosing ------------------------------------------------------------------------------------


def slow_order(found, thoughts, closeness, vector_of):
    """By the definition, one text at a time; the place breaks ties."""
    ordered = []
    for texts, thought in zip(found, thoughts, strict=True):
        scored = []
        for place, (text, fluency) in enumerate(texts):
            told = vector_of(text)
            cosine = told @ thought / np.sqrt(told @ told) / np.sqrt(thought @ thought)
            scored.append((-(fluency + closeness * cosine), place, text))
        ordered.append([(text, -cost) for cost, _, text in sorted(scored)])
    return ordered


@pytest.mark.parametrize('closeness', [0.0, 0.5, 50.0])
def test_the_order_is_that_of_the_definition(closeness):
    rng = np.random.default_rng(0)
    vectors = {f'text {i}': rng.normal(size=7) for i in range(12)}
    names, thoughts, calls = iter(vectors), rng.normal(size=(4, 7)), []
    found = [[(name, rng.normal()) for name in itertools.islice(names, n)] for n in (5, 0, 1, 6)]

    def encode(texts):
        calls.append(texts)
        return np.stack([vectors[text] for text in texts])

    told = nearest_first(found, thoughts, closeness, encode)
    expected = slow_order(found, thoughts, closeness, vectors.__getitem__)
    assert [[text for text, _ in each] for each in told] == [[t for t, _ in e] for e in expected]
    for one, other in zip(told, expected, strict=True):
        np.testing.assert_allclose([score for _, score in one], [score for _, score in other])
    assert calls == [list(vectors)]  # all at once


def test_of_equal_ones_the_earlier_is_told():
    found = [[('a', -1.0), ('b', -1.0), ('c', -0.5), ('d', -0.5)]]
    told = nearest_first(found, np.ones((1, 3)), 1.0, lambda texts: np.ones((len(texts), 3)))
    assert [text for text, _ in told[0]] == ['c', 'd', 'a', 'b']


def test_nothing_is_encoded_where_there_is_nothing():
    assert nearest_first([[], []], np.ones((2, 3)), 1.0, lambda texts: pytest.fail('called')) == [
        [],
        [],
    ]


# --- stories -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def z():
    folder = REFERENCE / 'decoder'
    dec = decoder.load_model(folder / 'romance.npz', folder / 'romance_dictionary.pkl')
    stv = skipthoughts.load_model(REFERENCE / 'skipthoughts', REFERENCE / 'skipthoughts')
    return {'dec': dec, 'stv': stv}


@pytest.fixture(scope='module')
def thoughts(z):
    rng = np.random.default_rng(3)
    return rng.normal(size=(3, z['dec']['options']['dimctx'])).astype(np.float32)


def fluency_of(dec, context, text):
    """The mean log-probability of the words of a text that ended, by single steps."""
    state, total, last = dec['f_init'](context[None]), 0.0, -1
    for word in [*(dec['worddict'][word] for word in text.split()), 0]:
        probabilities, _, state = dec['f_next'](np.array([last]), state)
        total += float(np.log(probabilities[0, word]))
        last = word
    return total / len(text.split())


@pytest.mark.parametrize(
    ('asked', 'seed'),
    [
        ({'candidates': 4}, None),
        ({'candidates': 4, 'closeness': 9.0, 'n_best': 3}, None),
        ({'candidates': 2, 'n_best': 4}, None),
        ({'candidates': 4, 'groups': 2, 'length_penalty': 1.0, 'no_repeat': 2}, None),
        ({'candidates': 5, 'closeness': 3.0}, 7),
        ({'candidates': 5, 'n_best': 2, 'top_k': 20}, 7),
    ],
)
def test_stories_are_those_of_a_slow_version(z, thoughts, monkeypatch, asked, seed):
    asked, calls = Telling(**asked), []
    found = telling.tell(z['dec'], thoughts, asked, 6, maxlen=60, seed=seed)
    for texts, thought in zip(found, thoughts, strict=True):
        assert len(texts) <= asked.wanted
        for text, fluency in texts:
            if len(text.split()) < 60:  # not cut
                assert fluency == pytest.approx(fluency_of(z['dec'], thought, text), rel=1e-4)
    vector_of = {
        text: skipthoughts.encode(z['stv'], [text], verbose=False, tokenised=True)[0]
        for text, _ in itertools.chain.from_iterable(found)
    }
    expected = slow_order(found, thoughts, asked.closeness, vector_of.__getitem__)

    def encode(model, texts, *arguments, encode=skipthoughts.encode, **options):
        calls.append(texts)
        return encode(model, texts, *arguments, **options)

    monkeypatch.setattr(skipthoughts, 'encode', encode)
    options = StoryOptions(bw=6, maxlen=60, seed=seed, telling=asked)
    told = writing.texts_of(z, thoughts, options)
    assert len(calls) == 1
    assert sum(map(len, expected)) > 5
    for texts, slow in zip(told, expected, strict=True):
        if not slow:
            assert isinstance(texts, EmptyStoryError)
            continue
        assert [text for text, _ in texts] == [text for text, _ in slow[: asked.n_best]]
        np.testing.assert_allclose([s for _, s in texts], [s for _, s in slow[: asked.n_best]],
                                   rtol=1e-4)  # fmt: skip


def test_the_first_of_several_draws_is_the_one_draw(z, thoughts):
    (one,), (first, *_) = (
        telling.tell(z['dec'], thoughts[:1], Telling(top_k=30, candidates=n), maxlen=20, seed=5)[0]
        for n in (1, 4)
    )
    assert one[0] == first[0]


def test_several_draws_have_a_next_best():
    Telling(candidates=3, n_best=2).check_for(drawn=True)
    with pytest.raises(ValueError, match='n_best=2 has no effect'):
        Telling(n_best=2).check_for(drawn=True)


def test_a_source_of_randomness_goes_on():
    step, state = random_model(1)
    random = torch.Generator()
    random.manual_seed(4)
    texts = [telling.draw(step, state, 8, [random])[0] for _ in range(6)]
    assert texts[:1] == telling.draw(step, state, 8, [4])
    assert len({tuple(text.words) for text in texts}) > 1
