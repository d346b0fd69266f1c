from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from storyteller import formats, skipthoughts
from storyteller.training.data.corpus import Corpus, padded
from storyteller.training.optimizer import Adam2015, clip_gradients
from storyteller.training.options import TrainOptions
from storyteller.training.skipthoughts import (
    SkipThoughts,
    SkipThoughtsOptions,
    Units,
    export,
    fit,
    initial_params,
    neighbour_cost,
)
from storyteller.vocabulary import Vocabulary

FOLDER = REFERENCE / 'training'
SMALL = SkipThoughtsOptions(dim_word=10, dim=12)
CPU = torch.device('cpu')


# --- the objective of 2015 -----------------------------------------------------------------------


def model_of_2015():
    params, options = formats.read_model(FOLDER / 'skipthoughts_params.npz')
    return SkipThoughts(
        params, SkipThoughtsOptions(dim_word=options['dim_word'], dim=options['dim'])
    )


def batch_of_2015(name):
    """In the order of `forward`: y is the sentence after, z the one before."""
    arrays = np.load(FOLDER / name)
    order = ('x', 'x_mask', 'y', 'y_mask', 'z', 'z_mask')
    return [torch.from_numpy(arrays[key]) for key in order]


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


def test_cost_and_gradients_of_2015():
    model, expected = model_of_2015(), np.load(FOLDER / 'skipthoughts_grads.npz')
    cost = model(*batch_of_2015('skipthoughts_batch.npz'))
    assert float(cost.detach()) == pytest.approx(float(expected['cost']), rel=1e-6)
    cost.backward()
    found = gradients(model)
    assert {f'grad_{name}' for name in found} | {'grad_norm'} == {
        name for name in expected.files if name.startswith('grad')
    }
    for name, gradient in found.items():
        true = expected[f'grad_{name}']
        assert np.linalg.norm(gradient - true) <= 1e-4 * np.linalg.norm(true), name
    assert clip_gradients(model, 0) == pytest.approx(float(expected['grad_norm']), rel=1e-5)


def test_cost_of_a_batch_with_a_limit():
    expected = np.load(FOLDER / 'skipthoughts_grads.npz')['cost_maxlen_batch']
    cost = model_of_2015()(*batch_of_2015('skipthoughts_batch_maxlen.npz'))
    assert float(cost.detach()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize('clipped', ['clip', 'noclip'])
def test_three_updates_of_2015(clipped):
    model, expected = model_of_2015(), np.load(FOLDER / f'skipthoughts_adam_{clipped}.npz')
    batch, optimizer = batch_of_2015('skipthoughts_batch.npz'), Adam2015(model.parameters(), 2e-4)
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


def random_batch(rng, lengths=(5, 3, 7), n_words=30):
    def some():
        return padded([rng.integers(2, n_words, n) for n in lengths])

    return [torch.from_numpy(array) for pair in (some(), some(), some()) for array in pair]


@pytest.fixture(params=[False, True], ids=['uni', 'bi'])
def options(request):
    return replace(SMALL, bidirectional=request.param)


def slow_states(params, prefix, vectors, h):
    """A GRU of 2015, step by step, in float64."""
    W, U, b, Wx, Ux, bx = (
        params[f'{prefix}_{name}'].astype(np.float64) for name in ('W', 'U', 'b', 'Wx', 'Ux', 'bx')
    )
    states = []
    for x in vectors:
        r, u = np.split(1 / (1 + np.exp(-(h @ U + x @ W + b))), 2)
        h = u * h + (1 - u) * np.tanh((h @ Ux) * r + x @ Wx + bx)
        states.append(h)
    return states


def slow_cost(params, batch):
    """The whole objective, a text and a word at a time."""
    x, x_mask, *targets = (array.numpy() for array in batch)
    table, total = params['Wemb'].astype(np.float64), 0.0
    for column in range(x.shape[1]):
        words = x[: int(x_mask[:, column].sum()), column]
        zero = np.zeros(params['encoder_Ux'].shape[0])
        thought = slow_states(params, 'encoder', table[words], zero)[-1]
        if 'encoder_r_W' in params:
            back = slow_states(params, 'encoder_r', table[words[::-1]], zero)[-1]
            thought = np.concatenate([thought, back])
        for prefix, y, mask in (('decoder_f', *targets[:2]), ('decoder_b', *targets[2:])):
            target = y[: int(mask[:, column].sum()), column]
            inputs = np.concatenate([np.zeros_like(table[:1]), table[target[:-1]]])
            states = np.array(slow_states(params, prefix, inputs, thought))
            logits = states @ params['ff_logit_W'] + params['ff_logit_b']
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            total -= np.log(p[np.arange(len(target)), target] + 1e-8).sum()
    return total


def test_cost_equals_a_slow_computation(options):
    rng = np.random.default_rng(0)
    params = initial_params(options, 30, seed=1)
    batch = random_batch(rng)
    found = float(SkipThoughts(params, options)(*batch).detach())
    assert found == pytest.approx(slow_cost(params, batch), rel=1e-5)


def test_padding_changes_nothing(options):
    """A text of a batch costs what it costs alone."""
    batch = random_batch(np.random.default_rng(0))
    model = SkipThoughts(initial_params(options, 30, seed=1), options)
    alone = sum(
        float(model(*(array[:, column : column + 1] for array in batch)).detach())
        for column in range(3)
    )
    assert float(model(*batch).detach()) == pytest.approx(alone, rel=1e-5)


def test_bfloat16_costs_about_the_same(options):
    batch = random_batch(np.random.default_rng(0))
    params = initial_params(options, 30, seed=1)
    params = {name: 5 * array for name, array in params.items()}  # so that the width shows
    costs = [
        float(SkipThoughts(params, replace(options, bfloat16=half))(*batch).detach())
        for half in (False, True)
    ]
    assert costs[1] == pytest.approx(costs[0], rel=0.01) and costs[0] != costs[1]


def test_parameters_come_back_under_the_names_of_2015(options):
    options = replace(options, own_words=0.5)
    params = initial_params(options, 30, seed=1)
    returned = SkipThoughts(params, options).params()
    assert returned.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(returned[name], array)
    width = 24 if options.bidirectional else 12
    assert params['decoder_f_Ux'].shape == (width, width)
    assert params['ff_logit_W'].shape == (width, 30)
    theirs, _ = formats.read_model(FOLDER / 'skipthoughts_params.npz')
    if not options.bidirectional:
        assert params.keys() - {'own_words_W', 'own_words_b'} == theirs.keys()


def test_own_words_are_counted_once_and_frequent_ones_are_not():
    options = replace(SMALL, own_words=0.5, frequent=3)
    params = initial_params(options, 30, seed=1)
    model = SkipThoughts(params, options)
    batch = random_batch(np.random.default_rng(0))
    batch[0] = x = torch.tensor([[7, 2, 9], [7, 4, 9], [8, 0, 3], [0, 0, 11], [0, 0, 0]])
    batch[1] = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 0, 1]]).float()
    thought = model.encode(x, batch[1])
    logits = model.own_words(thought).detach().numpy().astype(np.float64)
    cost = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    expected = cost[0, [7, 8]].sum() + cost[2, [9, 11]].sum()  # 0 and 1, then 2, 3, 4, are left out
    assert float(model.own_cost(thought, x).detach()) == pytest.approx(expected, rel=1e-5)
    plain = SkipThoughts({k: v for k, v in params.items() if 'own' not in k}, SMALL)
    total = float(plain(*batch).detach()) + 0.5 * expected
    assert float(model(*batch).detach()) == pytest.approx(total, rel=1e-5)


def test_word_dropout_takes_inputs_while_training_alone():
    batch = random_batch(np.random.default_rng(0))
    params = initial_params(SMALL, 30, seed=1)
    plain, none = (SkipThoughts(params, replace(SMALL, word_dropout=share)) for share in (0.0, 1.0))
    assert float(none.eval()(*batch).detach()) == float(plain.eval()(*batch).detach())
    none.train()
    blind = [array.clone() for array in batch]
    params['Wemb'] = params['Wemb'].copy()
    thought = none.encode(batch[0], batch[1])
    # With all inputs dropped, a decoder sees zero vectors only, as with an empty table.
    empty = SkipThoughts(params | {'Wemb': 0 * params['Wemb']}, SMALL)
    for decoder, y, mask in (('after', *blind[2:4]), ('before', *blind[4:6])):
        found, words = none.decoded(getattr(none, decoder), thought, y, mask)
        expected, _ = empty.decoded(getattr(empty, decoder), thought, y, mask)
        torch.testing.assert_close(found, expected)
        assert words.tolist() == y[mask.bool()].tolist()


# --- units ---------------------------------------------------------------------------------------


def corpus_of(documents):
    """A corpus whose every word is its own number, from the lengths of its sentences."""
    lengths = [length for document in documents for length in document]
    counts = [len(document) for document in documents]
    return Corpus(
        np.arange(2, 2 + sum(lengths), dtype=np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def rows_of(units, epoch=0):
    """All units of an epoch, by corpus: (n, 4) first, last + 1, before, after."""
    found = {}
    for corpus, rows in units.batches(epoch):
        found.setdefault(id(corpus), []).append(rows)
    return {key: np.concatenate(rows) for key, rows in found.items()}


def test_every_sentence_between_two_is_a_unit():
    corpus = corpus_of([[4, 5, 6, 7], [3, 3], [9, 40, 9]])
    rows = rows_of(Units(corpus, None, SMALL))[id(corpus)]
    # Of the last document the middle is too long.
    assert sorted(map(tuple, rows.tolist())) == [(1, 2, 0, 2), (2, 3, 1, 3)]


def test_units_of_several_sentences_lie_inside_their_document():
    rng = np.random.default_rng(0)
    corpus = corpus_of([rng.integers(3, 20, 300).tolist() for _ in range(4)])
    options = replace(SMALL, singles=0.5, longest=60)
    rows = rows_of(Units(corpus, None, options))[id(corpus)]
    rows = rows[np.argsort(rows[:, 0])]
    first, last, before, after = rows.T
    assert np.array_equal(before, first - 1) and np.array_equal(after, last)
    document = np.searchsorted(corpus.documents, rows, 'right')
    assert np.array_equal(document.min(1), document.max(1))
    assert np.all(first[1:] >= last[:-1])  # no sentence twice
    words = corpus.sentences[last] - corpus.sentences[first]
    assert words.max() <= 60 and (last - first == 1).mean() > 0.4 and (last - first).max() > 3
    assert words[last - first > 1].sum() > words.sum() / 3


def test_units_of_a_batch_are_equally_long_and_keep_its_limits():
    rng = np.random.default_rng(0)
    corpus = corpus_of([rng.integers(1, 30, 400).tolist()])
    options = replace(SMALL, batch_size=16, batch_words=100)
    for chosen, rows in Units(corpus, None, options).batches(0):
        lengths = chosen.sentences[rows[:, 1]] - chosen.sentences[rows[:, 0]]
        assert len(set(lengths)) == 1 and 1 <= len(rows) <= 16
        assert lengths.sum() <= 100


def test_epochs_differ_and_repeat():
    corpus = corpus_of([np.random.default_rng(0).integers(3, 20, 300).tolist()])
    options = replace(SMALL, singles=0.5)
    units = Units(corpus, None, options, seed=4)
    flat = [
        [rows.tolist() for _, rows in Units(corpus, None, options, seed).batches(epoch)]
        for seed, epoch in ((4, 0), (4, 1), (5, 0))
    ]
    assert flat[0] == [rows.tolist() for _, rows in units.batches(0)]
    assert flat[0] != flat[1] and flat[0] != flat[2]


def test_captions_have_two_siblings_of_the_same_photo():
    books = corpus_of([[5] * 202])
    photos = [5, 4, 3, 2, 1] * 10  # captions of each; with fewer than three there are no triples
    captions = corpus_of([[4] * count for count in photos])
    options = replace(SMALL, captions=0.95)
    rows = rows_of(Units(books, captions, options))
    assert len(rows[id(books)]) == 200 and len(rows[id(captions)]) in (3799, 3800)
    first, last, before, after = rows[id(captions)].T
    assert np.array_equal(last, first + 1)
    photo = np.searchsorted(captions.documents, rows[id(captions)][:, [0, 2, 3]], 'right')
    assert np.array_equal(photo.min(1), photo.max(1))
    assert np.all(first != before) and np.all(first != after) and np.all(before != after)
    assert {photos[i - 1] for i in photo[:, 0]} == {3, 4, 5}
    # Of the photo with the most choices, all ordered pairs of siblings occur.
    inside = rows[id(captions)][photo[:, 0] % 5 == 1] % 15
    assert len({(a, b, c) for a, _, b, c in inside.tolist()}) == 5 * 4 * 3


def test_without_a_share_captions_are_not_used():
    books, captions = corpus_of([[5] * 10]), corpus_of([[4] * 5])
    assert set(rows_of(Units(books, captions, SMALL))) == {id(books)}
    assert set(rows_of(Units(books, None, replace(SMALL, captions=0.5)))) == {id(books)}


def test_tensors_hold_the_words_of_a_unit_and_its_neighbours():
    corpus = corpus_of([[3, 2, 4]])  # words 2 3 4 | 5 6 | 7 8 9 10
    units = Units(corpus, None, SMALL)
    ((chosen, rows),) = units.batches(0)
    x, x_mask, after, after_mask, before, before_mask = units.tensors((chosen, rows), CPU)
    assert x.T.tolist() == [[5, 6, 0]] and x_mask.T.tolist() == [[1, 1, 1]]
    assert after.T.tolist() == [[7, 8, 9, 10, 0]] and after_mask.sum() == 5
    assert before.T.tolist() == [[2, 3, 4, 0]] and before_mask.sum() == 4


def test_without_eos_the_encoder_reads_words_alone():
    corpus = corpus_of([[3, 2, 4]])
    units = Units(corpus, None, replace(SMALL, read_eos=False))
    x, x_mask, *_ = units.tensors(units.batches(0)[0], CPU)
    assert x.T.tolist() == [[5, 6]] and x_mask.T.tolist() == [[1, 1]]


def test_a_neighbour_that_is_too_long_is_cut_and_does_not_end():
    corpus = corpus_of([[3, 2, 4]])
    units = Units(corpus, None, replace(SMALL, longest_target=3))
    _, _, after, after_mask, before, before_mask = units.tensors(units.batches(0)[0], CPU)
    assert after.T.tolist() == [[7, 8, 9]] and after_mask.T.tolist() == [[1, 1, 1]]
    assert before.T.tolist() == [[2, 3, 4]] and before_mask.T.tolist() == [[1, 1, 1]]


# --- from a text to vectors ----------------------------------------------------------------------

LINES = [
    'the cat sat on the mat .',
    'then the dog came in .',
    'the dog saw the cat .',
    'so the cat ran away .',
    'nobody saw her again .',
]


@pytest.fixture(scope='module')
def text(tmp_path_factory):
    """A story told again and again, as a corpus, and its vocabulary."""
    folder = tmp_path_factory.mktemp('text')
    (folder / 'tokens.txt').write_text(('\n'.join(LINES * 4) + '\n\n') * 5)
    return Corpus.with_all_words(folder / 'tokens.txt', folder / 'corpus')


def train(text, folder, bidirectional=False, suffix='.npz', **changes):
    """Train an encoder; gives the file, and the figures before and after."""
    corpus, vocabulary = text
    settings = {'dim_word': 8, 'dim': 16, 'batch_size': 16, 'bidirectional': bidirectional}
    options = SkipThoughtsOptions(**settings | changes)
    counts = np.bincount(corpus.tokens, minlength=len(vocabulary))
    held_out = Units(corpus, None, options, seed=1)
    first = SkipThoughts(initial_params(options, len(vocabulary), 0), options, counts).eval()
    with torch.no_grad():
        before = neighbour_cost(first, held_out, CPU)
    out = folder / f'{"bi" if bidirectional else "uni"}_skip{suffix}'
    fit(
        Units(corpus, None, options),
        TrainOptions(epochs=12, lr=0.02),
        out,
        folder / f'{out.stem}.pt',
        n_words=len(vocabulary),
        counts=counts,
        held_out=held_out,
        device='cpu',
    )
    (line,) = (folder / f'{out.stem}.jsonl').read_text().splitlines()
    return out, before, json.loads(line)


@pytest.fixture(scope='module')
def trained(text, tmp_path_factory):
    """Both encoders, trained; the files, the figures, and the folder exported from them."""
    folder = tmp_path_factory.mktemp('trained')
    found = {kind: train(text, folder, kind == 'bi') for kind in ('uni', 'bi')}
    for out, _, _ in found.values():
        export(out, folder / 'exported', text[1], 'float32')
    return found, folder / 'exported'


@pytest.mark.parametrize('kind', ['uni', 'bi'])
def test_the_cost_falls(trained, kind):
    _, before, after = trained[0][kind]
    assert before['neighbour_cost'] == pytest.approx(np.log(20), rel=0.1)  # nats a word
    assert after['neighbour_cost'] < 0.4 * before['neighbour_cost']
    assert after['neighbour_perplexity'] == pytest.approx(np.exp(after['neighbour_cost']))
    assert after['finished'] and after['cost'] < np.log(20)


def test_exported_encoders_give_the_vectors_of_the_trained(trained, text):
    found, exported = trained
    vocabulary = text[1]
    model = skipthoughts.load_model(exported, exported, device='cpu')
    texts = [*LINES, 'the mat again', 'dog']
    vectors = skipthoughts.encode(
        model, texts, use_norm=False, verbose=False, use_eos=True, tokenised=True
    )
    assert vectors.shape == (7, 48)
    for kind, part in (('uni', vectors[:, :16]), ('bi', vectors[:, 16:])):
        params, kept = formats.read_model(found[kind][0])
        names = SkipThoughtsOptions.__dataclass_fields__
        module = SkipThoughts(params, SkipThoughtsOptions(**{n: kept[n] for n in names}))
        for row, line in enumerate(texts):
            x = torch.tensor([[*vocabulary.encode(line), 0]]).T
            thought = module.encode(x, torch.ones(x.shape)).detach().numpy()[0]
            np.testing.assert_allclose(part[row], thought, atol=1e-5)


def test_exported_files(trained, text, tmp_path):
    found, exported = trained
    assert {path.name for path in exported.iterdir()} == {
        'uni_skip.safetensors', 'bi_skip.safetensors', 'utable.npy', 'btable.npy', 'dictionary.txt',
    }  # fmt: skip
    params, options = formats.read_model(exported / 'bi_skip.safetensors')
    assert {name.rsplit('_', 1)[0] for name in params} == {'encoder', 'encoder_r'}
    assert options['dim'] == 16 and options['bidirectional'] is True
    assert Vocabulary.load(exported / 'dictionary.txt') == text[1]
    export(found['uni'][0], tmp_path, text[1], 'float16')
    assert formats.open_table(tmp_path / 'utable.npy').dtype == np.float16


def test_the_pair_of_2015_is_written_and_read(trained):
    """What training writes has the names and options that the encoders of 2015 read."""
    out, _, _ = trained[0]['uni']
    params, options = formats.read_model(out)
    theirs, their_options = formats.read_model(FOLDER / 'skipthoughts_params.npz')
    assert params.keys() == theirs.keys()
    assert {'dim', 'dim_word', 'encoder', 'decoder', 'n_words'} <= options.keys()
    assert options['encoder'] == their_options['encoder'] == 'gru'


@pytest.mark.parametrize(
    'changes',
    [
        {'samples': 5},
        {'bfloat16': True, 'word_dropout': 0.1},
        {'own_words': 0.5, 'frequent': 2},
        {'read_eos': False, 'singles': 0.5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_way_of_training_learns(text, tmp_path, changes):
    _, before, after = train(text, tmp_path, suffix='.safetensors', **changes)
    assert after['neighbour_cost'] < 0.7 * before['neighbour_cost']
    if 'own_words' in changes:
        assert after['own_words_cost'] < before['own_words_cost']  # its floor is above 0


def test_figures_on_held_out_text_use_the_whole_vocabulary(text):
    """Whatever the training cost, so that they can be compared; and they change nothing."""
    corpus, vocabulary = text
    counts = np.bincount(corpus.tokens, minlength=len(vocabulary))
    params = initial_params(SMALL, len(vocabulary), 0)
    units = Units(corpus, None, SMALL)
    figures = []
    for samples in (0, 3):
        model = SkipThoughts(params, replace(SMALL, samples=samples), counts).eval()
        kept = model.word_cost
        with torch.no_grad():
            figures.append(neighbour_cost(model, units, CPU))
        assert model.word_cost is kept
    assert figures[0] == figures[1]


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('dim_word', 0), ('dim', 0), ('longest', 0), ('longest_target', -1), ('batch_size', 0),
        ('batch_words', 0), ('word_dropout', -0.1), ('word_dropout', 1.1), ('singles', 2),
        ('captions', -1), ('captions', 1.0), ('captions', float('nan')), ('samples', -1),
        ('own_words', -0.5), ('frequent', -1),
    ],
)  # fmt: skip
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=f'{name}: expected'):
        SkipThoughtsOptions(**{name: value})


def test_a_sampled_softmax_needs_counts():
    with pytest.raises(ValueError, match='counts'):
        SkipThoughts(initial_params(SMALL, 30, 0), replace(SMALL, samples=5))


def test_captions_without_siblings_are_named():
    books, lone = corpus_of([[5] * 10]), corpus_of([[4], [4, 4]])
    with pytest.raises(ValueError, match='three captions'):
        Units(books, lone, replace(SMALL, captions=0.5)).batches(0)


@pytest.mark.parametrize('lengths', [[[4]], [[4, 4]], [[40, 40, 40]], [[4], [4], [4]]])
def test_a_text_without_one_unit_is_refused_with_its_counts(lengths):
    sizes = np.concatenate(lengths)
    corpus = Corpus(
        np.full(sizes.sum(), 2, np.int32),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([[0], np.cumsum([len(part) for part in lengths])]),
    )
    counts = f'{len(sizes)} sentences in {len(lengths)} documents: not one of at most 30 words'
    with pytest.raises(ValueError, match=counts):
        Units(corpus, None, SkipThoughtsOptions()).batches(0)


def test_units_are_those_of_an_obvious_cut():
    """Each begins where the last one ended, and takes sentences until its length is reached."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 25, 300)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    documents = np.array([0, 5, 6, 8, 150, 300])
    corpus = Corpus(np.full(ends[-1], 2, np.int32), ends, documents)
    options = SkipThoughtsOptions(singles=0.4, longest=60)
    units = Units(corpus, None, options)._of_books(np.random.default_rng(1))
    draws = np.random.default_rng(1)
    several = draws.random(300) >= 0.4
    wanted = np.exp(draws.uniform(np.log(12), np.log(60), 300))
    expected = []
    for begin, end in itertools.pairwise(documents.tolist()):
        first = begin + 1
        while first < end - 1:
            last, limit = first + 1, ends[first] + wanted[first]
            while several[first] and last < end - 1 and ends[last + 1] <= limit:
                last += 1
            expected.append((first, last, first - 1, last))
            first = last
    assert units.tolist() == [list(row) for row in expected]
    assert len(expected) > 50
