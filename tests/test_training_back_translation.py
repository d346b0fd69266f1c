from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from storyteller import decoder, formats, style
from storyteller.formats import MismatchError
from storyteller.training.back_translation import (
    BackTranslation,
    back_translate,
    best_rows,
    encode_captions,
)
from storyteller.training.data.corpus import Corpus
from storyteller.training.data.passages import Passages
from storyteller.training.decoder import ConditionalGRU, DecoderOptions, fit, initial_params
from storyteller.training.decoder_report import perplexity
from storyteller.training.options import TrainOptions

CPU = torch.device('cpu')
THINGS = ['boat', 'dog', 'garden', 'letter', 'window']
CAPTIONS = [f'a {size} {thing}' for size in ('big', 'small', 'red') for thing in THINGS]
TALES = [f'{who} saw the {thing} .' for who in ('she', 'he', 'nobody') for thing in THINGS]


class Encoder:
    """A direction for each thing, some noise of the words around it, and one for tales."""

    words = ('a', 'big', 'small', 'red', 'she', 'he', 'nobody', 'saw', 'the', '.')

    def __init__(self):
        rows = np.random.default_rng(0).normal(size=(len(self.words), 10))
        self.table = dict(zip(self.words, 0.1 * rows, strict=True)) | dict(
            zip(THINGS, np.eye(5, 10), strict=True)
        )
        self.calls = 0

    def encode(self, texts, *, verbose):
        assert not verbose
        self.calls += 1
        vectors = [
            sum(self.table[word] for word in text.split()) + 3 * np.eye(10)[8 if '.' in text else 9]
            for text in texts
        ]
        return np.array(vectors, np.float32)


@pytest.fixture(scope='module')
def spaces():
    """Vectors of tales and of captions, and the mean of each."""
    tales, captions = (Encoder().encode(texts, verbose=False) for texts in (TALES, CAPTIONS))
    return tales, captions, captions.mean(0), tales.mean(0)


# --- from passages to captions -------------------------------------------------------------------


def test_a_passage_is_told_from_the_captions_of_what_it_is_about(spaces):
    tales, captions, c, b = spaces
    found = back_translate(tales, captions, c, b, k=3)
    for row in range(len(TALES)):
        mean = captions[row % 5 :: 5].mean(0)  # the three captions of the same thing
        np.testing.assert_allclose(found.vectors([row])[0], style.shift(mean, c, b), atol=2e-3)
    assert found.match.min() > 0.7


def random_spaces(n=70, pool=40, width=6):
    rng = np.random.default_rng(3)
    passages, captions = rng.normal(size=(n, width)), rng.normal(size=(pool, width))
    return passages.astype(np.float16), captions.astype(np.float32), captions[0] / 2, captions[1]


def slowly(passages, captions, c, b, k):
    """Content and match, one passage at a time."""
    content, match = [], []
    for v in passages.astype(np.float64):
        cosines = [
            (v - b) @ (x - c) / np.linalg.norm(v - b) / np.linalg.norm(x - c) for x in captions
        ]
        best = np.argsort(cosines)[::-1][:k]
        content.append(captions[best].mean(0) - c)
        match.append(np.mean([cosines[i] for i in best]))
    return np.array(content), np.array(match)


@pytest.mark.parametrize('block', [1, 16, 1024])
@pytest.mark.parametrize('k', [1, 7, 40])
def test_blocks_give_what_a_slow_search_gives(block, k):
    spaces = random_spaces()
    found = back_translate(*spaces, k, block=block)
    content, match = slowly(*spaces, k)
    assert found.content.dtype == np.float16 and found.match.dtype == np.float32
    np.testing.assert_array_equal(found.b, spaces[3][None].astype(np.float32))
    assert found.style.tolist() == [0] * len(spaces[0])
    np.testing.assert_allclose(found.content, content, atol=2e-3)
    np.testing.assert_allclose(found.match, match, atol=1e-5)


def test_passages_may_be_memory_mapped(tmp_path):
    passages, *others = random_spaces()
    np.save(tmp_path / 'v.npy', passages)
    mapped = back_translate(np.load(tmp_path / 'v.npy', mmap_mode='r'), *others, 5)
    np.testing.assert_array_equal(mapped.content, back_translate(passages, *others, 5).content)


def test_what_is_as_the_mean_has_no_direction_but_captions_all_the_same():
    passages, captions, c, _ = random_spaces()
    found = back_translate(passages, captions, c, passages[0].astype(np.float32), 5)
    assert found.match[0] == 0 and np.isfinite(found.content).all()


def test_strengths():
    passages, captions, c, b = random_spaces()
    found, rows = back_translate(passages, captions, c, b, 5), np.array([30, 2, 17])
    x_hat = found.content[rows].astype(np.float32) + c
    np.testing.assert_allclose(found.vectors(rows), style.shift(x_hat, c, b), atol=1e-6)
    expected = [style.shift(x, c, b, s) for x, s in zip(x_hat, (0, 0.8, 1.3), strict=True)]
    found = found.vectors(rows, np.array([0, 0.8, 1.3]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture
def styles():
    """Passages of three styles: of one, and of two that were joined before."""
    passages, captions, c, b = random_spaces()
    parts = [
        back_translate(passages[rows], captions, c, mean.astype(np.float32), 5)
        for rows, mean in ((slice(0, 20), b), (slice(20, 50), passages[3]), (slice(50, 70), -b))
    ]
    return parts[0], BackTranslation.joined(parts[1:])


def test_each_passage_is_shifted_to_its_own_style(styles):
    passages, captions, c, b = random_spaces()
    both = BackTranslation.joined(styles)
    assert both.b.shape == (3, 6) and both.style.tolist() == [0] * 20 + [1] * 30 + [2] * 20
    rows = np.random.default_rng(0).permutation(70)
    for s in (0.0, 0.7, np.linspace(0, 1.5, 70)):
        found = both.vectors(rows, s)
        for row, vector, strength in zip(rows, found, np.broadcast_to(s, 70), strict=True):
            mean = (b, passages[3], -b)[both.style[row]].astype(np.float32)
            one = back_translate(passages[row : row + 1], captions, c, mean, 5)
            x_hat = one.content[0].astype(np.float32) + c
            np.testing.assert_allclose(vector, style.shift(x_hat, c, mean, strength), atol=1e-5)
            assert both.match[row] == pytest.approx(one.match[0], abs=1e-5)


def test_parts_are_joined_in_their_order(styles):
    both, sizes = BackTranslation.joined(styles), [len(part.content) for part in styles]
    for part, first in zip(styles, np.cumsum([0, *sizes]), strict=False):
        rows = np.arange(len(part.content))
        np.testing.assert_array_equal(both.vectors(first + rows, 0.8), part.vectors(rows, 0.8))
    alone = BackTranslation.joined(styles[:1])
    np.testing.assert_array_equal(alone.vectors([2, 1]), styles[0].vectors([2, 1]))


def test_some_passages_keep_their_style(styles):
    both, rows = BackTranslation.joined(styles), np.array([60, 3, 22, 69])
    some = both.take(rows)
    assert some.style.tolist() == [2, 0, 1, 2]
    np.testing.assert_array_equal(some.match, both.match[rows])
    np.testing.assert_array_equal(some.vectors(np.arange(4), 1.2), both.vectors(rows, 1.2))
    np.testing.assert_array_equal(some.take([2]).vectors([0]), both.vectors([22]))
    again = BackTranslation.joined([some, both.take([5])])  # b may hold more than is needed
    np.testing.assert_array_equal(again.vectors([0, 4]), both.vectors([60, 5]))


@pytest.mark.parametrize(
    'wrong', [{'captions': np.ones((4, 5))}, {'c': np.ones(5)}, {'b': np.ones((1, 6))}]
)
def test_vectors_of_other_widths_are_refused(wrong):
    given = dict(zip(('passages', 'captions', 'c', 'b'), random_spaces(), strict=True))
    with pytest.raises(MismatchError, match='must share D'):
        back_translate(**given | wrong)


def test_without_captions_there_is_nothing_to_tell_from():
    passages, captions, c, b = random_spaces()
    with pytest.raises(ValueError, match='found none'):
        back_translate(passages, captions[:0], c, b)
    with pytest.raises(ValueError, match='k: expected'):
        back_translate(passages, captions, c, b, 0)


def test_the_best_are_those_that_match_best():
    match = np.random.default_rng(0).normal(size=41)
    rows = best_rows(match, 0.25)
    assert len(rows) == 11 and (np.diff(rows) > 0).all()
    assert match[rows].min() > np.delete(match, rows).max()
    assert best_rows(match, 1.0).tolist() == list(range(41))
    assert best_rows(np.ones(4), 0.5).tolist() == [0, 1]


@pytest.mark.parametrize('share', [0, -0.5, 1.1, float('nan')])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match='best: expected'):
        best_rows(np.ones(4), share)


def test_captions_are_encoded_once_for_a_pool_and_an_encoder(tmp_path):
    encoder = Encoder()
    first = encode_captions(CAPTIONS, encoder, 'one', tmp_path)
    np.testing.assert_array_equal(first, encoder.encode(CAPTIONS, verbose=False))
    again = encode_captions(CAPTIONS, encoder, 'one', tmp_path)
    np.testing.assert_array_equal(first, again)
    assert encoder.calls == 2
    encode_captions(CAPTIONS, encoder, 'two', tmp_path)
    assert len(encode_captions(CAPTIONS[1:], encoder, 'one', tmp_path)) == len(CAPTIONS) - 1
    assert encoder.calls == 4


# --- in training ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def tales(tmp_path_factory):
    """The tales as passages, with vectors of theirs and with captions; and the vocabulary."""
    folder = tmp_path_factory.mktemp('tales')
    (folder / 'tokens.txt').write_text('\n\n'.join(TALES) + '\n\n')
    corpus, vocabulary = Corpus.with_all_words(folder / 'tokens.txt', folder / 'corpus')
    spans = np.stack([corpus.documents[:-1], corpus.documents[1:]], axis=1)
    vectors, captions = (Encoder().encode(texts, verbose=False) for texts in (TALES, CAPTIONS))
    pairs = back_translate(vectors, captions, captions.mean(0), vectors.mean(0), k=3)
    options = DecoderOptions(dim_word=16, dim=32, batch_size=15)
    return Passages(corpus, spans, vectors, options, pairs=pairs), vocabulary


def changed(passages, found='theirs', **changes):
    """The same passages with other options, or with something else than their captions."""
    found = passages.pairs if found == 'theirs' else found
    options = replace(passages.options, **changes)
    return Passages(passages.corpus, passages.spans, passages.vectors, options, pairs=found)


def trained(passages, vocabulary, folder, epochs=3):
    folder.mkdir(exist_ok=True)
    fit(
        passages,
        TrainOptions(epochs=epochs, lr=0.02, clip=0.0),
        folder / 'd.npz',
        folder / 'd.pt',
        n_words=len(vocabulary),
        held_out=passages,
        vocabulary=vocabulary,
        device='cpu',
    )
    (line,) = (folder / 'd.jsonl').read_text().splitlines()
    return formats.read_model(folder / 'd.npz')[0], json.loads(line)


def test_without_a_share_nothing_is_drawn(tales):
    passages, _ = tales
    before, batch = torch.get_rng_state(), np.arange(5)
    _, _, vectors = passages.tensors(batch, CPU)
    told, own = passages.told_of(batch, vectors)
    assert told is vectors and own is None
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_share_captions_change_nothing(tales, tmp_path, monkeypatch):
    """Bit for bit, whatever else is drawn at random."""
    changes = {'word_dropout': 0.2, 'towards_mean': 0.5, 'repeats': 1.0}
    found, _ = trained(changed(tales[0], **changes), tales[1], tmp_path / 'with')
    monkeypatch.setattr(Passages, 'told_of', lambda self, batch, vectors: (vectors, None))
    plain = changed(tales[0], None, **changes)
    expected, figures = trained(plain, tales[1], tmp_path / 'without')
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert 'perplexity_of_the_shifted_vector' not in figures


def test_a_share_is_told_from_captions_at_strengths_between_the_two(tales):
    passages = changed(tales[0], pairs=0.25, weakest=0.5, strongest=1.5)
    batch = np.arange(len(TALES))[::-1].copy()
    torch.manual_seed(0)
    _, _, vectors = passages.tensors(batch, CPU)
    weak, strong = (passages.pairs.vectors(batch, s) for s in (0.5, 1.5))
    shares, places = [], []
    for _ in range(200):
        told, own = passages.told_of(batch, vectors)
        assert torch.equal(told[own], vectors[own])
        shares.append(1 - own.float().mean())
        shifted = ~own.numpy()
        along = (told.numpy() - weak)[shifted], (strong - weak)[shifted]
        place = (along[0] * along[1]).sum(1) / (along[1] ** 2).sum(1)
        np.testing.assert_allclose(along[0], place[:, None] * along[1], atol=1e-4)
        places.extend(place)
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)
    assert -1e-4 < min(places) < 0.02 and 0.98 < max(places) < 1.0001
    assert np.mean(places) == pytest.approx(0.5, abs=0.03)


def test_a_whole_share_leaves_no_own_vector(tales):
    passages, batch = changed(tales[0], pairs=1.0), np.arange(5)
    for _ in range(50):
        assert not passages.told_of(batch, torch.zeros(5, 10))[1].any()


def test_a_passage_without_captions_keeps_its_own_vector(tales):
    match = tales[0].pairs.match.copy()
    match[[1, 3]] = np.nan
    passages = changed(tales[0], replace(tales[0].pairs, match=match), pairs=1.0)
    vectors = torch.full((5, tales[0].vectors.shape[1]), 7.0)
    told, own = passages.told_of(np.arange(5), vectors)
    assert own.tolist() == [False, True, False, True, False]
    assert torch.equal(told[own], vectors[own])


def test_shifted_vectors_are_not_drawn_towards_the_mean():
    options = DecoderOptions(dim_word=5, dim=6, towards_mean=0.5)
    model = ConditionalGRU(initial_params(options, 30, 4, 0), options, mean=np.arange(4.0))
    vectors, own = torch.randn(6, 4), torch.tensor([True, False] * 3)
    torch.manual_seed(1)
    drawn = model.towards_mean(vectors)
    torch.manual_seed(1)
    found = model.towards_mean(vectors, own)
    assert torch.equal(found[own], drawn[own]) and torch.equal(found[~own], vectors[~own])


def test_what_a_decoder_learns_is_to_tell_of_shifted_captions(tales, tmp_path):
    passages, vocabulary = tales
    passages = changed(passages, pairs=0.7, whiten=True, towards_mean=0.3)
    _, figures = trained(passages, vocabulary, tmp_path, epochs=200)
    # At best 1.2, since captions do not say who saw it.
    assert figures['perplexity_of_the_shifted_vector'] < 1.35
    assert figures['perplexity_of_the_mean_vector'] > 1.8
    dec = decoder.load_model(tmp_path / 'd.npz', tmp_path / 'd_dictionary.pkl', device='cpu')
    captions = Encoder().encode(CAPTIONS, verbose=False)
    right = 0
    for row, thing in enumerate(THINGS):  # a photo's captions: two of three
        mean = captions[row::5][:2].mean(0)
        told = decoder.run_sampler(dec, style.shift(mean, passages.pairs.c, passages.pairs.b[0]))
        right += thing in told.split()
    assert right >= 4  # by chance, one


def test_figures_of_shifted_vectors_are_those_at_strength_1(tales):
    passages, vocabulary = tales
    model = ConditionalGRU(
        initial_params(passages.options, len(vocabulary), 10, 0), passages.options
    )
    with torch.no_grad():
        found = perplexity(model, passages, CPU)['perplexity_of_the_shifted_vector']
        shifted = passages.pairs.vectors(np.arange(len(TALES)))
        told = Passages(passages.corpus, passages.spans, shifted, passages.options)
        assert found == pytest.approx(perplexity(model, told, CPU)['held_out_perplexity'])


def test_some_passages_keep_what_is_theirs(tales):
    passages, rows = tales[0], np.array([2, 7])
    some = passages.take(rows)
    np.testing.assert_array_equal(some.vectors, passages.vectors[rows])
    np.testing.assert_array_equal(some.pairs.vectors([0, 1]), passages.pairs.vectors(rows))
    assert some.pairs.match.tolist() == passages.pairs.match[rows].tolist()
    told = some.tensors(np.array([1]), CPU)[0][:, 0]
    assert torch.equal(told, passages.tensors(np.array([7]), CPU)[0][:, 0])
    assert changed(passages, None).take(rows).pairs is None


def test_a_share_without_captions_is_refused(tales, tmp_path):
    plain = changed(tales[0], None, pairs=0.5)
    with pytest.raises(ValueError, match='pairs: a share of'):
        trained(plain, tales[1], tmp_path)


def test_captions_of_other_passages_are_refused(tales):
    passages, _ = tales
    with pytest.raises(ValueError, match='pairs: expected shape'):
        changed(passages, passages.pairs.take(np.arange(3)))


@pytest.mark.parametrize(
    ('name', 'value'),
    [('pairs', -0.1), ('pairs', 1.1), ('weakest', -1), ('weakest', 2.0), ('weakest', float('nan')),
     ('strongest', float('inf')), ('strongest', 0.5)],
)  # fmt: skip
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=f'{name}.*: expected'):
        DecoderOptions(**{name: value})
