from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from storyteller import decoder, formats
from storyteller.formats import MismatchError
from storyteller.training import decoder as decoder_training
from storyteller.training.data.corpus import Corpus, padded
from storyteller.training.data.passages import Passages, encode_passages
from storyteller.training.decoder import (
    ConditionalGRU,
    DecoderOptions,
    fit,
    initial_params,
    written_about,
)
from storyteller.training.decoder_report import perplexity
from storyteller.training.ops.whitening import Whitening
from storyteller.training.optimizer import Adam2015, clip_gradients
from storyteller.training.options import TrainOptions
from storyteller.training.preferences import Preferences
from storyteller.vocabulary import Vocabulary

FOLDER = REFERENCE / 'training'
SMALL = DecoderOptions(dim_word=10, dim=12)
CPU = torch.device('cpu')


# --- the objective of 2015 -----------------------------------------------------------------------


def model_of_2015(name='decoder'):
    params, options = formats.read_model(FOLDER / f'{name}_params.npz')
    names = ('dim_word', 'dim', 'doutput')
    return ConditionalGRU(params, DecoderOptions(**{key: options[key] for key in names}))


def batch_of_2015(name):
    arrays = np.load(FOLDER / name)
    return [torch.from_numpy(arrays[key]) for key in ('x', 'mask', 'ctx')]


def gradients(model):
    """Under the names of 2015, like `params`."""
    kept = [(parameter, parameter.data) for parameter in model.parameters()]
    for parameter, _ in kept:
        if parameter.grad is not None:
            parameter.data = parameter.grad
    found = model.params()
    for parameter, data in kept:
        parameter.data = data
    return found


@pytest.mark.parametrize('name', ['decoder', 'decoder_doutput'])
def test_cost_and_gradients_of_2015(name):
    model, expected = model_of_2015(name), np.load(FOLDER / f'{name}_grads.npz')
    cost = model(*batch_of_2015('decoder_batch.npz'))
    assert float(cost.detach()) == pytest.approx(float(expected['cost']), rel=1e-6)
    cost.backward()
    found = gradients(model)
    assert {f'grad_{key}' for key in found} == {
        key for key in expected.files if key.startswith('grad_') and key != 'grad_norm'
    }
    for key, gradient in found.items():
        true = expected[f'grad_{key}']
        assert np.linalg.norm(gradient - true) <= 1e-4 * np.linalg.norm(true), key
    if 'grad_norm' in expected:
        assert clip_gradients(model, 0) == pytest.approx(float(expected['grad_norm']), rel=1e-5)


def test_cost_of_a_batch_with_a_limit():
    expected = np.load(FOLDER / 'decoder_grads.npz')['cost_maxlen_batch']
    cost = model_of_2015()(*batch_of_2015('decoder_batch_maxlen.npz'))
    assert float(cost.detach()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize('clipped', ['clip', 'noclip'])
def test_three_updates_of_2015(clipped):
    model, expected = model_of_2015(), np.load(FOLDER / f'decoder_adam_{clipped}.npz')
    batch, optimizer = batch_of_2015('decoder_batch.npz'), Adam2015(model.parameters(), 2e-4)
    for step in (1, 2, 3):
        optimizer.zero_grad()
        cost = model(*batch)
        assert float(cost.detach()) == pytest.approx(float(expected['costs'][step - 1]), rel=1e-6)
        cost.backward()
        assert clip_gradients(model, float(expected['clip'])) > 5
        optimizer.step()
        for name, array in model.params().items():
            np.testing.assert_allclose(array, expected[f'step{step}_{name}'], atol=1e-6, rtol=0)
    assert float(model(*batch).detach()) == pytest.approx(float(expected['cost_after']), rel=1e-6)


# --- the model -----------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=['plain', 'doutput'])
def options(request):
    return replace(SMALL, doutput=request.param)


def random_batch(seed=0, lengths=(5, 3, 7), n_words=30, width=6):
    rng = np.random.default_rng(seed)
    x, mask = padded([rng.integers(2, n_words, n) for n in lengths])
    vectors = rng.normal(size=(len(lengths), width)).astype(np.float32)
    return [torch.from_numpy(array) for array in (x, mask, vectors)]


def test_padding_changes_nothing(options):
    model = ConditionalGRU(initial_params(options, 30, 6, seed=1), options)
    x, mask, vectors = random_batch()
    alone = sum(
        float(model(x[:, i : i + 1], mask[:, i : i + 1], vectors[i : i + 1]).detach())
        for i in range(3)
    )
    assert float(model(x, mask, vectors).detach()) == pytest.approx(alone, rel=1e-5)


def test_cost_is_that_of_the_decoder_that_tells(options, tmp_path):
    """Word by word, by the module that will decode with these parameters."""
    params = initial_params(options, 30, 6, seed=1)
    x, mask, vectors = random_batch()
    formats.write_model(tmp_path / 'd.npz', params, {'doutput': options.doutput})
    formats.write_pickle(tmp_path / 'd.pkl', {f'w{i}': i for i in range(2, 30)})
    dec = decoder.load_model(tmp_path / 'd.npz', tmp_path / 'd.pkl', device='cpu')
    states, words, total = dec['f_init'](vectors.numpy()), np.full(3, -1), 0.0
    for step, counted in zip(x.numpy(), mask.numpy(), strict=True):
        probs, _, states = dec['f_next'](words, states)
        total -= (np.log(probs[np.arange(3), step] + 1e-8) * counted).sum()
        words = step
    cost = ConditionalGRU(params, options)(x, mask, vectors)
    assert float(cost.detach()) == pytest.approx(total, rel=1e-5)


def test_bfloat16_costs_and_learns_about_the_same(options):
    params, batch = initial_params(options, 30, 6, seed=1), random_batch()
    found = []
    for half in (False, True):
        model = ConditionalGRU(params, replace(options, bfloat16=half))
        cost = model(*batch)
        cost.backward()
        found.append((float(cost.detach()), gradients(model)))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.01)
    for name, true in found[0][1].items():
        assert np.linalg.norm(found[1][1][name] - true) < 0.05 * np.linalg.norm(true), name


def test_parameters_come_back_under_the_names_of_2015(options):
    params = initial_params(options, 30, 6, seed=1)
    returned = ConditionalGRU(params, options).params()
    assert returned.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(returned[name], array)
    theirs, _ = formats.read_model(
        FOLDER / ('decoder_doutput_params.npz' if options.doutput else 'decoder_params.npz')
    )
    assert params.keys() == theirs.keys()
    assert params['ff_logit_W'].shape == ((10 if options.doutput else 12), 30)
    assert params['ff_state_W'].shape == (6, 12)


def test_vectors_are_drawn_towards_the_mean_while_training_alone():
    params, mean = initial_params(SMALL, 30, 6, seed=1), np.arange(6.0)
    model = ConditionalGRU(params, replace(SMALL, towards_mean=0.4), mean=mean)
    plain = ConditionalGRU(params, SMALL)
    x, mask, vectors = random_batch()
    assert float(model.eval()(x, mask, vectors).detach()) == float(plain(x, mask, vectors).detach())
    seen = []
    model.start.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.train()
    for _ in range(200):
        model(x, mask, vectors)
    parts = (torch.stack(seen) - model.mean) / (vectors - model.mean)  # (200, B, D)
    torch.testing.assert_close(parts, parts[..., :1].expand_as(parts), rtol=1e-3, atol=1e-3)
    assert parts.min() + 1e-3 >= 0.6 and parts.max() <= 1.001
    assert parts.min() < 0.62 and parts.max() > 0.98 and abs(parts.mean() - 0.8) < 0.02
    assert parts[0, :, 0].unique().numel() == 3  # each passage by its own part


def test_word_dropout_takes_inputs_while_training_alone():
    params, batch = initial_params(SMALL, 30, 6, seed=1), random_batch()
    none = ConditionalGRU(params, replace(SMALL, word_dropout=1.0))
    plain = ConditionalGRU(params, SMALL)
    assert float(none.eval()(*batch).detach()) == float(plain(*batch).detach())
    empty = ConditionalGRU(params | {'Wemb': 0 * params['Wemb']}, SMALL)
    found = float(none.train()(*batch).detach())
    assert found == pytest.approx(float(empty(*batch).detach()), rel=1e-6)


def test_dropout_takes_word_vectors_and_outputs_while_training_alone(monkeypatch):
    params, batch = initial_params(SMALL, 30, 6, seed=1), random_batch()
    plain, half = (ConditionalGRU(params, replace(SMALL, dropout=share)) for share in (0.0, 0.5))
    cost = float(plain.train()(*batch).detach())
    assert cost == float(half.eval()(*batch).detach())
    assert float(half.train()(*batch).detach()) != pytest.approx(cost, rel=1e-6)
    seen, read = [], []
    monkeypatch.setattr(half, 'top', lambda states: seen.append(states) or plain.top(states))
    states_of = half.states
    monkeypatch.setattr(half, 'states', lambda x, v: read.append(x) or states_of(x, v))
    for _ in range(200):
        half(*batch)
    outputs = torch.stack(seen).detach()
    assert abs(float((outputs == 0).float().mean()) - 0.5) < 0.03
    inputs = torch.stack(read).detach()
    assert abs(float((inputs == 0).float().mean()) - 0.5) < 0.03
    full = plain.states(plain.table(batch[0][:-1]), batch[2])[batch[1].bool()]
    # The first state has read no word, so that nothing but the dropout of the output is in it.
    first = outputs[:, : batch[0].shape[1]]
    np.testing.assert_allclose(first.mean(0), full[: first.shape[1]].detach(), atol=0.12)


def skewed_vectors(n=400, width=6):
    """Most of the variance in one direction, which is no axis."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, width)) * [3, 0.3, 0.3, 0.2, 0.2, 0.1]
    return (vectors @ np.linalg.qr(rng.normal(size=(width, width)))[0] + 5).astype(np.float32)


def test_whitened_vectors_vary_alike_in_all_directions():
    vectors = skewed_vectors()
    whitening = Whitening.of(vectors, floor=0.0)
    white = (vectors - whitening.mean) @ whitening.matrix
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-3)
    floored = Whitening.of(vectors, floor=0.1)
    variances = np.linalg.eigvalsh(np.cov(((vectors - floored.mean) @ floored.matrix).T))
    assert variances.max() < 1 and 0.01 < variances.min() < 0.2  # noise stays small


def test_vectors_that_are_all_alike_can_be_whitened():
    whitening = Whitening.of(np.ones((3, 4), np.float32))
    assert np.isfinite(whitening.matrix).all()


def test_learning_from_whitened_vectors_begins_with_the_same_decoder(options):
    vectors = skewed_vectors()
    params, whitening = initial_params(options, 30, 6, seed=1), Whitening.of(vectors)
    plain, white = (ConditionalGRU(params, options, whitening=w) for w in (None, whitening))
    batch = random_batch()
    batch[2] = torch.from_numpy(vectors[:3])
    expected = float(plain(*batch).detach())
    assert float(white(*batch).detach()) == pytest.approx(expected, rel=1e-4)
    for name, array in white.params().items():
        np.testing.assert_allclose(array, params[name], atol=1e-4)


def test_different_vectors_start_in_different_states():
    vectors = skewed_vectors()
    params, whitening = initial_params(SMALL, 30, 6, seed=1), Whitening.of(vectors)
    started = whitening.start(params, vectors)
    before = vectors @ started['ff_state_W'] + started['ff_state_b']
    assert before.std() == pytest.approx(0.5, rel=1e-3) and abs(before.mean()) < 0.05
    assert {k: v for k, v in started.items() if 'ff_state' not in k}.keys() < params.keys()


# --- passages ------------------------------------------------------------------------------------


@pytest.fixture
def passages():
    """Forty passages of one to three sentences; word i of the corpus is i, vector i is all i."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 20, 80)
    corpus = Corpus(
        np.arange(lengths.sum(), dtype=np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([0, 80], np.int64),
    )
    first = np.arange(0, 80, 2)
    spans = np.stack([first, first + rng.integers(1, 3, 40)], axis=1)
    vectors = np.repeat(np.arange(40)[:, None], 5, axis=1).astype(np.float16)
    return Passages(corpus, spans, vectors, replace(SMALL, batch_size=6, batch_words=120), seed=2)


def test_every_passage_is_in_one_batch(passages):
    batches = passages.batches(0)
    assert sorted(i for batch in batches for i in batch) == list(range(40))
    for batch in batches:
        lengths = passages.lengths[batch]
        assert len(batch) <= 6 and lengths.max() - lengths.min() < 8
        assert len(batch) == 1 or lengths.sum() <= 120
    assert max(map(len, batches)) > 2


def test_epochs_differ_and_repeat(passages):
    first, again, second = (
        [batch.tolist() for batch in passages.batches(epoch)] for epoch in (0, 0, 1)
    )
    assert first == again != second


def test_tensors_hold_the_words_and_the_vector_of_each(passages):
    batch = np.array([30, 2, 17])  # in no order
    x, mask, vectors = passages.tensors(batch, CPU)
    assert vectors.dtype == torch.float32 and vectors[:, 0].tolist() == [30, 2, 17]
    for column, passage in enumerate(batch):
        words = passages.corpus.words(*passages.spans[passage])
        assert x[: len(words), column].tolist() == words.tolist()
        assert mask[:, column].sum() == len(words) + 1 and not x[len(words) :, column].any()


def test_vectors_may_be_memory_mapped(passages, tmp_path):
    np.save(tmp_path / 'v.npy', passages.vectors)
    mapped = Passages(
        passages.corpus, passages.spans, np.load(tmp_path / 'v.npy', mmap_mode='r'), SMALL
    )
    for one, two in zip(
        passages.tensors(np.array([5, 3]), CPU), mapped.tensors(np.array([5, 3]), CPU), strict=True
    ):
        assert torch.equal(one, two)


def test_passages_without_their_vectors(passages):
    with pytest.raises(ValueError, match='40 passages, but 39 vectors'):
        Passages(passages.corpus, passages.spans, passages.vectors[1:], SMALL)


class Encoder:
    """Encodes a text as the number of its words and the place of its first one."""

    def __init__(self):
        self.calls = []

    def encode(self, texts, *, verbose, tokenised):
        assert tokenised and not verbose
        self.calls.append(len(texts))
        return np.array([[len(t.split()), int(t.split()[0][1:])] for t in texts], np.float32)


def test_passages_are_encoded_block_by_block_and_kept(passages, tmp_path):
    words = [f'w{i}' for i in range(2, len(passages.corpus.tokens))]
    vocabulary = Vocabulary(('<eos>', 'UNK', *words))
    spans = passages.spans[1:]  # without the passage that begins with <eos>
    encoder = Encoder()
    arguments = (passages.corpus, spans, vocabulary, encoder, tmp_path / 'v')
    vectors = encode_passages(*arguments, block=10)
    assert encoder.calls == [10, 10, 10, 9] and vectors.dtype == np.float16
    lengths = np.diff(passages.corpus.sentences[spans], axis=1)[:, 0]
    np.testing.assert_array_equal(vectors[:, 0], lengths)
    np.testing.assert_array_equal(vectors[:, 1], passages.corpus.sentences[spans[:, 0]])
    next((tmp_path / 'v').glob('*00000020.npy')).unlink()  # as if it had been interrupted
    np.testing.assert_array_equal(encode_passages(*arguments, block=10), vectors)
    assert encoder.calls == [10, 10, 10, 9, 10]
    others = encode_passages(passages.corpus, spans[1:], *arguments[2:], block=10)
    np.testing.assert_array_equal(others, vectors[1:])  # not those that are kept for other spans


def test_passages_of_another_encoder_are_not_taken_up(passages, tmp_path):
    vocabulary = Vocabulary(('<eos>', 'UNK', *(f'w{i}' for i in range(9999))))
    arguments = passages.corpus, passages.spans[1:], vocabulary, Encoder(), tmp_path / 'v'
    facts = {'text': '1', 'encoder': '2'}
    vectors = encode_passages(*arguments, made_from=facts)
    np.testing.assert_array_equal(encode_passages(*arguments, made_from=facts), vectors)
    with pytest.raises(MismatchError, match=r'v: made from another input: encoder differs'):
        encode_passages(*arguments, made_from=facts | {'encoder': '3'})


# --- from passages to a decoder that tells them --------------------------------------------------

TALES = [
    'the cat sat on the mat . it slept .',
    'a dog ran to the sea . it barked .',
    'she loved the old house by the river .',
    'nobody came that night . he wept .',
]


@pytest.fixture(scope='module')
def tales(tmp_path_factory):
    """Each tale many times, with its own vector, as passages; and the vocabulary."""
    folder = tmp_path_factory.mktemp('tales')
    lines = [tale.replace('. ', '.\n') for tale in TALES * 8]
    (folder / 'tokens.txt').write_text('\n\n'.join(lines) + '\n\n')
    corpus, vocabulary = Corpus.with_all_words(folder / 'tokens.txt', folder / 'corpus')
    spans = np.stack([corpus.documents[:-1], corpus.documents[1:]], axis=1)
    return corpus, vocabulary, spans, np.tile(np.eye(4, dtype=np.float32), (8, 1))


def train(tales, folder, suffix, thoughts=None, preferences=None, **changes):
    corpus, vocabulary, spans, vectors = tales
    options = DecoderOptions(**{'dim_word': 16, 'dim': 32, 'batch_size': 8} | changes)
    data = Passages(corpus, spans, vectors, options)
    out = folder / f'tales{suffix}'
    fit(
        data,
        TrainOptions(epochs=50, lr=0.02, clip=0.0),
        out,
        folder / 'tales.pt',
        n_words=len(vocabulary),
        counts=np.bincount(corpus.tokens, minlength=len(vocabulary)),
        thoughts=thoughts,
        preferences=preferences,
        held_out=data,
        device='cpu',
    )
    (line,) = (folder / 'tales.jsonl').read_text().splitlines()
    dictionary = folder / 'tales_dictionary.txt'
    vocabulary.save(dictionary)
    dec = decoder.load_model(out, dictionary, device='cpu')
    return dec, json.loads(line), formats.read_model(out), options


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
def test_a_trained_decoder_tells_the_passages(tales, tmp_path, suffix, options):
    dec, figures, (params, kept), trained = train(tales, tmp_path, suffix, doutput=options.doutput)
    assert figures['held_out_cost'] < 0.1  # nats a word; at first log(29)
    assert figures['held_out_perplexity'] == pytest.approx(np.exp(figures['held_out_cost']))
    assert figures['perplexity_of_the_mean_vector'] > 1.3  # it does listen to the vector
    for vector, tale in zip(np.eye(4, dtype=np.float32), TALES, strict=True):
        assert decoder.run_sampler(dec, vector, beam_width=3) == tale
    assert kept['dimctx'] == 4 and kept['n_words'] == len(tales[1]) and kept['dim'] == 32
    # The same probabilities as the module that was trained.
    x, mask, vectors = (
        torch.from_numpy(a)
        for a in (*padded([np.array(tales[1].encode(TALES[0]))]), np.eye(4, dtype='f4')[:1])
    )
    states, words, total = dec['f_init'](vectors.numpy()), np.array([-1]), 0.0
    for step in x.numpy():
        probs, _, states = dec['f_next'](words, states)
        total -= np.log(probs[0, step[0]] + 1e-8)
        words = step
    cost = float(ConditionalGRU(params, trained)(x, mask, vectors).detach())
    assert cost == pytest.approx(total, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    'changes',
    [
        {'samples': 10},
        {'bfloat16': True},
        {'word_dropout': 0.2, 'towards_mean': 0.3},
        {'dropout': 0.2},
        {'whiten': True},
        {'repeats': 1.0},
        {'repeats_beam': 3, 'repeats': 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_way_of_training_learns(tales, tmp_path, changes):
    dec, figures, _, _ = train(tales, tmp_path, '.safetensors', **changes)
    assert figures['held_out_cost'] < 0.5
    if 'samples' in changes:  # ten words at a time do not rule out every wrong one
        return
    told = [decoder.run_sampler(dec, v, beam_width=3) for v in np.eye(4, dtype=np.float32)]
    assert told == TALES


def test_the_decoder_writes_about_thoughts_without_a_text(tales, tmp_path, monkeypatch):
    seen, original = [], decoder_training.repeat_cost

    def watched(model, vectors, steps):
        seen.append(vectors)
        return original(model, vectors, steps)

    monkeypatch.setattr(decoder_training, 'repeat_cost', watched)
    thoughts = np.full((20, 4), 7.0)
    _, figures, _, _ = train(tales, tmp_path, '.npz', thoughts, repeats=1.0)
    assert figures['held_out_cost'] < 0.5
    assert seen
    for vectors in seen:
        assert len(vectors) == 4
        assert (vectors == 7).all(1).tolist() == [False, False, True, True]


@pytest.mark.parametrize('shape', [(20, 3), (0, 4), (4,)])
def test_thoughts_of_another_shape_are_refused(tales, tmp_path, shape):
    with pytest.raises(ValueError, match='thoughts: expected rows of 4 numbers'):
        train(tales, tmp_path, '.npz', np.zeros(shape), repeats=1.0)


@pytest.mark.parametrize('best', [1, 3])
def test_of_tales_of_one_vector_it_tells_the_preferred(tales, tmp_path, best):
    corpus, vocabulary, spans, vectors = tales
    alike = np.ones_like(vectors)
    texts = [np.array(vocabulary.encode(tale.split())) for tale in TALES]
    liked = Preferences(
        alike[:1],
        texts,
        np.zeros(4, np.int64),
        np.array([(best, other) for other in range(4) if other != best]),
    )
    dec, *_ = train(
        (corpus, vocabulary, spans, alike), tmp_path, '.npz', preferences=liked,
        preferences_weight=5.0,
    )  # fmt: skip
    assert decoder.run_sampler(dec, alike[0], beam_width=3) == TALES[best]


@pytest.mark.parametrize('found', [None, (1, 3)])
def test_preferences_of_another_width_are_refused(tales, tmp_path, found):
    liked = found and Preferences(
        np.zeros(found), [np.array([2]), np.array([3])], np.array([0, 0]), np.array([[0, 1]])
    )
    with pytest.raises(ValueError, match='preferences: expected texts told of vectors of 4'):
        train(tales, tmp_path, '.npz', preferences=liked, preferences_weight=1.0)


def test_half_of_what_is_written_is_about_thoughts_without_a_text():
    vectors, thoughts = torch.ones(9, 2), torch.zeros(30, 2)
    assert torch.equal(written_about(vectors, None), torch.ones(5, 2))
    assert written_about(vectors, thoughts)[:, 0].tolist() == [1, 1, 0, 0, 0]
    torch.manual_seed(0)
    numbered = torch.arange(30.0)[:, None]
    drawn = torch.cat([written_about(torch.ones(9, 1), numbered)[2:] for _ in range(60)])
    assert len(drawn.unique()) > 25


def test_training_goes_on_from_a_decoder(tales, tmp_path):
    _, figures, (params, _), options = train(tales, tmp_path, '.npz')
    corpus, vocabulary, spans, vectors = tales
    data = Passages(corpus, spans, vectors, options)
    again = tmp_path / 'again'
    fit(
        data,
        TrainOptions(epochs=1, lr=1e-6),
        again / 'tales.npz',
        again / 'tales.pt',
        n_words=len(vocabulary),
        params=params,
        held_out=data,
        device='cpu',
    )
    (line,) = (again / 'tales.jsonl').read_text().splitlines()
    assert json.loads(line)['held_out_cost'] == pytest.approx(figures['held_out_cost'], rel=0.01)


def test_figures_count_each_word_once(tales):
    corpus, vocabulary, spans, vectors = tales
    model = ConditionalGRU(initial_params(SMALL, len(vocabulary), 4, 0), SMALL)
    with torch.no_grad():
        figures = perplexity(model, Passages(corpus, spans, vectors, SMALL), CPU)
    assert figures['held_out_cost'] == pytest.approx(np.log(len(vocabulary)), rel=0.1)


def test_figures_use_the_whole_vocabulary(tales):
    """Whatever the training cost, so that they can be compared."""
    corpus, vocabulary, spans, vectors = tales
    counts = np.bincount(corpus.tokens, minlength=len(vocabulary))
    params = initial_params(SMALL, len(vocabulary), 4, 0)
    figures = []
    for samples in (0, 3):
        model = ConditionalGRU(params, replace(SMALL, samples=samples), counts).eval()
        with torch.no_grad():
            figures.append(perplexity(model, Passages(corpus, spans, vectors, SMALL), CPU))
    assert figures[0] == figures[1]


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('dim_word', 0), ('dim', -1), ('repeats_beam', 0), ('batch_size', 0), ('batch_words', 0),
        ('word_dropout', -0.1), ('word_dropout', 1.5), ('dropout', 1.0),
        ('dropout', -0.1), ('towards_mean', 1.1),
        ('towards_mean', float('nan')), ('samples', -1), ('repeats', -0.5),
        ('beta', 0.0), ('preferences_weight', -1.0),
    ],
)  # fmt: skip
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=f'{name}: expected'):
        DecoderOptions(**{name: value})


def test_a_sampled_softmax_needs_counts():
    with pytest.raises(ValueError, match='counts'):
        ConditionalGRU(initial_params(SMALL, 30, 6, 0), replace(SMALL, samples=5))
