from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from storyteller import layers


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_gru(params, prefix, x, h):
    """The GRU of 2015, a step at a time in float64: (T, B, W) and (B, H) -> (T, B, H)."""
    W, U, b, Wx, Ux, bx = (
        params[f'{prefix}_{name}'].astype(np.float64) for name in ('W', 'U', 'b', 'Wx', 'Ux', 'bx')
    )
    states = []
    for step in x:
        r, u = np.split(sigmoid(h @ U + step @ W + b), 2, axis=1)
        c = np.tanh((h @ Ux) * r + step @ Wx + bx)
        h = u * h + (1 - u) * c
        states.append(h)
    return np.stack(states)


def random_gru(prefix='encoder', width=5, hidden=7, seed=0):
    """All six arrays at random, the biases too."""
    rng = np.random.default_rng(seed)
    shapes = {
        'W': (width, 2 * hidden), 'U': (hidden, 2 * hidden), 'b': (2 * hidden,),
        'Wx': (width, hidden), 'Ux': (hidden, hidden), 'bx': (hidden,),
    }  # fmt: skip
    return {
        f'{prefix}_{name}': rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture
def inputs():
    rng = np.random.default_rng(1)
    x, h = rng.normal(size=(9, 4, 5)), rng.normal(size=(4, 7))
    return x.astype(np.float32), h.astype(np.float32)


def test_gru_is_that_of_2015(inputs):
    x, h = inputs
    params = random_gru()
    states, last = layers.gru(params, 'encoder')(torch.tensor(x), torch.tensor(h)[None])
    expected = slow_gru(params, 'encoder', x, h)
    np.testing.assert_allclose(states.detach().numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(last[0].detach().numpy(), expected[-1], atol=2e-6)


def test_r_and_u_have_their_places():
    """u near 1 keeps the old state; r near 0 hides it from the candidate."""
    params = {name: 0 * array for name, array in random_gru(width=1, hidden=2).items()}
    params['encoder_b'][2:] = 30.0  # u
    state = torch.tensor([[0.25, -0.5]])
    kept, _ = layers.gru(params, 'encoder')(torch.ones(1, 1, 1), state[None])
    np.testing.assert_allclose(kept[0].detach().numpy(), state.numpy(), atol=1e-6)
    params['encoder_b'][:] = -30.0  # r and u
    params['encoder_Ux'] += 1.0
    forgot, _ = layers.gru(params, 'encoder')(torch.ones(1, 1, 1), state[None])
    np.testing.assert_allclose(forgot.detach().numpy(), 0, atol=1e-6)


def test_the_second_bias_is_zero_and_stays_so():
    module = layers.gru(random_gru(), 'encoder')
    assert not module.bias_hh_l0.requires_grad and not module.bias_hh_l0.any()
    assert module.weight_ih_l0.requires_grad and module.bias_ih_l0.requires_grad


def test_gru_parameters_come_back():
    params = random_gru('decoder_f')
    returned = layers.gru_params(layers.gru(params, 'decoder_f'), 'decoder_f')
    assert returned.keys() == params.keys()
    for name, array in params.items():
        assert returned[name].dtype == np.float32 and returned[name].flags.c_contiguous
        np.testing.assert_array_equal(returned[name], array)


def test_affine_is_x_w_plus_b_and_comes_back():
    rng = np.random.default_rng(0)
    params = {'ff_W': rng.normal(size=(3, 5)).astype('f4'), 'ff_b': rng.normal(size=5).astype('f4')}
    module = layers.affine(params, 'ff')
    x = rng.normal(size=(2, 3)).astype('f4')
    expected = x @ params['ff_W'] + params['ff_b']
    np.testing.assert_allclose(module(torch.tensor(x)).detach().numpy(), expected, atol=1e-6)
    returned = layers.affine_params(module, 'ff')
    assert returned.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(returned[name], array)


def test_parameters_are_copies():
    """What is exported does not change when training goes on, nor the arrays it came from."""
    params = random_gru() | {'ff_W': np.ones((2, 3), 'f4'), 'ff_b': np.ones(3, 'f4')}
    before = {name: array.copy() for name, array in params.items()}
    modules = layers.gru(params, 'encoder'), layers.affine(params, 'ff')
    exported = layers.gru_params(modules[0], 'encoder') | layers.affine_params(modules[1], 'ff')
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(1.0)
    for name, array in before.items():
        np.testing.assert_array_equal(params[name], array)
        np.testing.assert_array_equal(exported[name], array)


# --- how the trainers of 2015 began --------------------------------------------------------------


def test_initialisers_draw_the_numbers_of_2015():
    rng = np.random.RandomState(0)
    with np.load(REFERENCE / 'training' / 'initialisers_seed0.npz') as expected:
        drawn = {
            'ortho8': layers.ortho_weight(rng, 8),
            'norm_6x9': layers.norm_weight(rng, 6, 9),
            'norm_7x7': layers.norm_weight(rng, 7, 7),
        }
        assert drawn.keys() == set(expected.files)
        for name, array in drawn.items():
            assert array.dtype == np.float32
            theirs = expected[name]
            if name != 'norm_6x9':  # the signs of singular vectors depend on LAPACK
                theirs = theirs * np.sign((array * theirs).sum(0))
            np.testing.assert_allclose(array, theirs, atol=1e-6)


@pytest.mark.parametrize('n', [1, 2, 30])
def test_orthogonal_weights_are_orthogonal(n):
    weight = layers.ortho_weight(np.random.RandomState(3), n)
    np.testing.assert_allclose(weight @ weight.T, np.eye(n), atol=1e-5)


def test_norm_weight_is_uniform_or_orthogonal():
    rng = np.random.RandomState(0)
    weight = layers.norm_weight(rng, 40, 50)
    assert weight.shape == (40, 50) and 0.09 < np.abs(weight).max() <= 0.1
    assert abs(weight.std() - 0.2 / np.sqrt(12)) < 0.002
    for square in (layers.norm_weight(rng, 6), layers.norm_weight(rng, 6, 6)):
        np.testing.assert_allclose(square @ square.T, np.eye(6), atol=1e-5)


def test_a_gru_begins_orthogonal_with_zero_biases():
    params = layers.init_gru(np.random.RandomState(0), 'encoder', 4, 6)
    assert {name: array.shape for name, array in params.items()} == {
        'encoder_W': (4, 12), 'encoder_U': (6, 12), 'encoder_b': (12,),
        'encoder_Wx': (4, 6), 'encoder_Ux': (6, 6), 'encoder_bx': (6,),
    }  # fmt: skip
    assert all(array.dtype == np.float32 for array in params.values())
    for square in (params['encoder_U'][:, :6], params['encoder_U'][:, 6:], params['encoder_Ux']):
        np.testing.assert_allclose(square @ square.T, np.eye(6), atol=1e-5)
    assert not params['encoder_b'].any() and not params['encoder_bx'].any()
    assert not np.allclose(params['encoder_W'][:, :6], params['encoder_W'][:, 6:])
    affine = layers.init_affine(np.random.RandomState(0), 'ff', 3, 5)
    assert affine['ff_W'].shape == (3, 5) and not affine['ff_b'].any()


def test_the_same_seed_draws_the_same_weights():
    first, second, other = (
        layers.init_gru(np.random.RandomState(seed), 'encoder', 4, 6) for seed in (5, 5, 6)
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert not np.array_equal(first['encoder_W'], other['encoder_W'])


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'mps:7', 3.5, ''])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ValueError, match=r"device: '.*' cannot be used here \(.*'cpu' always can"):
        layers.pick_device(device)
