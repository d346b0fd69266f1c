"""The global settings of torch and NumPy are neither trusted nor touched."""

from __future__ import annotations

import contextlib
import random
import warnings

import numpy as np
import pytest
import torch
from small_models import PHOTO, tell

from storyteller import convnet, generate
from storyteller.evaluation.linear_ranking import Described, linear_ranking
from storyteller.nn import efficientnet, packed

PRECISIONS = 'float32', 'bfloat16'


@pytest.fixture(scope='module')
def loaded(small_paths):
    """Models in each precision, and what they tell."""
    models = {
        precision: generate.load_all(small_paths, precision=precision) for precision in PRECISIONS
    }
    return {precision: (z, tell(z)) for precision, z in models.items()}


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def grad_disabled():
    with torch.no_grad():
        yield


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


SURROUNDINGS = {
    'float64': lambda: default_dtype(torch.float64),
    'bfloat16': lambda: default_dtype(torch.bfloat16),
    'float16': lambda: default_dtype(torch.float16),
    'autocast': lambda: torch.autocast('cpu'),
    'autocast to float16': lambda: torch.autocast('cpu', dtype=torch.float16),
    'another device': lambda: torch.device('meta'),
    'inference': torch.inference_mode,
    'no gradients': grad_disabled,
    'determinism': deterministic,
    'anomalies': lambda: torch.autograd.set_detect_anomaly(True),
    'NumPy errors': lambda: np.errstate(all='raise'),
    'warnings are errors': warnings_are_errors,
}


@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize('around', SURROUNDINGS)
@pytest.mark.filterwarnings('ignore:Anomaly')
def test_a_story_is_the_same_whatever_is_set_around_it(loaded, small_paths, around, precision):
    z, expected = loaded[precision]
    with SURROUNDINGS[around]():
        assert tell(z) == expected
        assert tell(generate.load_all(small_paths, precision=precision)) == expected
    with SURROUNDINGS[around]():
        inside = generate.load_all(small_paths, precision=precision)
    assert tell(inside) == expected  # and outside of what it was loaded in


@pytest.mark.parametrize('around', SURROUNDINGS)
@pytest.mark.filterwarnings('ignore:Anomaly')
def test_the_pool_and_many_photos_are_the_same_too(
    loaded, small_paths, around, tmp_path, monkeypatch
):
    photos = [PHOTO, PHOTO[::-1]]
    z, _ = loaded['float32']
    expected, vectors = tell(z, photos), np.array(z['cvec'])
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))  # empty
    with SURROUNDINGS[around]():
        fresh = generate.load_all(small_paths)
        np.testing.assert_array_equal(fresh['cvec'], vectors)
        assert tell(fresh, photos) == expected


@pytest.mark.parametrize('way', ['packed', 'plain'])
def test_no_random_numbers_are_taken_from_others(small_paths, monkeypatch, way):
    if way == 'plain':
        monkeypatch.setattr(packed, 'can_pack', lambda weight: False)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    tell(generate.load_all(small_paths))
    images, sentences = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    part = Described(images, sentences, np.array([0, 0, 1, 2, 3]))
    linear_ranking(part, part, part, dim=3, epochs=1, verbose=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]


@pytest.mark.parametrize('around', ['float64', 'bfloat16', 'autocast', 'another device'])
def test_the_network_of_the_bundle_sees_the_same(tmp_path, around):
    efficientnet.write_eyes(tmp_path / 'convnet.json', efficientnet.Eyes())
    try:
        net = convnet.build_convnet(tmp_path / 'convnet.json', device='cpu')
    except FileNotFoundError:
        pytest.skip('its weights are not installed')
    photo = np.random.default_rng(0).uniform(-100, 100, (1, 3, 260, 260)).astype(np.float32)
    expected, before = convnet.compute_features(net, photo), torch.get_rng_state()
    with SURROUNDINGS[around]():
        np.testing.assert_array_equal(convnet.compute_features(net, photo), expected)
        if around != 'another device':  # which the layers of that network would be made on
            net = convnet.build_convnet(tmp_path / 'convnet.json', device='cpu')
            np.testing.assert_array_equal(convnet.compute_features(net, photo), expected)
    assert torch.equal(torch.get_rng_state(), before)
