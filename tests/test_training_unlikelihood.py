from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storyteller import decoder, formats
from storyteller.training.decoder import ConditionalGRU, DecoderOptions, initial_params
from storyteller.training.unlikelihood import find, repeat_cost, repeated, write

OPTIONS = DecoderOptions(dim_word=10, dim=12, doutput=True)


def model_and_vectors(n_words=9, seed=0):
    """A random decoder that is sure of what it says, and soon repeats itself."""
    params = initial_params(OPTIONS, n_words, 5, seed)
    params['Wemb'] = params['Wemb'] * 20
    params['ff_state_W'] = params['ff_state_W'] * 10
    params['ff_hid_W'] = params['ff_hid_W'] * 10
    params['ff_logit_W'] = params['ff_logit_W'] * 20
    params['ff_logit_b'] = np.where(np.arange(n_words) == 0, -9, 0).astype(np.float32)
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.normal(size=(6, 5)).astype(np.float32))
    return ConditionalGRU(params, OPTIONS), vectors


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 4))
def test_repeated_words_are_those_of_a_run_that_stood_before(words, run):
    expected = np.zeros(len(words), bool)
    for first in range(len(words) - run + 1):
        here = words[first : first + run]
        before = [words[i : i + run] for i in range(first)]
        if 0 not in here and here in before:
            expected[first : first + run] = True
    found = repeated(torch.tensor(words)[:, None], run)
    assert found[:, 0].tolist() == expected.tolist()


def test_columns_do_not_see_each_other():
    x = torch.tensor([[2, 2], [3, 3], [2, 4], [3, 2]])
    assert repeated(x, run=2).T.tolist() == [[False, False, True, True], [False] * 4]


def test_what_is_written_is_what_the_decoder_would_tell(tmp_path):
    """Greedy decoding by the module that will tell stories with these parameters."""
    model, vectors = model_and_vectors()
    formats.write_model(tmp_path / 'd.npz', model.params(), {'doutput': True})
    formats.write_pickle(tmp_path / 'd.pkl', {f'w{i}': i for i in range(2, 9)})
    dec = decoder.load_model(tmp_path / 'd.npz', tmp_path / 'd.pkl', device='cpu')
    written = write(model, vectors, steps=20)
    for column, vector in zip(written.T.tolist(), vectors.numpy(), strict=True):
        sequences, _ = decoder.gen_sample(dec, vector, maxlen=20, stochastic=True, argmax=True)
        told = [*sequences[0], 0][: len(column)]
        ended = column.index(0) + 1 if 0 in column else len(column)
        assert column[:ended] == told[:ended] and not any(column[ended:])


def test_the_cost_is_that_of_each_repeated_word():
    model, vectors = model_and_vectors()
    x = write(model, vectors, steps=20)
    again = repeated(x)
    assert again.sum() > 20  # or there would be nothing to test
    expected = 0.0
    for column in range(6):
        inputs = model.table(x[:-1, column : column + 1])
        states = model.states(inputs, vectors[column : column + 1])[:, 0]
        p = torch.softmax(model.output(model.top(states)), 1)
        for step in again[:, column].nonzero()[:, 0].tolist():
            expected -= float(torch.log(1 - p[step, x[step, column]]).detach())
    found = float(repeat_cost(model, vectors, steps=20).detach())
    assert found == pytest.approx(expected, rel=1e-3)


def test_learning_by_it_ends_the_repetition():
    model, vectors = model_and_vectors(n_words=40)
    before = int(repeated(write(model, vectors, 40)).sum())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        repeat_cost(model, vectors, steps=40).backward()
        optimizer.step()
    after = int(repeated(write(model, vectors, 40)).sum())
    assert before > 100 and after < before / 2


def test_a_search_of_width_one_takes_the_most_probable_word_each_time():
    model, vectors = model_and_vectors()
    assert torch.equal(find(model, vectors, 30, width=1), write(model, vectors, 30))


@pytest.mark.parametrize('width', [2, 3, 4])
def test_the_search_is_that_of_2015(width, tmp_path):
    model, vectors = model_and_vectors(n_words=30)
    with torch.no_grad():
        model.output.bias[0] = 2.0  # so that some texts end
    words = ['<eos>', 'UNK', *(f'w{i}' for i in range(28))]
    (tmp_path / 'words.txt').write_text('\n'.join(words) + '\n')
    settings = {'dim_word': 10, 'dim': 12, 'dimctx': 5, 'n_words': 30, 'doutput': True}
    formats.write_model(tmp_path / 'a.npz', model.params(), settings)
    dec = decoder.load_model(tmp_path / 'a.npz', tmp_path / 'words.txt', device='cpu')
    told = decoder.run_samplers(dec, vectors.numpy(), width, maxlen=25)
    found = find(model, vectors, 25, width)
    for column, text in zip(found.T.tolist(), told, strict=True):
        assert ' '.join(words[i] for i in itertools.takewhile(bool, column)) == text


def test_learning_by_a_search_ends_the_repetition_that_it_finds():
    model, vectors = model_and_vectors(n_words=40)
    model.options = replace(OPTIONS, repeats_beam=4)
    before = int(repeated(find(model, vectors, 40, 4)).sum())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        repeat_cost(model, vectors, steps=40).backward()
        optimizer.step()
    after = int(repeated(find(model, vectors, 40, 4)).sum())
    assert before > 100 and after < before / 2


def test_nothing_repeated_costs_nothing_and_has_gradients():
    model, vectors = model_and_vectors()
    cost = repeat_cost(model, vectors, steps=3)  # too short for a run to come again
    cost.backward()
    assert float(cost.detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
