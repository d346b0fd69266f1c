"""How well a pool serves, and whether passages can be told again."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import REFERENCE

from storyteller import decoder
from storyteller.evaluation import passages, pool

# --- the pool ------------------------------------------------------------------------------------


def test_repetition():
    assert pool.repetition(np.arange(20)) == {'distinct': 20, 'ten_commonest': 50}
    assert pool.repetition(np.zeros(20)) == {'distinct': 1, 'ten_commonest': 100}


def test_captions_fit_by_their_words():
    captions = ['a brown dog runs', 'a red car stops', 'two girls sing']
    own = [['A brown dog runs .'], ['The red car stops .'], ['Two girls sing .']]
    right = pool.word_fit(np.arange(3), captions, own)
    assert right['nearest'] > 0.9 and right['above_0.3'] == 100
    wrong = pool.word_fit(np.array([1, 2, 0]), captions, own)
    assert wrong['nearest'] == 0 == wrong['above_0.3'] and wrong['chance'] == right['chance']


def test_unknown_words():
    found = pool.unknown_words(['A dog.', 'a cat'], {'A', 'dog', '.'}, {'a', 'cat', 'A', 'dog.'})
    assert found == {'skip_thoughts': pytest.approx(40), 'embedding': 0}


def test_contact_sheet():
    page = pool.contact_sheet([np.zeros((224, 224, 3), np.uint8)] * 7, ['A long caption ' * 6] * 7)
    pixels = np.asarray(page)
    assert pixels.shape == (2 * 280, 6 * 240, 3)
    assert not pixels[8:232, 8:232].any() and not pixels[288:512, 8:232].any()
    assert (pixels[236:280, :240] < 128).any()  # the caption
    assert (pixels[280:, 240:] == 255).all()  # no eighth photo


# --- passages ------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def dec():
    folder = REFERENCE / 'decoder'
    return decoder.load_model(folder / 'romance.npz', folder / 'romance_dictionary.pkl')


def test_perplexity_equals_its_definition(dec):
    rng = np.random.default_rng(0)
    words = [w for w in list(dec['worddict'])[2:40]]
    texts = [' '.join(rng.choice(words, n)) for n in (3, 7, 1)] + ['qqqq ' + words[0]]
    vectors = rng.normal(size=(4, dec['options']['dimctx'])).astype(np.float32)
    logs = []
    for text, vector in zip(texts, vectors, strict=True):
        state, last = dec['f_init'](vector[None]), -1
        for word in [*text.split(), '<eos>']:
            p, _, state = dec['f_next'](np.array([last]), state)
            last = dec['worddict'].get(word, 1)
            if last != 1:
                logs.append(np.log(p[0, last]))
    expected = np.exp(-np.mean(logs))
    for at_once in (1, 3, 64):
        found = passages.perplexity(dec, texts, vectors, at_once)
        assert found == pytest.approx(expected, rel=1e-4)


def test_passages_that_the_decoder_tells_come_back(dec):
    vectors = np.random.default_rng(0).normal(size=(60, dec['options']['dimctx']))
    vectors = vectors.astype(np.float32)
    told = decoder.run_samplers(dec, vectors, 1, maxlen=60)
    said = [
        i for i, text in enumerate(told) if isinstance(text, str) and 4 < len(text.split()) < 60
    ]
    texts, vectors = [told[i] for i in said], vectors[said]
    found = passages.regenerated(dec, texts, vectors, frozenset())
    assert len(texts) > 5 and found['f1'] > 90 and found['bleu'] == pytest.approx(100)
    assert found['shuffled_bleu'] < 60
    nothing = passages.regenerated(dec, ['zzz yyy xxx www'] * len(said), vectors, frozenset())
    assert nothing['f1'] == 0 and nothing['bleu'] < 5
