from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from storyteller import decoder, formats, search

FOLDER = REFERENCE / 'decoder'
NAMES = ['romance', 'romance_doutput']
DICTIONARY = FOLDER / 'romance_dictionary.pkl'


def load(name, dictionary=DICTIONARY):
    return decoder.load_model(FOLDER / f'{name}.npz', dictionary, device='cpu')


@pytest.fixture(scope='module', params=NAMES)
def case(request):
    """A decoder, the arrays that went into and came out of it in 2015, and its texts."""
    records = json.loads((FOLDER / f'{request.param}_beam.json').read_text())
    with np.load(FOLDER / f'{request.param}_io.npz') as arrays:
        return load(request.param), dict(arrays), records


@pytest.fixture(scope='module')
def dec():
    return load('romance')


@pytest.fixture(scope='module')
def contexts():
    with np.load(FOLDER / 'romance_io.npz') as arrays:
        return arrays['contexts']


def outcome(story):
    """A story or the fact that it is empty, so that lists of both can be compared."""
    return type(story) if isinstance(story, Exception) else story


# --- the numbers of 2015 -------------------------------------------------------------------------


def test_f_init_gives_the_states_of_2015(case):
    dec, arrays, _ = case
    states = dec['f_init'](arrays['contexts'])
    assert states.dtype == np.float32
    np.testing.assert_allclose(states, arrays['init_states'], atol=1e-5)


def test_f_next_gives_the_probabilities_and_states_of_2015(case):
    dec, arrays, _ = case
    assert -1 in arrays['next_words']  # before the first word
    probs, words, states = dec['f_next'](arrays['next_words'], arrays['next_states_in'])
    assert probs.dtype == states.dtype == np.float32
    np.testing.assert_allclose(probs, arrays['next_probs'], atol=1e-5)
    np.testing.assert_allclose(states, arrays['next_states_out'], atol=1e-5)
    assert words.shape == (8,)
    assert probs[np.arange(8), words].min() > 0


def test_beams_are_those_of_2015(case):
    dec, arrays, records = case
    assert len(records['beam']) == 36
    for record in records['beam']:
        context = arrays['contexts'][record['context']]
        sequences, scores = decoder.gen_sample(
            dec, context, record['k'], record['maxlen'], use_unk=record['use_unk']
        )
        assert sequences == record['sequences']
        np.testing.assert_allclose(scores, record['scores'], atol=1e-4)


def test_texts_are_those_of_2015(case):
    dec, arrays, records = case
    for record in records['run_sampler']:
        context = arrays['contexts'][record['context']]
        if record['text'] is None:  # 2015: ValueError: attempt to get argmin of an empty sequence
            with pytest.raises(formats.EmptyStoryError, match='before its first word'):
                decoder.run_sampler(dec, context, record['k'])
            continue
        words = decoder.run_sampler(dec, context, record['k']).split()
        expected = record['text'].split()
        if record['n_words'] == 999:  # cut at maxlen, where 2015 lost the last word
            assert len(words) == 1000
            words = words[:-1]
        length = None if record['robust'] else 40
        assert words[:length] == expected[:length]


def test_argmax_begins_with_the_word_of_2015(case):
    dec, arrays, records = case
    for record in records['argmax']:
        context = arrays['contexts'][record['context']]
        (words,), _ = decoder.gen_sample(dec, context, maxlen=40, stochastic=True, argmax=True)
        assert words[0] == record['sequence'][0]


def test_stories_are_those_of_2015(dec):
    images = json.loads((REFERENCE / 'story' / 'story.json').read_text())
    with np.load(REFERENCE / 'story' / 'vectors.npz') as vectors:
        shifts = [vectors['shift_' + name.split('.')[0]] for name in images['images']]
    passages = [image['passage'] for image in images['images'].values()]
    assert decoder.run_samplers(dec, np.stack(shifts), images['bw']) == passages


# --- generating ----------------------------------------------------------------------------------


@pytest.mark.parametrize('k', [1, 5, 20])
@pytest.mark.parametrize('use_unk', [False, True])
def test_a_batch_tells_what_each_context_tells_alone(case, k, use_unk):
    dec, arrays, _ = case
    together = decoder.run_samplers(dec, arrays['contexts'], k, use_unk=use_unk, maxlen=60)
    for context, story in zip(arrays['contexts'], together, strict=True):
        try:
            assert story == decoder.run_sampler(dec, context, k, use_unk=use_unk, maxlen=60)
        except formats.EmptyStoryError:
            assert isinstance(story, formats.EmptyStoryError)


def test_a_batch_that_does_not_fit_into_memory_is_told_in_parts(dec, contexts, monkeypatch):
    whole = decoder.run_samplers(dec, contexts, 5, maxlen=30)
    drawn = decoder.run_samplers(dec, contexts, stochastic=True, maxlen=30, seed=range(6))
    sizes = []
    step = decoder.Decoder.step
    monkeypatch.setattr(
        decoder.Decoder,
        'step',
        lambda model, words, state: (sizes.append(len(words)), step(model, words, state))[1],
    )
    monkeypatch.setattr(decoder, 'LARGEST_STEP', 2 * 5 * 84)
    parts = decoder.run_samplers(dec, contexts, 5, maxlen=30)
    assert list(map(outcome, parts)) == list(map(outcome, whole))
    assert max(sizes) <= 2 * 5
    monkeypatch.setattr(decoder, 'LARGEST_STEP', 1)
    parts = decoder.run_samplers(dec, contexts, stochastic=True, maxlen=30, seed=range(6))
    assert list(map(outcome, parts)) == list(map(outcome, drawn))


@pytest.mark.parametrize('k', [2, 5, 20])
def test_early_stop_gives_the_same_story(case, k):
    dec, arrays, _ = case
    for context in arrays['contexts']:
        sequences, scores = decoder.gen_sample(dec, context, k, 60)
        early, early_scores = decoder.gen_sample(dec, context, k, 60, early_stop=True)
        whole = search.best([*map(search.Hypothesis, sequences, scores)])
        assert search.best([*map(search.Hypothesis, early, early_scores)]).words == whole.words
        assert early[0] == sequences[0]


def test_stories_stop_early(monkeypatch):
    dec, steps = load('romance_doutput'), []
    step = decoder.Decoder.step
    monkeypatch.setattr(
        decoder.Decoder,
        'step',
        lambda model, words, state: (steps.append(1), step(model, words, state))[1],
    )
    with np.load(FOLDER / 'romance_doutput_io.npz') as arrays:
        assert decoder.run_sampler(dec, arrays['contexts'][5], 5) == 'breeze'
    assert len(steps) < 10  # the whole search would take 1000


def test_argmax_feeds_back_the_word_it_chose(case):
    dec, arrays, _ = case
    for context in arrays['contexts']:
        (words,), (score,) = decoder.gen_sample(
            dec, context, maxlen=30, stochastic=True, argmax=True
        )
        state, last, total = dec['f_init'](context[None]), -1, 0.0
        for word in words:
            probs, _, state = dec['f_next']([last], state)
            total -= np.log(probs[0, word])
            probs[0, search.UNK] = 0
            assert word == probs[0].argmax()
            last = word
        assert score == pytest.approx(total, abs=1e-4)


def test_a_drawn_story_is_repeated_by_its_seed(dec, contexts):
    def draw(seed):
        return decoder.gen_sample(dec, contexts[4], maxlen=50, stochastic=True, seed=seed)

    (sequence,), (score,) = draw(3)
    assert draw(3) == ([sequence], [score])
    assert draw(4) != ([sequence], [score])
    assert search.UNK not in sequence
    text = decoder.run_sampler(dec, contexts[4], stochastic=True, maxlen=50, seed=3)
    (together, other) = decoder.run_samplers(
        dec, contexts[[4, 4]], stochastic=True, maxlen=50, seed=[3, 4]
    )
    assert together == text != other
    assert [together] * 2 == decoder.run_samplers(
        dec, contexts[[4, 4]], stochastic=True, maxlen=50, seed=3
    )


def test_a_draw_is_not_repeated_without_a_seed(dec, contexts):
    draws = decoder.run_samplers(dec, contexts[[4] * 8], stochastic=True, maxlen=30)
    assert len(set(map(str, draws))) > 1


def test_a_beam_may_be_wider_than_the_vocabulary(dec, contexts):
    sequences, scores = decoder.gen_sample(dec, contexts[1], 100, 1)
    assert len(sequences) == len(dec['_model'].logit.bias) == 84
    assert sequences[-1] == [search.UNK]
    assert scores[-1] == np.float32(1e20)
    assert len(decoder.gen_sample(dec, contexts[1], 100, 2)[0]) == 100


def test_no_contexts_tell_no_stories(dec):
    assert decoder.run_samplers(dec, np.zeros((0, 48)), 5) == []


@pytest.mark.parametrize('shape', [(47,), (2, 24, 2), (2, 24), (48, 1), (2, 48), ()])
def test_a_context_of_another_shape_is_refused(dec, shape):
    with pytest.raises(ValueError, match=r'expected (one context|shape)'):
        decoder.run_sampler(dec, np.zeros(shape))


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_a_context_that_is_not_finite_is_refused(dec, value):
    with pytest.raises(ValueError, match='expected finite numbers'):
        decoder.gen_sample(dec, np.full(48, value))


@pytest.mark.parametrize('dtype', [bool, complex, object, str])
def test_a_context_that_is_not_numbers_is_refused(dec, dtype):
    with pytest.raises(ValueError, match='contexts: expected numbers'):
        decoder.gen_sample(dec, np.zeros(48).astype(dtype))


@pytest.mark.parametrize('value', [0, -3, True, 5.0, '5'])
def test_a_beam_width_out_of_range_is_named(dec, contexts, value):
    with pytest.raises(ValueError, match=f'beam width: .* found {value!r}'):
        decoder.run_sampler(dec, contexts[0], value)


def test_options_that_contradict_each_other_are_refused(dec, contexts):
    with pytest.raises(ValueError, match='expected 1 for a stochastic sample, found 5'):
        decoder.run_sampler(dec, contexts[0], 5, stochastic=True)
    with pytest.raises(ValueError, match='seed: expected one, or 6 of them, found 2'):
        decoder.run_samplers(dec, contexts, stochastic=True, seed=[1, 2])
    with pytest.raises(ValueError, match='maxlen: expected an integer from 1 up, found 0'):
        decoder.run_sampler(dec, contexts[0], maxlen=0)


# --- loading -------------------------------------------------------------------------------------


def test_a_loaded_model_holds_what_people_used(dec):
    assert dec['options']['n_words'] == 84
    assert dec['word_idict'][0] == '<eos>'
    assert dec['word_idict'][1] == 'UNK'
    assert dec['word_idict'][dec['worddict']['café']] == 'café'
    assert len(dec['worddict']) == 88  # the rarest have no place in the model


@pytest.mark.parametrize('suffix', ['_plain.pkl', '_unicode.pkl', '.txt'])
def test_every_kind_of_dictionary_is_read(dec, suffix, tmp_path):
    path = FOLDER / f'romance_dictionary{suffix}'
    if suffix == '.txt':
        path = tmp_path / 'dictionary.txt'
        words = sorted(dec['worddict'], key=dec['worddict'].get)
        path.write_text('\n'.join(['<eos>', 'UNK', *words]) + '\n', 'utf-8')
    other = load('romance', path)
    assert other['word_idict'] == dec['word_idict']


def test_a_missing_doutput_option_means_true(case):
    dec, _, _ = case
    assert dec['options']['doutput'] == (dec['_model'].hidden is not None)
    assert 'doutput' not in formats.load_pickles(FOLDER / 'romance_doutput.npz.pkl')[0]


@pytest.mark.parametrize('name', NAMES)
def test_our_format_tells_the_same_stories(name, tmp_path, contexts):
    params, options = formats.read_model(FOLDER / f'{name}.npz')
    path = tmp_path / 'decoder.safetensors'
    formats.write_model(path, params, options)
    ours = decoder.load_model(path, DICTIONARY)
    theirs = load(name)
    assert decoder.gen_sample(ours, contexts[2], 5, 40) == decoder.gen_sample(
        theirs, contexts[2], 5, 40
    )


def altered(tmp_path, change, name='romance'):
    """A decoder file whose parameters and options went through `change`."""
    params, options = formats.read_model(FOLDER / f'{name}.npz')
    change(params, options)
    path = tmp_path / 'decoder.npz'
    formats.write_model(path, params, options)
    return path


CHANGES = {
    "parameter 'ff_state_W' is missing": lambda p, o: p.pop('ff_state_W'),
    "parameter 'decoder_Ux' is missing": lambda p, o: p.pop('decoder_Ux'),
    "parameter 'decoder_U' has shape": lambda p, o: p.update(decoder_U=p['decoder_U'][:-1]),
    "parameter 'ff_hid_W' is missing": lambda p, o: o.pop('doutput'),
    "parameter 'ff_logit_b' holds NaN": lambda p, o: p.update(ff_logit_b=p['ff_logit_b'] * np.nan),
    "option 'dimctx' is 4800, but the parameters have 48": lambda p, o: o.update(dimctx=4800),
    'expected <eos>, UNK and more, found 1 words': lambda p, o: p.update(Wemb=p['Wemb'][:1]),
}


@pytest.mark.parametrize('message', CHANGES)
def test_a_file_that_is_no_decoder_is_refused_by_name(message, tmp_path):
    path = altered(tmp_path, CHANGES[message])
    with pytest.raises(formats.ModelFileError, match=message) as error:
        decoder.load_model(path, DICTIONARY)
    assert str(path) in str(error.value)


def test_options_may_lack_the_sizes(tmp_path):
    path = altered(tmp_path, lambda p, o: [o.pop(name) for name in ('n_words', 'dim', 'dimctx')])
    options = decoder.load_model(path, DICTIONARY)['options']
    assert (options['n_words'], options['dim'], options['dimctx']) == (84, 32, 48)


def test_a_dictionary_that_lacks_words_of_the_model_is_refused(tmp_path):
    path = tmp_path / 'dictionary.txt'
    path.write_text('<eos>\nUNK\nthe\n')
    with pytest.raises(formats.MismatchError) as caught:
        load('romance', path)
    for part in ('romance.npz: the decoder has 84 words', str(path), 'with index 3'):
        assert part in str(caught.value)


def test_the_step_reads_a_zero_vector_before_the_first_word(dec):
    model = dec['_model']
    vectors = model.embed(torch.tensor([-1, 0, 5]))
    assert not vectors[0].any()
    torch.testing.assert_close(vectors[1:], model.embedding.weight[[0, 5]])
