from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from torch import nn

from storyteller import decoder, screening

FOLDER = REFERENCE / 'decoder'


def layer_of(rows, width=64, seed=0):
    """An output layer with a few likely words and many unlikely ones, as of a language."""
    torch.manual_seed(seed)
    layer = nn.Linear(width, rows)
    with torch.no_grad():
        layer.weight.normal_(0, 0.3)
        layer.bias.copy_(-torch.arange(1, rows + 1).float().log())
    return layer


@torch.inference_mode()
@pytest.mark.parametrize('rows', [1, 4, 50])
@pytest.mark.parametrize('n_words', [2, 255, 256, 3000])
def test_likely_words_have_nearly_their_probabilities(rows, n_words):
    layer, x = layer_of(n_words), torch.rand(rows, 64) * 2 - 1
    expected = layer(x).log_softmax(1)
    found = screening.ScreenedLinear(layer.weight, layer.bias).log_probs(x)
    assert found.shape == expected.shape and found.dtype == torch.float32
    likely = expected > expected.amax(1, keepdim=True) - 3
    torch.testing.assert_close(found[likely], expected[likely], atol=0.05, rtol=0)
    best = expected.topk(min(5, n_words), dim=1).indices
    torch.testing.assert_close(found.gather(1, best), expected.gather(1, best), atol=3e-3, rtol=0)
    torch.testing.assert_close(found.logsumexp(1), torch.zeros(rows), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_words_that_are_scored_again_are_as_good_as_exact():
    """With all words among them nothing is left of the rounding."""
    layer, x = layer_of(screening.RESCORED), torch.rand(5, 64) * 2 - 1
    found = screening.ScreenedLinear(layer.weight, layer.bias).log_probs(x)
    torch.testing.assert_close(found, layer(x).log_softmax(1), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_certain_word_and_a_row_of_zeros_do_no_harm():
    layer = layer_of(600)
    with torch.no_grad():
        layer.weight[3], layer.bias[3] = 0, 80
    found = screening.ScreenedLinear(layer.weight, layer.bias).log_probs(torch.rand(2, 64))
    assert torch.isfinite(found).all()
    assert (found[:, 3] > -1e-4).all()


@torch.inference_mode()
def test_inputs_beyond_one_are_cut_and_none_is_no_trouble():
    layer, x = layer_of(600), torch.full((1, 64), 1.3)
    ours = screening.ScreenedLinear(layer.weight, layer.bias)
    found, expected = ours.log_probs(x), layer(x).log_softmax(1)
    assert found.argmax() == expected.argmax()
    assert ours.log_probs(x[:0]).shape == (0, 600)


@pytest.mark.parametrize('name', ['romance', 'romance_doutput'])
def test_a_screened_decoder_tells_the_stories_of_2015(name):
    path, words = FOLDER / f'{name}.npz', FOLDER / 'romance_dictionary.pkl'
    plain = decoder.load_model(path, words, device='cpu')
    fast = decoder.load_model(path, words, device='cpu', precision='int8')
    with np.load(FOLDER / f'{name}_io.npz') as arrays:
        contexts = arrays['contexts']
    assert json.loads((FOLDER / f'{name}_beam.json').read_text())
    for c in contexts:
        expected = decoder.gen_sample(plain, c, k=5, maxlen=40)
        found = decoder.gen_sample(fast, c, k=5, maxlen=40)
        assert found[0] == expected[0]
        np.testing.assert_allclose(found[1], expected[1], atol=1e-3)


@torch.inference_mode()
def test_packed_weights_give_what_plain_ones_do(monkeypatch):
    layer, x = layer_of(700), torch.rand(5, 64) * 2 - 1
    packed = screening.ScreenedLinear(layer.weight, layer.bias)
    copied = copy.deepcopy(packed)
    monkeypatch.setattr(screening, 'can_pack', lambda _: False)
    plain = screening.ScreenedLinear(layer.weight, layer.bias)
    for other in (packed, copied):
        torch.testing.assert_close(other.scores(x), plain.scores(x), atol=1e-4, rtol=0)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision: expected 'float32' or 'int8', found 'int4'"):
        decoder.load_model(
            FOLDER / 'romance.npz', FOLDER / 'romance_dictionary.pkl', precision='int4'
        )
