from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from storyteller import embedding, formats
from storyteller.layers import unit_rows
from storyteller.training.data.corpus import padded
from storyteller.training.embedding import (
    EmbeddingOptions,
    JointEmbedding,
    Pairs,
    contrastive_cost,
    fit,
    initial_params,
    ranking_cost,
    with_second_images,
)
from storyteller.training.optimizer import Adam2015, clip_gradients
from storyteller.training.options import TrainOptions
from storyteller.vocabulary import Vocabulary

FOLDER = REFERENCE / 'training'
SMALL = EmbeddingOptions(dim_image=7, dim_word=5, dim=6)
CPU = torch.device('cpu')
NAMES = ['vse', 'vse_bow']


# --- the objective of 2015 -----------------------------------------------------------------------


def model_of_2015(name):
    params, options = formats.read_model(FOLDER / f'{name}_params.npz')
    names = ('dim_image', 'dim_word', 'dim', 'encoder', 'margin')
    return JointEmbedding(params, EmbeddingOptions(**{key: options[key] for key in names}))


def batch_of_2015(name):
    arrays = np.load(FOLDER / name)
    return [torch.from_numpy(arrays[key]) for key in ('x', 'mask', 'im')]


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


@pytest.mark.parametrize('name', NAMES)
def test_cost_and_gradients_of_2015(name):
    model, expected = model_of_2015(name), np.load(FOLDER / f'{name}_grads.npz')
    cost = model(*batch_of_2015(f'{name}_batch.npz'))
    assert float(cost.detach()) == pytest.approx(float(expected['cost']), rel=1e-6)
    cost.backward()
    found = gradients(model)
    assert {f'grad_{key}' for key in found} | {'grad_norm'} == {
        key for key in expected.files if key.startswith('grad')
    }
    for key, gradient in found.items():
        true = expected[f'grad_{key}']
        assert np.linalg.norm(gradient - true) <= 1e-4 * np.linalg.norm(true), key
    assert clip_gradients(model, 0) == pytest.approx(float(expected['grad_norm']), rel=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_cost_of_a_batch_with_a_limit(name):
    expected = np.load(FOLDER / f'{name}_grads.npz')['cost_maxlen_batch']
    cost = model_of_2015(name)(*batch_of_2015(f'{name}_batch_maxlen.npz'))
    assert float(cost.detach()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize('clipped', ['clip', 'noclip'])
@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-6), (torch.float32, 5e-6)])
def test_three_updates_of_2015(name, clipped, dtype, tolerance):
    """In float32 one gradient in a thousand is nearly 0 and its rounding steers Adam."""
    model = model_of_2015(name).to(dtype)
    expected = np.load(FOLDER / f'{name}_adam_{clipped}.npz')
    batch = [
        a.to(dtype) if a.is_floating_point() else a for a in batch_of_2015(f'{name}_batch.npz')
    ]
    optimizer = Adam2015(model.parameters(), float(expected['lr_argument']))
    for step in (1, 2, 3):
        optimizer.zero_grad()
        cost = model(*batch)
        assert float(cost.detach()) == pytest.approx(float(expected['costs'][step - 1]), rel=1e-6)
        cost.backward()
        assert clip_gradients(model, float(expected['clip'])) > 2
        optimizer.step()
        for key, array in model.params().items():
            true = expected[f'step{step}_{key}']
            np.testing.assert_allclose(array, true, atol=tolerance, rtol=0)
            assert (np.abs(array - true) > 1e-6).mean() < 0.1
    assert float(model(*batch).detach()) == pytest.approx(float(expected['cost_after']), rel=1e-6)


def test_ranking_cost_equals_its_definition():
    rng = np.random.default_rng(0)
    images, sentences = rng.normal(size=(2, 6, 4))
    scores, expected = images @ sentences.T, 0.0
    for i in range(6):
        for j in range(6):
            if i != j:
                expected += max(0, 0.3 - scores[i, i] + scores[i, j])  # another sentence
                expected += max(0, 0.3 - scores[i, i] + scores[j, i])  # another image
    found = ranking_cost(torch.tensor(images), torch.tensor(sentences), 0.3)
    assert float(found) == pytest.approx(expected)
    assert float(ranking_cost(torch.eye(3), torch.eye(3), 0.5)) == 0.0
    assert float(ranking_cost(torch.eye(3), torch.eye(3), 1.5)) == pytest.approx(6.0)


# --- the other objective -------------------------------------------------------------------------


def test_contrastive_cost_is_the_cross_entropy_of_the_own_partner_both_ways():
    rng = np.random.default_rng(0)
    images, sentences = (unit_rows(rng.normal(size=(5, 6))) for _ in range(2))
    scores = images @ sentences.T / 0.1
    log = [scores - np.log(np.exp(scores).sum(axis, keepdims=True)) for axis in (0, 1)]
    expected = -sum(np.trace(way) for way in log) / 2
    found = contrastive_cost(torch.from_numpy(images), torch.from_numpy(sentences), 0.1)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_temperature_needs_unit_vectors():
    with pytest.raises(ValueError, match='unit_images'):
        EmbeddingOptions(temperature=0.1)


# --- the model -----------------------------------------------------------------------------------


@pytest.fixture(params=['gru', 'bow'])
def options(request):
    return replace(SMALL, encoder=request.param)


def test_images_are_unit_vectors_while_training_only_if_asked(options):
    params = initial_params(options, 20, seed=1)
    features = torch.tensor(np.random.default_rng(0).normal(size=(3, 7)), dtype=torch.float32)
    plain, unit = (
        JointEmbedding(params, replace(options, unit_images=choice)).images(features)
        for choice in (False, True)
    )
    expected = features @ torch.tensor(params['ff_image_W'])
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(unit, expected / expected.norm(dim=1, keepdim=True))


def test_padding_changes_nothing(options):
    model = JointEmbedding(initial_params(options, 20, seed=1), options)
    texts = [np.array(text) for text in ([3, 4, 5], [6], [7, 8, 9, 10, 11])]
    together = model.sentences(*map(torch.from_numpy, padded(texts)))
    for row, text in zip(together, texts, strict=True):
        alone = model.sentences(*map(torch.from_numpy, padded([text])))[0]
        torch.testing.assert_close(row, alone)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_parameters_come_back_under_the_names_of_2015(options):
    params = initial_params(options, 20, seed=1)
    theirs, _ = formats.read_model(
        FOLDER / ('vse_params.npz' if options.encoder == 'gru' else 'vse_bow_params.npz')
    )
    assert params.keys() == theirs.keys()
    params = with_second_images(params, 9, seed=2)
    returned = JointEmbedding(params, options).params()
    assert returned.keys() == params.keys()
    for name, array in params.items():
        assert returned[name].dtype == np.float32
        np.testing.assert_array_equal(returned[name], array)


def test_image_layers_begin_in_the_range_of_glorot():
    options = EmbeddingOptions(dim_image=400, dim_word=5, dim=200)
    params = with_second_images(initial_params(options, 20, seed=1), 300, seed=2)
    for name, width in (('ff_image', 400), ('ff_image_vgg19', 300)):
        weight, bound = params[f'{name}_W'], np.sqrt(6 / (width + 200))
        assert weight.shape == (width, 200) and 0.99 * bound < np.abs(weight).max() <= bound
        assert not params[f'{name}_b'].any()
    bow = initial_params(replace(options, encoder='bow'), 20, seed=1)
    assert bow['ff_image_W'].shape == (400, 5) and 'encoder_W' not in bow


def test_features_choose_their_layer_by_width():
    params = with_second_images(initial_params(SMALL, 20, seed=1), 9, seed=2)
    model = JointEmbedding(params, SMALL)
    for width, name in ((7, 'ff_image'), (9, 'ff_image_vgg19')):
        features = torch.ones(1, width)
        expected = features @ torch.tensor(params[f'{name}_W'])
        torch.testing.assert_close(model.images(features), expected)


def test_dropout_is_for_training_alone(options):
    model = JointEmbedding(initial_params(options, 20, seed=1), replace(options, dropout=0.5))
    x, mask = map(torch.from_numpy, padded([np.array([3, 4, 5]), np.array([6, 7, 8])]))
    batch = (x, mask, torch.ones(2, 7))
    model.train()
    assert len({float(model(*batch).detach()) for _ in range(5)}) > 1
    model.eval()
    plain = JointEmbedding(model.params(), options)
    assert float(model(*batch).detach()) == float(plain(*batch).detach())


# --- pairs ---------------------------------------------------------------------------------------


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    captions = [rng.integers(2, 20, n) for n in [*rng.integers(3, 9, 60), 30]]  # one alone
    features = rng.normal(size=(13, 7)).astype(np.float16)
    return Pairs(captions, np.arange(61) % 13, features, replace(SMALL, batch_size=5), seed=3)


def test_batches_hold_equally_long_captions_and_none_alone(pairs):
    batches = pairs.batches(0)
    flat = [i for batch in batches for i in batch]
    assert len(set(flat)) == len(flat) and 60 not in flat and len(flat) > 50
    for batch in batches:
        assert 2 <= len(batch) <= 5 and len(set(pairs.lengths[batch])) == 1


def test_bfloat16_costs_about_the_same():
    params = initial_params(SMALL, 20, seed=0)
    rng = np.random.default_rng(0)
    captions = [rng.integers(2, 20, 6) for _ in range(5)]
    pairs = Pairs(captions, np.arange(5), rng.normal(size=(5, SMALL.dim_image)), SMALL)
    batch = pairs.tensors(np.arange(5), CPU)
    costs = [
        float(JointEmbedding(params, replace(SMALL, bfloat16=half))(*batch).detach())
        for half in (False, True)
    ]
    assert costs[1] == pytest.approx(costs[0], rel=0.02) and costs[1] != costs[0]


def test_a_photo_may_be_in_a_batch_once_alone(pairs):
    once = Pairs(pairs.captions, pairs.photos, pairs.features, pairs.options, 3, once=True)
    often = [pairs.photos[batch].tolist() for batch in pairs.batches(0)]
    batches = [once.photos[batch].tolist() for batch in once.batches(0)]
    assert any(len(set(batch)) < len(batch) for batch in often)
    assert batches and all(len(set(batch)) == len(batch) > 1 for batch in batches)


def test_epochs_differ_and_repeat(pairs):
    first, again, second = (
        [batch.tolist() for batch in pairs.batches(epoch)] for epoch in (0, 0, 1)
    )
    assert first == again != second


def test_tensors_hold_captions_and_the_features_of_their_photos(pairs):
    x, mask, features = pairs.tensors(np.array([20, 4, 60]), CPU)
    assert features.dtype == torch.float32
    np.testing.assert_array_equal(features, pairs.features[[7, 4, 8]].astype(np.float32))
    for column, i in enumerate([20, 4, 60]):
        caption = pairs.captions[i]
        assert x[: len(caption), column].tolist() == caption.tolist()
        assert mask[:, column].sum() == len(caption) + 1


def test_batches_of_2015_have_the_same_make_up():
    """Equal lengths, every caption once an epoch: as the iterator of 2015 gave them."""
    record = json.loads((FOLDER / 'vse_iterator.json').read_text(encoding='utf-8'))
    lengths = [len(text.split()) for text in record['captions']]
    chosen = [i for i, length in enumerate(lengths) if length <= record['maxlen']]
    pairs = Pairs(
        [np.full(lengths[i], 2) for i in chosen],
        np.arange(len(chosen)),
        np.zeros((len(chosen), 7)),
        replace(SMALL, batch_size=record['batch_size']),
    )
    ours = sorted((int(pairs.lengths[batch[0]]), len(batch)) for batch in pairs.batches(0))
    for theirs in record['epochs']:
        assert sorted(i for batch in theirs for i in batch) == chosen
        sizes = sorted((lengths[batch[0]], len(batch)) for batch in theirs)
        assert ours == [(length, size) for length, size in sizes if size > 1]


# --- from captioned photos to a joint space ------------------------------------------------------

THINGS = ['dog', 'cat', 'boat', 'tree', 'house', 'horse', 'bird', 'car']
WORDS = Vocabulary(('<eos>', 'UNK', 'a', 'photo', 'of', 'the', 'one', *THINGS))


def photos(width=12, seed=0):
    """Each photo shows one thing: its features are that thing's direction, with noise."""
    rng = np.random.default_rng(seed)
    shown = np.arange(80) % len(THINGS)
    directions = rng.normal(size=(len(THINGS), width))
    features = directions[shown] + 0.3 * rng.normal(size=(80, width))
    return shown, (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def source(options, width=12, seed=0):
    shown, features = photos(width, seed)
    kinds = ('a photo of a {}', 'the {}', 'one {}')
    texts = [kinds[i % 3].format(THINGS[thing]) for i, thing in enumerate(shown)]
    captions = [np.array(WORDS.encode(text)) for text in texts]
    return Pairs(captions, np.arange(80), features, options)


def ranks_right(model, shown, features):
    """The share of photos whose thing is the nearest caption."""
    texts = [f'the {thing}' for thing in THINGS]
    scores = embedding.encode_images(model, features) @ embedding.encode_sentences(model, texts).T
    return float((scores.argmax(1) == shown).mean())


def train(folder, options, suffix, sources=None, **arguments):
    out = folder / f'joint{suffix}'
    fit(
        sources or [source(options)],
        TrainOptions(epochs=25, lr=0.01, clip=2.0),
        out,
        folder / 'joint.pt',
        vocabulary=WORDS,
        device='cpu',
        **arguments,
    )
    return out, embedding.load_model(out, device='cpu')


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
def test_a_trained_space_ranks_captions_for_photos(tmp_path, options, suffix):
    options = EmbeddingOptions(
        dim_image=12, dim_word=16, dim=16, encoder=options.encoder, batch_size=16
    )
    out, model = train(tmp_path, options, suffix)
    shown, features = photos()
    untrained = tmp_path / f'untrained{suffix}'
    formats.write_model(untrained, initial_params(options, len(WORDS), 0), model['options'])
    for name in ('joint.npz.dictionary.pkl', 'joint_dictionary.txt'):
        if (tmp_path / name).exists():
            copy = tmp_path / name.replace('joint', 'untrained')
            copy.write_bytes((tmp_path / name).read_bytes())
    assert ranks_right(embedding.load_model(untrained, device='cpu'), shown, features) < 0.5
    assert ranks_right(model, shown, features) > 0.95
    assert_same_vectors(out, model, options)


def assert_same_vectors(out, model, options):
    """The vectors of the loaded model are those of the module that was trained."""
    module = JointEmbedding(formats.read_model(out)[0], replace(options, unit_images=True)).eval()
    texts = ['a photo of a dog', 'unheard of', 'the the the', '']
    sequences = [np.array(WORDS.encode(text), np.int64) for text in texts]
    expected = module.sentences(*map(torch.from_numpy, padded(sequences))).detach().numpy()
    np.testing.assert_allclose(embedding.encode_sentences(model, texts), expected, atol=1e-5)
    features = photos()[1][:5]
    expected = module.images(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(embedding.encode_images(model, features), expected, atol=1e-5)
    assert model['worddict']['dog'] == WORDS['dog'] and model['word_idict'][0] == '<eos>'
    assert model['options']['dim'] == options.dim and model['options']['n_words'] == len(WORDS)


def test_photos_seen_by_two_networks(tmp_path):
    options = EmbeddingOptions(
        dim_image=12, dim_word=16, dim=16, batch_size=16, unit_images=True, dropout=0.1
    )
    params = with_second_images(initial_params(options, len(WORDS), 0), 20, seed=1)
    sources = [source(options), source(options, width=20, seed=5)]
    out, model = train(tmp_path, options, '.safetensors', sources, params=params)
    for width, seed in ((12, 0), (20, 5)):
        assert ranks_right(model, *photos(width, seed)) > 0.95
    assert_same_vectors(out, model, options)


def test_figures_of_the_caller_go_into_the_metrics(tmp_path):
    def report(model):
        assert isinstance(model, JointEmbedding) and not model.training
        return {'recall': 0.5}

    options = EmbeddingOptions(dim_image=12, dim_word=4, dim=4)
    train(tmp_path, options, '.npz', report=report)
    (line,) = (tmp_path / 'joint.jsonl').read_text().splitlines()
    assert json.loads(line)['recall'] == 0.5


def test_the_pair_of_2015_has_its_dictionary_beside_it(tmp_path):
    options = EmbeddingOptions(dim_image=12, dim_word=4, dim=4)
    train(tmp_path, options, '.npz')
    names = {path.name for path in tmp_path.iterdir()}
    assert {'joint.npz', 'joint.npz.pkl', 'joint.npz.dictionary.pkl'} <= names
    words = formats.load_dictionary(tmp_path / 'joint.npz.dictionary.pkl')
    assert words == {word: WORDS[word] for word in WORDS}


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('dim_image', 0), ('dim_word', 0), ('dim', -2), ('batch_size', 0), ('encoder', 'lstm'),
        ('margin', 0), ('margin', -1), ('margin', float('nan')), ('dropout', 1.0),
        ('dropout', -0.1),
    ],
)  # fmt: skip
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=f'{name}: expected'):
        EmbeddingOptions(**{name: value})


def test_long_captions_are_left_out():
    captions = [np.arange(2, 2 + n) for n in (3, 3, 5, 5, 9, 9)]
    options = replace(SMALL, longest=5)
    found = Pairs(captions, np.arange(6), np.eye(6, 7, dtype='f4'), options).batches(0)
    assert sorted(np.concatenate(found).tolist()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match='6 captions, 0 of them of at most 2 words'):
        Pairs(captions, np.arange(6), np.eye(6, 7, dtype='f4'), replace(SMALL, longest=2))
